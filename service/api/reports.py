"""`/reports`: what was shown, clicked and paid, by ad, advertiser or day; JSON or CSV.

Made of counters, so a report takes time by the number of ads and days, not of clicks.
"""

import asyncio
import heapq
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import date, datetime, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query, Request, Response
from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

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
from service.auction.figures import Account, DayCounts, Figures, by_ad, by_advertiser, by_day, total
from service.errors import FieldError, Forbidden, InvalidRequest, StoreDown, Unauthorized
from service.services import Services
from service.settings import AuctionSettings
from service.store.connection import StoreUnavailable
from service.store.counters import OwnedCounts, ad_and_owner

MAX_DAYS = 366
_DAYS = 7
_EARLIEST = "2000-01-01"
_CHUNK = 500
_RETRY_AFTER_MS = 1_000
_NOBODY = Account("")

By = Annotated[ReportBy, Query()]


def _written_out(day: str) -> str:
    """Only YYYY-MM-DD: a bare number would be read as seconds since 1970.

    Days before `_EARLIEST` are refused: the first ones have none before them to count from.
    """
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", day) or day < _EARLIEST:
        raise PydanticCustomError("day", f"must be a day from {_EARLIEST} on, as YYYY-MM-DD")
    return day


CalendarDay = Annotated[date, BeforeValidator(_written_out)]
FirstDay = Annotated[CalendarDay | None, Query(alias="from", description="Default: a week")]
LastDay = Annotated[CalendarDay | None, Query(alias="to", description="Default: today")]
Format = Annotated[
    ReportFormat | None, Query(alias="format", description="Default: as `Accept` says, else JSON")
]
Day = Annotated[CalendarDay | None, Query(description="Default: today")]
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
        figures, accounts = await _rows_by(by, counted, services)
    written_as = _format(report_format, request)

    def write() -> Response:
        report = _report(by, counted, services.settings.auction)
        report.rows = _rows(by, figures, accounts, limit)
        report.rows_left_off = len(figures) - len(report.rows)
        return _written(report, written_as)

    # many ads take a while, which other requests should not notice
    return await asyncio.to_thread(write)


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


async def _rows_by(
    by: ReportBy, counted: Mapping[date, OwnedCounts], services: Services
) -> tuple[Mapping[str, Figures], Mapping[str, Account]]:
    """The figures that make a row each, by id or day, and the accounts of those ids."""
    if by is ReportBy.DAY:
        return await asyncio.to_thread(by_day, counted), {}
    ads = await asyncio.to_thread(by_ad, counted.values())
    accounts = await _ad_accounts(services, list(ads))
    if by is ReportBy.AD:
        return ads, accounts
    owners = {ad_id: account.advertiser_id for ad_id, account in accounts.items()}
    advertisers = await asyncio.to_thread(_by_advertiser, counted, owners)
    named = [advertiser_id for advertiser_id in advertisers if advertiser_id]
    return advertisers, await services.counters.advertiser_accounts(named, _today(services))


def _by_advertiser(
    counted: Mapping[date, OwnedCounts], owners: Mapping[str, str]
) -> dict[str, Figures]:
    """The figures of each advertiser: those noted as its own, and else those of its ads.

    owners: whose the ads are now, or were last.
    """
    figures = by_ad(DayCounts(day.owned) for day in counted.values())
    whose = {}
    for name in figures:
        ad_id, advertiser_id = ad_and_owner(name)
        whose[name] = advertiser_id or owners.get(ad_id, "")
    return by_advertiser(figures, whose)


async def _ad_accounts(services: Services, ad_ids: Sequence[str]) -> dict[str, Account]:
    """The accounts of ads; of deleted ones, their last advertisers'."""
    owners = await services.counters.advertisers(ad_ids)
    accounts = {ad_id: Account(owner) for ad_id, owner in owners.items()}
    for start in range(0, len(ad_ids), _CHUNK):
        some = ad_ids[start : start + _CHUNK]
        for ad_id, record in (await services.catalog.fetch(some, _today(services))).items():
            ad, spent = record.ad, (record.spent_total_micros, record.spent_today_micros)
            accounts[ad_id] = Account(ad.advertiser_id, ad.budget, *spent)
    return accounts


def _report(by: ReportBy, counted: Mapping[date, DayCounts], terms: AuctionSettings) -> Report:
    """The report without its rows."""
    return Report(
        by=by,
        first_day=min(counted),
        last_day=max(counted),
        timezone=terms.timezone,
        currency=terms.currency,
        answers=sum(day.answers for day in counted.values()),
        answers_held_out=sum(day.held_out for day in counted.values()),
        total=counts(total(by_day(counted).values())),
        rows=[],
        rows_left_off=0,
    )


def _rows(
    by: ReportBy, figures: Mapping[str, Figures], accounts: Mapping[str, Account], limit: int
) -> list[ReportRow]:
    """The `limit` rows with the most spend, in the order of `figures`."""
    kept = set(heapq.nlargest(limit, figures, key=lambda key: figures[key].spend_micros))
    rows = []
    for key in filter(kept.__contains__, figures):
        account = accounts.get(key, _NOBODY)
        left = (account.left_total_micros, account.left_today_micros)
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
