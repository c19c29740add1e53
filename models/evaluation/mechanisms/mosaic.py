"""MOSAIC (Soumalias, Curry, Seuken, "Truthful Aggregation of LLMs with an Application to Online
Advertising", arXiv 2405.05905): choose among M candidate replies by a softmax of rewards.

Algorithm 1 there draws y_1..y_M from pi_gen and returns y_j with probability proportional to
pi_ref(y_j) / pi_gen(y_j) * exp(r(y_j) / tau), r the sum of the advertisers' rewards. Its payment
with the offset that makes the mechanism individually rational leaves each advertiser what it
contributes to welfare:

    U_i = tau * log sum_j exp(r(y_j) / tau)  -  tau * log sum_j exp(r_-i(y_j) / tau)

Here pi_gen = pi_ref = the policy, which sees no bids, so the ratio is 1. An advertiser's reward is
bid * click probability. Ours: the reader's harm (`Objective`) counts in r as the reward of a
platform that does not bid; and the expected payment E[r_i] - U_i, which the source charges for the
draw, is charged per click at the same discount in every reply, so that nobody pays unseen.
The expectation is the same, and no price exceeds the bid.
"""

from dataclasses import dataclass
from decimal import Decimal

import numpy as np
from scipy.special import logsumexp, softmax

from models.evaluation.mechanism import Outcome, Price
from models.evaluation.mechanisms.sampled import Sampler, Scored
from models.evaluation.policy import outcome
from models.simulation.nouns import Auction
from models.simulation.objective import bids_by_id
from models.simulation.randomness import uniform

_MICRO = Decimal("0.000001")


@dataclass(frozen=True, slots=True)
class Mosaic:
    """tau: units of currency, over 0; towards 0 the best draw always wins, far above all tie."""

    sampler: Sampler
    tau: float = 10.0
    name: str = "mosaic"

    async def answer(self, auction: Auction) -> Outcome:
        scored = await self.sampler.draws(auction)
        rewards = np.array([one.reward for one in scored])
        cumulated = np.cumsum(softmax(rewards / self.tau))
        luck = uniform("mosaic", auction.seed) * cumulated[-1]
        chosen = scored[int(np.searchsorted(cumulated, luck))]
        bids = bids_by_id(auction)
        prices = tuple(
            _price(click.ad_id, bids[click.ad_id], scored, self.tau) for click in chosen.clicks
        )
        reading = chosen.draw.reading
        return outcome(auction, reading, prices, [one.draw for one in scored])


def _price(ad_id: str, bid: int, scored: list[Scored], tau: float) -> Price:
    share = payment_share(
        np.array([one.reward for one in scored]),
        np.array([bid * _probability(ad_id, one) for one in scored]),
        tau,
    )
    return Price(ad_id, "click", (Decimal(bid) * Decimal(share)).quantize(_MICRO))


def payment_share(rewards: np.ndarray, own: np.ndarray, tau: float) -> float:
    """Return which share of its declared value an advertiser pays, 0 to 1.

    rewards: r(y_j) of each draw, all advertisers and the platform together. own: of it, this
    advertiser's; 0 or more.
    """
    value = float(softmax(rewards / tau) @ own)
    if value == 0:
        return 0.0
    contribution = tau * float(logsumexp(rewards / tau) - logsumexp((rewards - own) / tau))
    return min(1.0, max(0.0, 1 - contribution / value))


def _probability(ad_id: str, scored: Scored) -> float:
    return sum(click.probability for click in scored.clicks if click.ad_id == ad_id)
