"""`/reports`: what was shown, clicked and paid, by ad, advertiser or day; JSON or CSV.

Made of counters, so a report takes time by the number of ads and days, not of clicks.
"""

import asyncio
import heapq
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query, Request, Response

from service.api.problems import documented
from service.api.report_schemas import (
    HourlySpend,
    Report,
    ReportBy,
    ReportFormat,
    ReportRow,
    amount,
    as_csv,
    counts,
)
from service.auction.ad import Identifier
from service.auction.figures import Figures, by_ad, by_advertiser, by_day, total
from service.errors import FieldError, Forbidden, InvalidRequest, StoreDown, Unauthorized
from service.services import Services
from service.store.connection import StoreUnavailable

MAX_DAYS = 366
_DAYS = 7
_CHUNK = 500
_RETRY_AFTER_MS = 1_000

By = Annotated[ReportBy, Query()]
FirstDay = Annotated[date | None, Query(alias="from", description="Default: a week")]
LastDay = Annotated[date | None, Query(alias="to", description="Default: today")]
Format = Annotated[
    ReportFormat | None, Query(alias="format", description="Default: as `Accept` says, else JSON")
]
Day = Annotated[date | None, Query(description="Default: today")]
Limit = Annotated[int, Query(ge=1, le=100_000)]


def router() -> APIRouter:
    """Routes `/reports` and `/reports/hours`."""
    refusals = documented(Unauthorized, Forbidden, InvalidRequest, StoreDown)
    routes = APIRouter(prefix="/reports", tags=["reports"], responses=refusals)
    routes.get(
        "",
        summary="Showings, clicks, spend and budgets by ad, advertiser or day",
        response_model=Report,
        responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
    )(get_report)
    routes.get("/hours", summary="One day's spend by hour")(get_hours)
    return routes


async def get_report(
    request: Request,
    by: By = ReportBy.AD,
    first_day: FirstDay = None,
    last_day: LastDay = None,
    report_format: Format = None,
    limit: Limit = 10_000,
) -> Response:
    services: Services = request.app.state.services
    last_day = last_day or _today(services)
    first_day = first_day or last_day - timedelta(days=_DAYS - 1)
    days = _days(first_day, last_day)
    async with _store_errors():
        counted = {day: await services.counters.read(day) for day in days}
        ads = by_ad(counted.values())
        accounts = {} if by is ReportBy.DAY else await _ad_accounts(services, list(ads))
    if by is ReportBy.DAY:
        figures = by_day(counted)
    elif by is ReportBy.AD:
        figures = ads
    else:
        figures = by_advertiser(ads, {ad_id: a.advertiser_id for ad_id, a in accounts.items()})
        accounts = {advertiser_id: _Account(advertiser_id) for advertiser_id in figures}
    auction = services.settings.auction
    report = Report(
        by=by,
        first_day=first_day,
        last_day=last_day,
        timezone=auction.timezone,
        currency=auction.currency,
        answers=sum(day.answers for day in counted.values()),
        answers_held_out=sum(day.held_out for day in counted.values()),
        total=counts(total(by_day(counted).values())),
        rows=_rows(by, figures, accounts, limit),
        rows_left_off=max(0, len(figures) - limit),
    )
    return await asyncio.to_thread(_written, report, _format(report_format, request))


async def get_hours(
    request: Request, day: Day = None, ad_id: Annotated[Identifier | None, Query()] = None
) -> HourlySpend:
    services: Services = request.app.state.services
    day = day or _today(services)
    async with _store_errors():
        by_ad_and_hour = await services.counters.spend_by_hour(day)
        ad = None if ad_id is None else await services.catalog.get(ad_id)
    hours = [0] * 24
    for spender, spend in by_ad_and_hour.items():
        for hour, micros in spend.items() if ad_id in {None, spender} else ():
            hours[hour] += micros
    daily = ad.budget.daily_micros if ad else None
    return HourlySpend(
        day=day,
        timezone=services.settings.auction.timezone,
        currency=services.settings.auction.currency,
        hours=[amount(micros) for micros in hours],
        daily_budget=None if daily is None else amount(daily),
    )


@dataclass(frozen=True, slots=True)
class _Account:
    """Whose budget it is, and what is left of it; None without a limit, never below 0."""

    advertiser_id: str
    remaining_total_micros: int | None = None
    remaining_daily_micros: int | None = None


async def _ad_accounts(services: Services, ad_ids: Sequence[str]) -> dict[str, _Account]:
    """The accounts of ads; of deleted ones, their last advertisers'."""
    owners = await services.counters.advertisers(ad_ids)
    accounts = {ad_id: _Account(owner) for ad_id, owner in owners.items()}
    for start in range(0, len(ad_ids), _CHUNK):
        some = ad_ids[start : start + _CHUNK]
        for ad_id, record in (await services.catalog.fetch(some, _today(services))).items():
            budget = record.ad.budget
            accounts[ad_id] = _Account(
                record.ad.advertiser_id,
                _left(budget.total_micros, record.spent_total_micros),
                _left(budget.daily_micros, record.spent_today_micros),
            )
    return accounts


def _left(budget_micros: int | None, spent_micros: int) -> int | None:
    # a budget that was lowered under what is spent already has nothing left
    return None if budget_micros is None else max(0, budget_micros - spent_micros)


def _rows(
    by: ReportBy, figures: Mapping[str, Figures], accounts: Mapping[str, _Account], limit: int
) -> list[ReportRow]:
    """The `limit` rows with the most spend, in the order of `figures`."""
    kept = set(heapq.nlargest(limit, figures, key=lambda key: figures[key].spend_micros))
    rows = []
    for key in filter(kept.__contains__, figures):
        account = accounts.get(key, _Account(""))
        left = (account.remaining_total_micros, account.remaining_daily_micros)
        total_left, daily_left = (None if micros is None else amount(micros) for micros in left)
        rows.append(
            ReportRow(
                **dict(counts(figures[key])),
                ad_id=key if by is ReportBy.AD else None,
                advertiser_id=account.advertiser_id or None,
                day=date.fromisoformat(key) if by is ReportBy.DAY else None,
                remaining_total=total_left,
                remaining_daily=daily_left,
            )
        )
    return rows


def _written(report: Report, report_format: ReportFormat) -> Response:
    if report_format is ReportFormat.JSON:
        return Response(report.model_dump_json(), media_type="application/json")
    name = f"{report.by}s-{report.first_day}-{report.last_day}.csv"
    disposition = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(as_csv(report), media_type="text/csv", headers=disposition)


def _format(asked: ReportFormat | None, request: Request) -> ReportFormat:
    accept = request.headers.get("accept", "")
    is_csv = "text/csv" in accept and "application/json" not in accept
    return asked or (ReportFormat.CSV if is_csv else ReportFormat.JSON)


def _days(first: date, last: date) -> list[date]:
    count = (last - first).days + 1
    if not 1 <= count <= MAX_DAYS:
        told = f"must not be before `from`, nor {MAX_DAYS} days or more after it"
        raise InvalidRequest(errors=[FieldError("query/to", told)])
    return [first + timedelta(days=days) for days in range(count)]


def _today(services: Services) -> date:
    return datetime.now(ZoneInfo(services.settings.auction.timezone)).date()


@asynccontextmanager
async def _store_errors() -> AsyncGenerator[None]:
    """A store that is away becomes a 503."""
    try:
        yield
    except StoreUnavailable as away:
        raise StoreDown(retry_after_ms=_RETRY_AFTER_MS) from away
