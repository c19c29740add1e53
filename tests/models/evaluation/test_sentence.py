"""What the decoder may write where an ad was chosen beforehand."""

import pytest
import xgrammar

from models.contract.markers import MarkedAd, read
from models.evaluation.mechanisms.sentence import paragraph_grammar, sentence_grammar

AD = MarkedAd("Ad-1", 'Best "tents" (2.0)')


def accepts(ebnf: str, text: str) -> bool:
    """Whether `text` is a whole answer of the grammar."""
    tokenizer = xgrammar.TokenizerInfo([*map(chr, range(128)), "</s>"], stop_token_ids=[128])
    compiled = xgrammar.GrammarCompiler(tokenizer).compile_grammar(ebnf)
    matcher = xgrammar.GrammarMatcher(compiled)
    return matcher.accept_string(text) and matcher.accept_token(128)


@pytest.mark.parametrize(
    "text",
    [
        f"One option is {AD.marker}.",
        f"A tent keeps you dry at night. You could try {AD.marker} for two.",
        f"You could try {AD.marker}. Write to me@example.com, or do not.",
    ],
)
def test_a_paragraph_holds_the_ad_once_and_reads_without_a_fault(text: str) -> None:
    assert accepts(paragraph_grammar(AD), text)
    assert [segment.ad_id for segment in read(text, [AD], 1).insertions] == ["Ad-1"]


@pytest.mark.parametrize(
    "text",
    ["A tent keeps you dry at night.", "One option is this.", f"{AD.marker}.", "One option is @B"],
)
def test_it_does_not_end_without_the_ad(text: str) -> None:
    assert not accepts(paragraph_grammar(AD), text)


def test_a_sentence_ends_with_itself() -> None:
    assert accepts(sentence_grammar(AD), f"One option is {AD.marker}, which is light.")
    assert not accepts(sentence_grammar(AD), f"One option is {AD.marker}. And more.")
