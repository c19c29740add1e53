"""The best that a policy could be turned into, from its own draws.

J(pi) = E[R] - beta * KL(pi | pi_0) is greatest at pi*(y) proportional to pi_0(y) * exp(R(y) / beta)
(LLM-Auction, arXiv 2512.10551, section 3), where it is beta * log E_0[exp(R / beta)]. Draws of pi_0
weighted by exp(R / beta) stand for draws of pi*: a lower estimate with few of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp, softmax

from models.evaluation.measures.bootstrap import Estimate, difference, mean
from models.evaluation.measures.efficiency import queries_of
from models.evaluation.record import Record


@dataclass(frozen=True, slots=True)
class Optimum:
    """Units of currency per answer.

    reward: of pi*. policy_reward: of pi_0. objective: J(pi*); J(pi_0) is policy_reward.
    effective_draws: how many equally weighted draws the weighted ones are worth, on average.
    gaps: by mechanism, pi*'s reward less that mechanism's, on the same auctions.
    """

    reward: Estimate
    policy_reward: Estimate
    objective: Estimate
    effective_draws: float
    gaps: Mapping[str, Estimate]


def optimum(
    draws: Sequence[Record], others: Mapping[str, Sequence[Record]], beta: float, seed: int
) -> Optimum:
    """draws: records of Study.OPTIMUM, one an auction; at least one. beta: over 0."""
    rewards = np.array([one.draw_rewards for one in draws])
    weights = softmax(rewards / beta, axis=1)
    best = (weights * rewards).sum(axis=1)
    objective = beta * (logsumexp(rewards / beta, axis=1) - np.log(rewards.shape[1]))
    by_auction = {one.auction_id: value for one, value in zip(draws, best, strict=True)}
    queries = queries_of(draws)
    gaps = {}
    for name, records in others.items():
        paired = [one for one in records if one.auction_id in by_auction]
        theirs = np.array([one.reward for one in paired])
        ours = np.array([by_auction[one.auction_id] for one in paired])
        gaps[name] = difference(ours, theirs, seed, queries_of(paired))
    return Optimum(
        reward=mean(best, seed, queries),
        policy_reward=mean(rewards.mean(axis=1), seed, queries),
        objective=mean(objective, seed, queries),
        effective_draws=float((1 / (weights**2).sum(axis=1)).mean()),
        gaps=gaps,
    )
