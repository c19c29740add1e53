"""What a report says of an ad, an advertiser or a day: counts, and what follows from them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

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
