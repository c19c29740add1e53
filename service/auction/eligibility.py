"""Which candidates may be put before the model, and why the others may not.

Pure: the same bids and records give the same decision. The checks, in their order:

    duplicate         another bid of the same ad stands; the highest does, of equals the first
    unknown           no such ad in the catalogue
    paused            the advertiser has paused it
    policy            the query holds one of the ad's blocked topics
    below_floor       the bid is under the deployment's floor or the ad's reserve
    budget_exhausted  one more click at this bid would overspend the total or the daily budget
    invalid_title     its title could be read as another eligible ad's marker
"""

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from models.contract.markers import MarkedAd, ambiguous_titles
from service.auction.ad import Ad


class Exclusion(StrEnum):
    """Why a candidate was not put before the model. Doubles as a metric label."""

    UNKNOWN = "unknown"
    PAUSED = "paused"
    BUDGET_EXHAUSTED = "budget_exhausted"
    BELOW_FLOOR = "below_floor"
    FREQUENCY_CAPPED = "frequency_capped"
    POLICY = "policy"
    INVALID_TITLE = "invalid_title"
    DUPLICATE = "duplicate"
    NO_ROOM = "no_room"
    """The prompt has no room left; the lowest bids go first."""


@dataclass(frozen=True, slots=True)
class Bid:
    """What an advertiser offers for a click; micros, above 0."""

    ad_id: str
    bid_micros: int


@dataclass(frozen=True, slots=True)
class AdRecord:
    """An ad with what was taken from its budget so far, and on the day of the request."""

    ad: Ad
    spent_total_micros: int = 0
    spent_today_micros: int = 0

    def can_pay(self, price_micros: int) -> bool:
        """Whether both budgets still cover `price_micros`."""
        budget = self.ad.budget
        return (
            budget.total_micros is None
            or self.spent_total_micros + price_micros <= budget.total_micros
        ) and (
            budget.daily_micros is None
            or self.spent_today_micros + price_micros <= budget.daily_micros
        )


@dataclass(frozen=True, slots=True)
class EligibleAd:
    """An ad that may stand in the answer, with its bid."""

    ad: Ad
    bid_micros: int


@dataclass(frozen=True, slots=True)
class Excluded:
    """A candidate that may not, and why."""

    ad_id: str
    reason: Exclusion


def decide(
    bids: Sequence[Bid], records: Mapping[str, AdRecord], floor_micros: int, query: str
) -> tuple[list[EligibleAd], list[Excluded]]:
    """Divide `bids` into eligible and excluded ads; the eligible stay in the order given.

    records: the known ads by id. floor_micros: the lowest bid that the deployment takes.
    """
    standing = _standing(bids)
    words = _fold(query)
    eligible: list[EligibleAd] = []
    excluded: list[Excluded] = []
    for position, bid in enumerate(bids):
        if standing[bid.ad_id] != position:
            excluded.append(Excluded(bid.ad_id, Exclusion.DUPLICATE))
            continue
        record = records.get(bid.ad_id)
        reason = _objection(bid, record, floor_micros, words)
        if record is None or reason is not None:
            excluded.append(Excluded(bid.ad_id, reason or Exclusion.UNKNOWN))
        else:
            eligible.append(EligibleAd(record.ad, bid.bid_micros))
    ambiguous = ambiguous_titles([MarkedAd(e.ad.ad_id, e.ad.title) for e in eligible])
    excluded += [
        Excluded(e.ad.ad_id, Exclusion.INVALID_TITLE) for e in eligible if e.ad.ad_id in ambiguous
    ]
    return [e for e in eligible if e.ad.ad_id not in ambiguous], excluded


def candidate_order(offers: Sequence[EligibleAd], salt: bytes) -> list[EligibleAd]:
    """`offers` by a keyed hash of their ids, so that callers cannot buy a place in the prompt.

    salt: up to 64 bytes; the same salt keeps the order, which lets the engine reuse its cache.
    """
    return sorted(
        offers,
        key=lambda offer: hashlib.blake2b(offer.ad.ad_id.encode(), key=salt).digest(),
    )


def _standing(bids: Sequence[Bid]) -> dict[str, int]:
    """The position of each ad's standing bid: its highest, of equals the first."""
    standing: dict[str, int] = {}
    for position, bid in enumerate(bids):
        held = standing.get(bid.ad_id)
        if held is None or bid.bid_micros > bids[held].bid_micros:
            standing[bid.ad_id] = position
    return standing


def _objection(
    bid: Bid, record: AdRecord | None, floor_micros: int, words: str
) -> Exclusion | None:
    if record is None:
        return Exclusion.UNKNOWN
    if record.ad.status == "paused":
        return Exclusion.PAUSED
    topics = record.ad.blocked_topics
    if topics and any(_is_mentioned(topic, words) for topic in topics):
        return Exclusion.POLICY
    if bid.bid_micros < max(floor_micros, record.ad.reserve_micros):
        return Exclusion.BELOW_FLOOR
    if not record.can_pay(bid.bid_micros):
        return Exclusion.BUDGET_EXHAUSTED
    return None


def _is_mentioned(topic: str, words: str) -> bool:
    """Whether `words` (folded) hold `topic` as a whole word or phrase, in any case."""
    phrase, whole = _phrase(topic)
    return phrase in words and whole.search(words) is not None


@lru_cache(maxsize=4096)
def _phrase(topic: str) -> tuple[str, re.Pattern[str]]:
    """The folded topic, quick to look for, and a pattern that finds it as a whole only."""
    phrase = _fold(topic)
    before = "" if _is_unspaced(phrase[0]) else r"(?<!\w)"
    after = "" if _is_unspaced(phrase[-1]) else r"(?!\w)"
    return phrase, re.compile(before + re.escape(phrase) + after)


def _fold(text: str) -> str:
    """`text` without the differences of case, width and spacing."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _is_unspaced(char: str) -> bool:
    """Whether `char` is of a script that does not part words by spaces, such as Chinese or Thai."""
    return (
        unicodedata.east_asian_width(char) in "WF"
        or "\u0e00" <= char <= "\u109f"  # Thai to Myanmar
        or "\u1780" <= char <= "\u17ff"  # Khmer
    )
