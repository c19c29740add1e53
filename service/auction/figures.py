"""What a report says of an ad, an advertiser or a day: counts, and what follows from them.

Pure. Rows of a report are sums of these figures by whatever it is asked by.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

from service.auction.ad import Budget

NO_LIMIT = Budget()
_CTR_DECIMALS = Decimal("0.000001")


@dataclass(frozen=True, slots=True)
class Figures:
    """Counts of one ad's answers, all from 0. `excluded`: how often, by reason.

    eligible: answers that it might have stood in. shown: answers that it stands in. clicks,
    impressions_charged: events that were paid for. spend_micros: their sum.
    """

    eligible: int = 0
    shown: int = 0
    clicks: int = 0
    impressions_charged: int = 0
    spend_micros: int = 0
    excluded: Mapping[str, int] = field(default_factory=dict)

    @property
    def ctr(self) -> Decimal | None:
        """Clicks per showing, to 6 decimals; None where nothing was shown."""
        return (Decimal(self.clicks) / self.shown).quantize(_CTR_DECIMALS) if self.shown else None

    @property
    def average_price_micros(self) -> int | None:
        """Spend per paid event, rounded down; None where nothing was paid for."""
        events = self.clicks + self.impressions_charged
        return self.spend_micros // events if events else None


@dataclass(frozen=True, slots=True)
class DayCounts:
    """A day's figures by ad, and its answers.

    held_out: answers among `answers` that had no ads by holdout. unknown: candidates that were in
    no catalogue.
    """

    ads: Mapping[str, Figures]
    answers: int = 0
    held_out: int = 0
    unknown: int = 0


@dataclass(frozen=True, slots=True)
class Account:
    """What an ad or an advertiser may spend, and has spent in all and today; micros."""

    advertiser_id: str
    budget: Budget = NO_LIMIT
    spent_total_micros: int = 0
    spent_today_micros: int = 0

    @property
    def left_total_micros(self) -> int | None:
        """What is left of the total budget; None without one."""
        return _left(self.budget.total_micros, self.spent_total_micros)

    @property
    def left_today_micros(self) -> int | None:
        """What is left of the daily budget; None without one."""
        return _left(self.budget.daily_micros, self.spent_today_micros)


def _left(budget_micros: int | None, spent_micros: int) -> int | None:
    # a budget that was lowered under what is spent already has nothing left
    return None if budget_micros is None else max(0, budget_micros - spent_micros)


def total(figures: Iterable[Figures]) -> Figures:
    """The sum of `figures`."""
    rows = list(figures)
    excluded: Counter[str] = Counter()
    for row in rows:
        excluded.update(row.excluded)
    return Figures(
        eligible=sum(row.eligible for row in rows),
        shown=sum(row.shown for row in rows),
        clicks=sum(row.clicks for row in rows),
        impressions_charged=sum(row.impressions_charged for row in rows),
        spend_micros=sum(row.spend_micros for row in rows),
        excluded=dict(excluded),
    )


def by_day(days: Mapping[date, DayCounts]) -> dict[str, Figures]:
    """A row for each day, in the order given; unknown candidates are among the excluded."""
    rows = {}
    for day, counts in days.items():
        unknown = {"unknown": counts.unknown} if counts.unknown else {}
        rows[day.isoformat()] = total([*counts.ads.values(), Figures(excluded=unknown)])
    return rows


def by_ad(days: Iterable[DayCounts]) -> dict[str, Figures]:
    """A row for each ad, in the order of ids."""
    return _summed((ad_id, figures) for counts in days for ad_id, figures in counts.ads.items())


def by_advertiser(ads: Mapping[str, Figures], advertisers: Mapping[str, str]) -> dict[str, Figures]:
    """A row for each advertiser; of ads that are nobody's any more the row is `""`."""
    return _summed((advertisers.get(ad_id, ""), figures) for ad_id, figures in ads.items())


def _summed(pairs: Iterable[tuple[str, Figures]]) -> dict[str, Figures]:
    grouped: defaultdict[str, list[Figures]] = defaultdict(list)
    for key, figures in pairs:
        grouped[key].append(figures)
    return {key: total(grouped[key]) for key in sorted(grouped)}
