"""Which candidates may be put before the model, and why the others may not.

Pure: the same bids and records give the same decision. The checks, in their order:

    duplicate         another bid of the same ad stands; the highest does, of equals the first
    unknown           no such ad in the catalogue
    paused            the ad is paused, or its advertiser with all of its ads
    policy            the query holds one of the ad's blocked topics
    below_floor       the bid is under the deployment's floor or the ad's reserve
    frequency_capped  this user has been shown the ad as often as the deployment allows
    budget_exhausted  one more event at this bid would overspend the total or the daily budget of
                      the ad or of its advertiser
    paced             today's spend is ahead of the day, and the draw fell out against the ad
                      (`service/auction/pacing.py`)
    invalid_title     its title could be read as another eligible ad's marker
"""

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, lru_cache
from typing import NamedTuple

from models.contract.markers import ambiguous_titles
from models.contract.neutral import stream_safe
from service.auction.ad import Ad, Budget
from service.auction.advertiser import Advertiser
from service.auction.pacing import Pace
from service.auction.price import price_micros


class Exclusion(StrEnum):
    """Why a candidate was not put before the model. Doubles as a metric label."""

    UNKNOWN = "unknown"
    PAUSED = "paused"
    BUDGET_EXHAUSTED = "budget_exhausted"
    BELOW_FLOOR = "below_floor"
    FREQUENCY_CAPPED = "frequency_capped"
    PACED = "paced"
    POLICY = "policy"
    INVALID_TITLE = "invalid_title"
    DUPLICATE = "duplicate"
    NO_ROOM = "no_room"
    """The prompt has no room left; the lowest bids go first."""


class Bid(NamedTuple):
    """What an advertiser offers for a click; micros, above 0. pctr: the caller's estimate of the
    chance of a click, over 0, up to 1; it moves the ad's place in the prompt, never a price.

    A NamedTuple, like all that a request makes hundreds of: a frozen dataclass takes twice as long
    to make.
    """

    ad_id: str
    bid_micros: int
    pctr: float | None = None


@dataclass(frozen=True, slots=True)
class AdvertiserRecord:
    """An advertiser with what was taken from its budget so far, and on the day of the request.

    `advertiser` is None where it was never entered: then it is active and has no limits.
    """

    advertiser: Advertiser | None = None
    spent_total_micros: int = 0
    spent_today_micros: int = 0


NEVER_ENTERED = AdvertiserRecord()


class AdRecord(NamedTuple):
    """An ad with what was taken from its budget so far, and on the day of the request.

    shown_count: how often the user was shown it in the deployment's window.
    """

    ad: Ad
    spent_total_micros: int = 0
    spent_today_micros: int = 0
    advertiser: AdvertiserRecord = NEVER_ENTERED
    shown_count: int = 0

    def can_pay(self, price_micros: int) -> bool:
        """Whether all budgets, the ad's and its advertiser's, still cover `price_micros`."""
        payer = self.advertiser
        return _covers(
            self.ad.budget, self.spent_total_micros, self.spent_today_micros, price_micros
        ) and (
            payer.advertiser is None
            or _covers(
                payer.advertiser.budget,
                payer.spent_total_micros,
                payer.spent_today_micros,
                price_micros,
            )
        )

    def may_go_on(self, pace: Pace) -> bool:
        """Whether pacing lets the ad take part; one draw counts for its and the advertiser's."""
        return all(
            pace.lets(self.ad.ad_id, today, budget.daily_micros)
            for budget, _, today in self._purses()
            if budget.daily_micros is not None
        )

    def _purses(self) -> list[tuple[Budget, int, int]]:
        """Each budget that pays, with its spend in all and today."""
        purses = [(self.ad.budget, self.spent_total_micros, self.spent_today_micros)]
        payer = self.advertiser
        if payer.advertiser is not None:
            purses.append(
                (payer.advertiser.budget, payer.spent_total_micros, payer.spent_today_micros)
            )
        return purses


@dataclass(frozen=True, slots=True)
class Terms:
    """What a deployment asks of every candidate, beside its floor.

    frequency_cap: the most times that a user is shown an ad in the window; None: no cap. pace:
    even pacing, None: none. pctr: the click rate where impressions are paid for, else None.
    """

    frequency_cap: int | None = None
    pace: Pace | None = None
    pctr: float | None = None


NO_TERMS = Terms()


class EligibleAd(NamedTuple):
    """An ad that may stand in the answer, with its bid."""

    ad: Ad
    bid_micros: int
    pctr: float | None = None


@dataclass(frozen=True, slots=True)
class Excluded:
    """A candidate that may not, and why."""

    ad_id: str
    reason: Exclusion


