"""What a report holds, and how it is written as CSV."""

import csv
import io
from datetime import date
from enum import StrEnum

from pydantic import BaseModel, Field

from service.auction.eligibility import Exclusion
from service.auction.figures import Figures
from service.auction.money import to_text


class ReportBy(StrEnum):
    """What a row of a report is about."""

    AD = "ad"
    ADVERTISER = "advertiser"
    DAY = "day"


class ReportFormat(StrEnum):
    """How a report is written."""

    JSON = "json"
    CSV = "csv"


class Amount(BaseModel):
    """Money twice: `micros` to reckon with, `text` to read, in the report's currency."""

    micros: int
    text: str = Field(examples=["12.5"])


class Counts(BaseModel):
    """What happened in the report's days."""

    eligible: int = Field(description="Answers that an ad might have stood in")
    shown: int = Field(description="Answers that an ad stands in")
    clicks: int = Field(description="Clicks that were charged")
    impressions_charged: int
    ctr: str | None = Field(description="Clicks by showings; null without any", examples=["0.025"])
    spend: Amount
    average_price: Amount | None = Field(description="Per charged event; null without any")
    excluded: dict[str, int] = Field(description="Candidates kept out, by reason")


class ReportRow(Counts):
    """One ad (with its advertiser), one advertiser, or one day.

    `remaining_…`: what is left of the budgets now (the daily one: today); null without a limit.
    `advertiser_id` is null for ads that were deleted before they were ever shown.
    """

    ad_id: str | None = None
    advertiser_id: str | None = None
    day: date | None = None
    remaining_total: Amount | None = None
    remaining_daily: Amount | None = None


class Report(BaseModel):
    by: ReportBy
    first_day: date
    last_day: date
    timezone: str = Field(examples=["UTC"])
    currency: str = Field(examples=["USD"])
    answers: int = Field(description="Answers given, with and without ads")
    answers_held_out: int = Field(description="Of these, without ads because the user is held out")
    total: Counts = Field(description="Of all rows, also of those left off")
    rows: list[ReportRow]
    rows_left_off: int = Field(description="Rows over `limit`, those with the least spend")


class HourlySpend(BaseModel):
    """One day's spend, hour by hour, beside the daily budget."""

    day: date
    timezone: str
    currency: str
    hours: list[Amount] = Field(min_length=24, max_length=24, description="Spend from 0 to 23 h")
    daily_budget: Amount | None = Field(description="Of the ad; null without one, or of all ads")


def amount(micros: int) -> Amount:
    """`micros` with its text."""
    return Amount(micros=micros, text=to_text(micros))


def counts(figures: Figures) -> Counts:
    """Figures as they are sent."""
    price = figures.average_price_micros
    return Counts(
        eligible=figures.eligible,
        shown=figures.shown,
        clicks=figures.clicks,
        impressions_charged=figures.impressions_charged,
        ctr=None if figures.ctr is None else str(figures.ctr),
        spend=amount(figures.spend_micros),
        average_price=None if price is None else amount(price),
        excluded=dict(figures.excluded),
    )


_KEYS = {
    ReportBy.AD: ("ad_id", "advertiser_id"),
    ReportBy.ADVERTISER: ("advertiser_id",),
    ReportBy.DAY: ("day",),
}
_COUNTS = ("eligible", "shown", "clicks", "impressions_charged", "ctr")
_AMOUNTS = ("spend", "average_price", "remaining_total", "remaining_daily")
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def as_csv(report: Report) -> str:
    """A line for each row under a header; amounts in units of the currency, empty for null.

    Text that a spreadsheet would take for a formula gets a `'` before it.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    keys = _KEYS[report.by]
    excluded = [f"excluded_{reason}" for reason in Exclusion]
    writer.writerow([*keys, *_COUNTS, *_AMOUNTS, "currency", *excluded])
    for row in report.rows:
        amounts: list[Amount | None] = [getattr(row, name) for name in _AMOUNTS]
        writer.writerow(
            [
                *(_as_cell(getattr(row, name)) for name in keys),
                *(getattr(row, name) for name in _COUNTS),
                *("" if money is None else money.text for money in amounts),
                report.currency,
                *(row.excluded.get(reason, 0) for reason in Exclusion),
            ]
        )
    return text.getvalue()


def _as_cell(key: str | date | None) -> str:
    text = "" if key is None else str(key)
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text
