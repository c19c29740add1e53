"""What answers earn, what they cost, and what they do to the reader."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from models.evaluation.measures.bootstrap import Array, Estimate, difference, mean, ratio, relative
from models.evaluation.record import Record

_MENTION = re.compile(r"(?<![\w.+-])@\w")
"""An `@` that opens a name; none of an e-mail address."""


@dataclass(frozen=True, slots=True)
class Efficiency:
    """One mechanism's figures per answer; money in units of currency.

    queries: how many were answered, each once or more; intervals are over them. revenue: what
    advertisers pay, expected over clicks. value: what they get, at declared values. reward: value
    less the reader's harm. ctr: clicks per ad shown. revenue_per_1000_tokens: of generated tokens.
    similarity: of the answer without its ads to the ad-free one, -1 to 1. made_up: share of the
    answers with a name after an `@` outside of every marker, as of an ad that nobody bid for.
    """

    queries: int
    revenue: Estimate
    reward: Estimate
    value: Estimate
    ads: Estimate
    clicks: Estimate
    ctr: Estimate
    faults: Estimate
    model_calls: Estimate
    prompt_tokens: Estimate
    completion_tokens: Estimate
    revenue_per_1000_tokens: Estimate
    similarity: Estimate
    made_up: Estimate


@dataclass(frozen=True, slots=True)
class Comparison:
    """One mechanism against another on the same auctions: ratio and difference of means."""

    revenue_ratio: Estimate
    revenue_difference: Estimate
    reward_difference: Estimate
    similarity_difference: Estimate


def efficiency(records: Sequence[Record], seed: int) -> Efficiency:
    """records: one mechanism's, each of an auction of its own; at least one."""
    revenue = revenues(records)
    ads = _column([len(one.showings) for one in records])
    clicks = _column([sum(s.probability for s in one.showings) for one in records])
    tokens = _column([one.completion_tokens for one in records])
    queries = queries_of(records)

    def average(values: Array) -> Estimate:
        return mean(values, seed, queries)

    return Efficiency(
        queries=len(set(queries)),
        revenue=average(revenue),
        reward=average(rewards(records)),
        value=average(_column([one.value for one in records])),
        ads=average(ads),
        clicks=average(clicks),
        ctr=ratio(clicks, ads, seed, queries),
        faults=average(_column([len(one.faults) for one in records])),
        model_calls=average(_column([one.model_calls for one in records])),
        prompt_tokens=average(_column([one.prompt_tokens for one in records])),
        completion_tokens=average(tokens),
        revenue_per_1000_tokens=ratio(1000 * revenue, tokens, seed, queries),
        similarity=average(similarities(records)),
        made_up=average(_column([bool(_MENTION.search(one.plain)) for one in records])),
    )


def comparison(ours: Sequence[Record], theirs: Sequence[Record], seed: int) -> Comparison:
    """Compare on the auctions that both answered; at least one."""
    by_auction = {one.auction_id: one for one in theirs}
    pairs = [(one, by_auction[one.auction_id]) for one in ours if one.auction_id in by_auction]
    left, right = [one for one, _ in pairs], [other for _, other in pairs]
    queries = queries_of(left)

    def less(of: Callable[[Sequence[Record]], Array]) -> Estimate:
        return difference(of(left), of(right), seed, queries)

    return Comparison(
        revenue_ratio=relative(revenues(left), revenues(right), seed, queries),
        revenue_difference=less(revenues),
        reward_difference=less(rewards),
        similarity_difference=less(similarities),
    )


def queries_of(records: Sequence[Record]) -> list[str]:
    """Return what is independent in `records`: each one's query."""
    return [one.query_id for one in records]


def revenues(records: Sequence[Record]) -> Array:
    return _column([one.revenue for one in records])


def rewards(records: Sequence[Record]) -> Array:
    return _column([one.reward for one in records])


def similarities(records: Sequence[Record]) -> Array:
    missing = float("nan")
    return _column([missing if one.similarity is None else one.similarity for one in records])


def _column(values: Sequence[float]) -> Array:
    return np.array(values, dtype=np.float64)