def decide(
    bids: Sequence[Bid],
    records: Mapping[str, AdRecord],
    floor_micros: int,
    query: str,
    terms: Terms = NO_TERMS,
) -> tuple[list[EligibleAd], list[Excluded]]:
    """Divide `bids` into eligible and excluded ads; the eligible stay in the order given.

    records: the known ads by id. floor_micros: the lowest bid that the deployment takes.
    """
    standing = standing_bids(bids)
    words = _fold(query)

    @cache  # lists share topics, and a long query takes its time to look through
    def is_mentioned(topic: str) -> bool:
        return _is_mentioned(topic, words)

    eligible: list[EligibleAd] = []
    excluded: list[Excluded] = []
    for position, bid in enumerate(bids):
        if standing[bid.ad_id] != position:
            excluded.append(Excluded(bid.ad_id, Exclusion.DUPLICATE))
            continue
        record = records.get(bid.ad_id)
        reason = _objection(bid, record, floor_micros, is_mentioned, terms)
        if record is None or reason is not None:
            excluded.append(Excluded(bid.ad_id, reason or Exclusion.UNKNOWN))
        else:
            eligible.append(EligibleAd(record.ad, bid.bid_micros, bid.pctr))
    ambiguous = ambiguous_titles([e.ad.marked for e in eligible])
    if not ambiguous:
        return eligible, excluded
    excluded += [
        Excluded(e.ad.ad_id, Exclusion.INVALID_TITLE) for e in eligible if e.ad.ad_id in ambiguous
    ]
    return [e for e in eligible if e.ad.ad_id not in ambiguous], excluded


def standing_bids(bids: Sequence[Bid]) -> dict[str, int]:
    """The position of each ad's standing bid: its highest, of equals the first."""
    standing = {bid.ad_id: position for position, bid in enumerate(bids)}
    if len(standing) == len(bids):
        return standing
    standing.clear()
    for position, bid in enumerate(bids):
        held = standing.get(bid.ad_id)
        if held is None or bid.bid_micros > bids[held].bid_micros:
            standing[bid.ad_id] = position
    return standing


def _covers(budget: Budget, total_micros: int, today_micros: int, price_micros: int) -> bool:
    """Whether `budget` has `price_micros` left, after so much was taken from it."""
    total, daily = budget.total_micros, budget.daily_micros
    return (total is None or total_micros + price_micros <= total) and (
        daily is None or today_micros + price_micros <= daily
    )


def _objection(
    bid: Bid,
    record: AdRecord | None,
    floor_micros: int,
    is_mentioned: Callable[[str], bool],
    terms: Terms,
) -> Exclusion | None:
    if record is None:
        return Exclusion.UNKNOWN
    ad, advertiser, bid_micros = record.ad, record.advertiser.advertiser, bid.bid_micros
    if ad.status == "paused" or (advertiser is not None and advertiser.status == "paused"):
        return Exclusion.PAUSED
    if ad.blocked_topics and any(map(is_mentioned, ad.blocked_topics)):
        return Exclusion.POLICY
    if bid_micros < floor_micros or bid_micros < ad.reserve_micros:
        return Exclusion.BELOW_FLOOR
    if terms.frequency_cap is not None and record.shown_count >= terms.frequency_cap:
        return Exclusion.FREQUENCY_CAPPED
    if not record.can_pay(price_micros(bid_micros, terms.pctr)):
        return Exclusion.BUDGET_EXHAUSTED
    if terms.pace is not None and not record.may_go_on(terms.pace):
        return Exclusion.PACED
    return None


def _is_mentioned(topic: str, words: str) -> bool:
    """Whether `words` (folded) hold `topic` as a whole word or phrase, in any case."""
    phrase = _phrase(topic)
    at = words.find(phrase)
    while at >= 0:
        before, after = words[at - 1 : at], words[at + len(phrase) : at + len(phrase) + 1]
        if _begins(before, phrase[0]) and _ends(phrase[-1], after):
            return True
        at = words.find(phrase, at + 1)
    return False


@lru_cache(maxsize=4096)
def _phrase(topic: str) -> str:
    return _fold(topic)


def _fold(text: str) -> str:
    """`text` without the differences of case, width and spacing."""
    return " ".join(unicodedata.normalize("NFKC", stream_safe(text)).casefold().split())


def _begins(before: str, first: str) -> bool:
    """Whether a word may begin with `first` after `before`, which is empty at the start."""
    if _is_hangul(before) and _is_hangul(first):
        return False
    return not (_is_in_word(before) and _is_in_word(first))


def _ends(last: str, after: str) -> bool:
    """Whether a word may end with `last` before `after`, which is empty at the end."""
    return not (_is_in_word(last) and _is_in_word(after))


def _is_in_word(char: str) -> bool:
    """Whether words of `char`'s script are parted by spaces, and `char` stands within one."""
    if not char or _is_unspaced(char):
        return False
    # marks: vowel signs of Indic scripts; joiners: Persian and Indic words are written with them
    return unicodedata.category(char)[0] in "LNM" or char in "_\u200c\u200d"


def _is_hangul(char: str) -> bool:
    return "\uac00" <= char <= "\ud7a3"


def _is_unspaced(char: str) -> bool:
    """Whether `char` is of a script that does not part words by spaces, such as Chinese or Thai.

    Korean does, but particles follow a word without one: there only `_begins` tells more.
    """
    return (
        unicodedata.east_asian_width(char) in "WF"
        or "\u0e00" <= char <= "\u109f"  # Thai to Myanmar
        or "\u1780" <= char <= "\u17ff"  # Khmer
    )
