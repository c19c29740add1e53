"""The questions and ads of the benchmarks, and the same prompts for the service and for vLLM.

Prompts come from the prompt contract, imported here: two servers can only be compared on the same
words.
"""

import random
from decimal import Decimal
from typing import Any

from loadtest.ask import QUERIES
from models.contract.grammar import grammar
from models.contract.markers import MarkedAd
from models.contract.prompt import Candidate, Layout, Prompt, build_prompt

Json = dict[str, Any]
SAMPLING = {"temperature": 0.7, "top_p": 0.8, "top_k": 20}
MAX_ADS = 3
_KINDS = ("Boots", "Tents", "Lamps", "Stoves", "Maps", "Shoes", "Coats", "Ropes")


def own_ads(count: int) -> list[Json]:
    """`count` ads of ordinary lengths, always the same ones."""
    return [
        {
            "ad_id": f"Bench-{number}",
            "title": f"Northway {_KINDS[number % len(_KINDS)]} {number}",
            "description": "Light and durable gear for long days outside, in many sizes and colors,"
            " with a year to send it back.",
            "category": _KINDS[number % len(_KINDS)].lower(),
            "landing_url": f"https://northway.example/{number}",
            "advertiser_id": f"adv-{number % 10}",
        }
        for number in range(count)
    ]


def bids_of(ads: list[Json], rng: random.Random | None = None) -> list[Json]:
    """Candidates of a request: each ad with a bid from 1 to 100, or of 1 without `rng`."""
    return [{"ad_id": ad["ad_id"], "bid": rng.randint(1, 100) if rng else 1} for ad in ads]


def question(rng: random.Random, number: int) -> str:
    """One of a few questions, made unlike all others."""
    return f"{QUERIES[number % len(QUERIES)]} (visitor {rng.randrange(10**6)})"


def make_asks(
    rng: random.Random, count: int, candidates: int, max_tokens: int
) -> list[tuple[Json, Json]]:
    """Pairs of the same question for the service and for vLLM's server, streamed."""
    ads, pairs = own_ads(200), []
    for number in range(count):
        chosen, query = rng.sample(ads, candidates), question(rng, number)
        bids = bids_of(chosen, rng)
        prompt = prompt_of(chosen, bids, query)
        seed = rng.randrange(1 << 31)
        common = {**SAMPLING, "max_tokens": max_tokens, "seed": seed, "stream": True}
        ours = {**common, "query": query, "candidates": bids, "max_ads": MAX_ADS}
        theirs = {**common, "model": "model", "messages": messages(prompt),
                  "stream_options": {"include_usage": True}}  # fmt: skip
        pairs.append((ours, theirs))
    return pairs


def prompt_of(ads: list[Json], bids: list[Json], query: str) -> Prompt:
    """The prompt that the service makes of these, but for the order of the candidates."""
    candidates = [
        Candidate(ad["ad_id"], ad["title"], ad["category"], ad["description"], Decimal(bid["bid"]))
        for ad, bid in zip(ads, bids, strict=True)
    ]
    return build_prompt(Layout.INLINE, candidates, query, (), None)


def with_grammar(theirs: Json, ours: Json) -> Json:
    """vLLM's request under the grammar that the service would decode it with."""
    titles = {ad["ad_id"]: ad["title"] for ad in own_ads(200)}
    marked = [MarkedAd(bid["ad_id"], titles[bid["ad_id"]]) for bid in ours["candidates"]]
    return theirs | {"structured_outputs": {"grammar": grammar(marked, MAX_ADS)}}


def messages(prompt: Prompt) -> list[Json]:
    """The prompt as vLLM's chat completions want it."""
    return [
        {"role": m.role, "content": "".join(piece.text for piece in m.pieces)}
        for m in prompt.messages
    ]
