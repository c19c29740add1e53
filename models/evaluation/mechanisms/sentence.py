"""A sentence that must hold a given ad: what mechanisms need that decide before they write.

Their sources leave it to a large model to obey the instruction. A small one does not, so the
decoder sees to it: the model chooses how the sentence begins and goes on, never whether the ad is
in it. Where decoding is not constrained, an ad that the model leaves out is not shown.
"""

from typing import Final

from models.contract.grammar import grammar
from models.contract.markers import MarkedAd

_LEADS: Final = (
    "One option is ",
    "You could try ",
    "For this, consider ",
    "It may help to look at ",
    "A good place to start is ",
    "Some people like ",
)
# As in the contract's grammar, repetitions are over single characters only; that is fast.
_SENTENCE: Final = 'sentence ::= lead marker [^@.!?\\n]{0,100} "."\n'
_OPENING: Final = 'opening ::= [^@.!?\\n]{15,120} [.!?] " "\n'


def sentence_grammar(ad: MarkedAd) -> str:
    """Return the EBNF of one sentence with `ad` in it."""
    return "root ::= sentence\n" + _rules(ad)


def paragraph_grammar(ad: MarkedAd) -> str:
    """Return the EBNF of a paragraph: a sentence where the model likes one, the ad's, the rest."""
    return "root ::= opening? sentence rest\n" + 'rest ::= "" | " " text\n' + _OPENING + _rules(ad)


def _rules(ad: MarkedAd) -> str:
    _, _, contract = grammar([ad], 1).partition("\n")  # all but its root: text, word, marker
    leads = " | ".join(f'"{lead}"' for lead in _LEADS)
    return f"{_SENTENCE}lead ::= {leads}\n{contract}"
