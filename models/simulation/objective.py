"""What a mechanism is for: the reward of an answer. Pure.

    R(x, h, a, b, y) = sum of b_i * pctr_i over the ads i in y  -  lambda * s_resp(y)
    s_resp(y)        = ad_penalty * ads in y  +  fault_penalty * faults in y

after LLM-Auction (arXiv 2512.10551, section 3), which does not print s_resp; this form is ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from models.contract.markers import Reading
from models.simulation.nouns import Auction, Click


@dataclass(frozen=True, slots=True)
class Objective:
    """Weights of the reward, in units of currency; all 0 or more. `harm_weight` is lambda."""

    ad_penalty: float = 10.0
    fault_penalty: float = 100.0
    harm_weight: float = 1.0

    def harm(self, reading: Reading) -> float:
        """lambda * s_resp: what the ads and faults of an answer cost its reader."""
        ads, faults = len(reading.insertions), len(reading.faults)
        return self.harm_weight * (self.ad_penalty * ads + self.fault_penalty * faults)

    def reward(self, auction: Auction, reading: Reading, clicks: Sequence[Click]) -> float:
        """R, with `clicks`' probabilities as the pCTR; expected, so no clicks are drawn."""
        bids = bids_by_id(auction)
        value = sum(bids[click.ad_id] * click.probability for click in clicks)
        return value - self.harm(reading)


def bids_by_id(auction: Auction) -> Mapping[str, int]:
    """Each candidate's bid."""
    return {ad.ad_id: bid for ad, bid in zip(auction.ads, auction.bids, strict=True)}
