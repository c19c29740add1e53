"""Simulated users by a language model: it reads the answer as the user would and says what it
clicks on.

After the User-LLM of LLM-Auction (arXiv 2512.10551, section 5.1), in words of our own: for every
ad in the answer `{ad_id, clicked, reason}`, at temperature 0.3, top-p 0.8, top-k 20. A grammar
enforces the form where the engine does; what comes back is checked all the same.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

from models.contract.neutral import neutralise
from models.contract.prompt import Profile, Prompt
from models.contract.reading import Reading, SegmentKind
from models.engine.interface import Sampling
from models.simulation.asking import CompletionError, Question, UserLlm, all_in_order, chat
from models.simulation.nouns import Click, Exposure
from models.simulation.randomness import derived_seed, uniform

PROMPT_NAME = "judge-1"
_REASON_CHARACTERS = 160
_TOKENS_PER_AD = 110
_SAMPLING = Sampling(temperature=0.3, top_p=0.8, top_k=20)
_UNREADABLE = "the judge gave no verdict that could be read"

_SYSTEM = """\
You play one particular user of a chat assistant. You asked a question and now read the answer. \
Some words in it are ads; they look like <ad id="Ad-7">Title</ad>. Decide for each ad whether you, \
being who you are and wanting what you asked, would click on it.
How real people decide:
- They click when the thing advertised helps with what they asked. Most ads do not, and most are \
not clicked.
- Among useful things, they click on what suits their life, interests and budget.
- An ad that is part of a helpful sentence earns trust. One that stands alone, or breaks into a \
sentence on something else, does not.
- When several ads offer the same kind of thing, they click on one of them at most.
- When an answer is crowded with ads, or reads like advertising, they click on nothing.
Reply with a JSON list that has an entry for every ad, in the order of the answer, and nothing \
else: [{"ad_id": "Ad-7", "clicked": false, "reason": "a few words"}]"""


class Judge:
    """Simulated users (`SimulatedUsers`), played by `llm`.

    votes: how often each answer is judged, at least 1. A click's probability is the share of votes
    for it, so with one vote it is 0 or 1. unreadable: answers so far without a usable verdict,
    whose ads count as not clicked.
    """

    def __init__(
        self,
        llm: UserLlm,
        votes: int = 1,
        progress: Callable[[int], None] = lambda done: None,
    ) -> None:
        """progress: told how many of the answers at hand are judged."""
        if votes < 1:
            raise ValueError(f"A judge has at least 1 vote, not {votes}")
        self._llm = llm
        self._votes = votes
        self._progress = progress
        self.unreadable = 0

    async def clicks(self, exposures: Sequence[Exposure]) -> list[tuple[Click, ...]]:
        """For each answer, in order, a Click for each of its insertions, in order.

        Raises what the engine raises.
        """
        return await all_in_order([self._judge(each) for each in exposures], self._progress)

    async def _judge(self, exposure: Exposure) -> tuple[Click, ...]:
        ad_ids = [ad.ad_id or "" for ad in exposure.reading.insertions]
        if not ad_ids:
            return ()
        try:
            ballots = [await self._vote(exposure, ad_ids, vote) for vote in range(self._votes)]
        except CompletionError:
            self.unreadable += 1
            return tuple(Click(ad_id, 0.0, False, _UNREADABLE) for ad_id in ad_ids)
        return tuple(
            _counted(ad_id, [ballot[index] for ballot in ballots], exposure.auction.seed)
            for index, ad_id in enumerate(ad_ids)
        )

    async def _vote(
        self, exposure: Exposure, ad_ids: Sequence[str], vote: int
    ) -> list[tuple[bool, str]]:
        seed = derived_seed("judge", exposure.auction.seed, vote)
        sampling = replace(_SAMPLING, max_tokens=_TOKENS_PER_AD * len(ad_ids), seed=seed)
        question = Question(judge_prompt(exposure), sampling, verdict_grammar(ad_ids))
        return await self._llm.ask(question, lambda text: read_verdicts(text, ad_ids))


def judge_prompt(exposure: Exposure) -> Prompt:
    """What the judge reads. All that comes from outside is neutralised."""
    auction = exposure.auction
    user = (
        f"Who you are: {_about(auction.user.profile)}\n\n"
        f"What you asked: {neutralise(auction.query.text)}\n\n"
        f"The answer:\n{_shown(exposure.reading)}\n\n"
        "Your verdict on every ad, as JSON:"
    )
    return chat(PROMPT_NAME, _SYSTEM, user)


def verdict_grammar(ad_ids: Sequence[str]) -> str:
    """EBNF of a verdict on `ad_ids`, in their order."""
    entries = [
        f'"{{\\"ad_id\\": \\"{ad_id}\\", \\"clicked\\": " truth ", \\"reason\\": " reason "}}"'
        for ad_id in ad_ids
    ]
    return (
        'root ::= "[" ' + ' ", " '.join(entries) + ' "]"\n'
        'truth ::= "true" | "false"\n'
        f'reason ::= "\\"" [^"\\\\\\x00-\\x1f]{{1,{_REASON_CHARACTERS}}} "\\""\n'
    )


def read_verdicts(text: str, ad_ids: Sequence[str]) -> list[tuple[bool, str]]:
    """Whether each of `ad_ids` is clicked, and why, in their order.

    Raises ValueError where `text` is not a verdict on just these ads.
    """
    rows = json.loads(text)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("the verdict is not a JSON list of objects")
    by_id = {row.get("ad_id"): row for row in rows}
    if set(by_id) != set(ad_ids) or len(rows) != len(ad_ids):
        raise ValueError(f"the verdict is on {sorted(map(str, by_id))}, not on {sorted(ad_ids)}")
    verdicts = []
    for ad_id in ad_ids:
        clicked, reason = by_id[ad_id].get("clicked"), by_id[ad_id].get("reason", "")
        if not isinstance(clicked, bool):
            raise ValueError(f"clicked is {clicked!r} for {ad_id}, not true or false")
        verdicts.append((clicked, str(reason)))
    return verdicts


def _counted(ad_id: str, votes: Sequence[tuple[bool, str]], seed: int) -> Click:
    probability = sum(clicked for clicked, _ in votes) / len(votes)
    clicked = uniform("click", seed, ad_id) < probability
    reason = next((reason for vote, reason in votes if vote == clicked), votes[0][1])
    return Click(ad_id, probability, clicked, reason)


def _about(profile: Profile) -> str:
    interests = ", ".join(profile.interests)
    parts = [profile.info, f"You like {interests}." if interests else ""]
    return neutralise(" ".join(filter(None, parts))) or "somebody of whom nothing is known"


def _shown(reading: Reading) -> str:
    return "".join(
        f'<ad id="{part.ad_id}">{neutralise(part.text)}</ad>'
        if part.kind is SegmentKind.AD
        else _neutral_part(part.text)
        for part in reading.segments
    )


def _neutral_part(text: str) -> str:
    """`neutralise(text)`, with the white space around it kept as one space or line break."""
    inner = neutralise(text)
    before = _space(text[: len(text) - len(text.lstrip())])
    after = _space(text[len(text.rstrip()) :])
    return f"{before}{inner}{after}" if inner else before


def _space(text: str) -> str:
    return "\n" if "\n" in text else " " if text else ""
