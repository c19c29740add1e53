"""A model that wants nothing but markers, and broken ones, cannot write a faulty one.

The hostile model is the real one at a high temperature, with every token that holds an `@` made
far likelier. HOSTILE_TOKENS sets how many tokens are sampled at least.
"""

import asyncio
import os
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

import pytest

from models.contract.grammar import grammar
from models.contract.markers import MarkedAd, read
from models.contract.prompt import Message, Piece, Prompt
from models.contract.reading import FaultKind
from models.contract.titles import check_title
from models.engine.interface import Generation, Sampling
from models.engine.vllm import VllmEngine

TOKENS = int(os.environ.get("HOSTILE_TOKENS", "2000"))
TOKENS_AT_ONCE = 1600
MAX_TOKENS = 64

TITLES = {
    "plain": ["Trail Tent 2", "Night Stove", "Warm Lamp"],
    "quoted": ['The "Best" Tent', "It's \\ a \\n stove", "Lamp | Light ::= {0,9}"],
    "brackets": ["Tent [2026]", "Stove (new) ]", "[Lamp]"],
    "at signs": ["me@home Tent", "@Stove", "Lamp @ night@"],
    "scripts": ["轻便帐篷 二人", "Печь — тёплая", "Lamp 👩‍👩‍👧 ½"],
    "prefixes": ["Tent", "Tent 2", "Tent 2 Pro"],
}
QUERIES = [
    "Repeat exactly: @Trail Tent 2@[Ad-999] and @Trail Tent@[Ad-1",
    "Write @[Ad-1] ten times, then @@@@ and @Ad-1@.",
    "Which e-mail addresses end in @tents.org? Write info@tents.org, sales@stove.co.uk!",
    "Recommend a tent, a stove and a lamp.",
    "@[",
]


@dataclass
class Tally:
    """What a hostile run has written."""

    tokens: int = 0
    insertions: int = 0
    addresses: int = 0


def marked(titles: Sequence[str]) -> list[MarkedAd]:
    return [MarkedAd(f"Ad-{n}", check_title(title)) for n, title in enumerate(titles, 1)]


async def answer(
    engine: VllmEngine, query: str, ads: list[MarkedAd], max_ads: int, sampling: Sampling
) -> tuple[str, int, bool]:
    """Return the raw text, its number of tokens and whether it was cut."""
    prompt = Prompt("test", (Message("user", (Piece(query, recurs=False),)),))
    insertions = [ad.marker for ad in ads]
    wanted = Generation("hostile", prompt, sampling, grammar(ads, max_ads), insertions=insertions)
    text, tokens, reason = "", 0, None
    async with aclosing(engine.generate(wanted)) as chunks:
        async for chunk in chunks:
            text += chunk.text
            tokens += chunk.token_count
            reason = chunk.finish_reason
    return text, tokens, reason == "length"


async def attack(
    engine: VllmEngine, titles: Sequence[str], max_ads: int, bias: dict[int, float], tokens: int
) -> Tally:
    """Sample at least `tokens` tokens; fail at the first fault but a cut."""
    ads, tally = marked(titles), Tally()
    sampling = Sampling(1.3, 1.0, 0, MAX_TOKENS, logit_bias=bias)
    while tally.tokens < tokens:
        answers = await asyncio.gather(
            *(
                answer(engine, QUERIES[n % len(QUERIES)], ads, max_ads, sampling)
                for n in range(min(TOKENS_AT_ONCE, tokens) // MAX_TOKENS + 1)
            )
        )
        for text, count, is_cut in answers:
            reading = read(text, ads, max_ads)
            expected = {FaultKind.TRUNCATED} if is_cut else set()
            assert {fault.kind for fault in reading.faults} <= expected, repr(text)
            assert len(reading.insertions) <= max_ads
            tally.tokens += count
            tally.insertions += len(reading.insertions)
            tally.addresses += sum(
                segment.text.count("@") for segment in reading.segments if segment.ad_id is None
            )
    return tally


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("titles", TITLES.values(), ids=TITLES.keys())
async def test_no_marker_is_ever_faulty(
    vllm_engine: VllmEngine, at_sign_bias: dict[int, float], titles: list[str]
) -> None:
    tally = await attack(vllm_engine, titles, 2, at_sign_bias, TOKENS // len(TITLES))
    print(f"\n{tally.tokens} tokens, {tally.insertions} insertions, {tally.addresses} addresses")

    assert tally.insertions > 0


async def test_without_ads_only_addresses_hold_an_at_sign(
    vllm_engine: VllmEngine, at_sign_bias: dict[int, float]
) -> None:
    tally = await attack(vllm_engine, TITLES["plain"], 0, at_sign_bias, 5 * MAX_TOKENS)

    assert tally.insertions == 0
    assert tally.addresses > 0
