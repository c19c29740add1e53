"""Clicks on an answer that is still being written, on a real Valkey."""

from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime
from typing import cast

import httpx
import pytest
from recorded import Accounts, accounts, charged, click_client

from service.auction.ad import Ad
from service.auction.click_token import read
from service.click import ClickOutcome, settle_or_park
from service.services import Services
from service.store.click_targets import ClickTarget
from service.store.connection import Store

PAGE = "https://www.trailhead-boots.example/"


@pytest.fixture
def parts(store: Store, namespace: str) -> Accounts:
    return accounts(store, namespace)


@pytest.fixture
async def ad(parts: Accounts, make_ad: Callable[..., Ad]) -> Ad:
    await parts.catalog.put(entered := make_ad("Ad-1"))
    return entered


@pytest.fixture
async def http(parts: Accounts) -> AsyncGenerator[httpx.AsyncClient]:
    async with click_client(parts) as opened:
        yield opened


def as_services(parts: Accounts) -> Services:
    """The same parts, for what only reads those."""
    return cast(Services, parts)


async def test_a_click_is_charged_when_the_answer_is_recorded(
    parts: Accounts, ad: Ad, http: httpx.AsyncClient
) -> None:
    _, [token] = await parts.answer(ad, is_recorded=False)
    for _ in range(2):
        assert (await http.get(f"/c/{token}")).headers["location"] == PAGE
    assert await charged(parts) == []
    assert parts.metrics.seen() == {"parked": 2}
    assert parts.latest is not None
    await parts.record(parts.latest, datetime.now(UTC))
    assert await charged(parts) == [250_000]
    await http.get(f"/c/{token}")
    assert await charged(parts) == [250_000]


async def test_a_click_that_crosses_with_the_record_is_charged_at_once(
    parts: Accounts, ad: Ad
) -> None:
    _, [token] = await parts.answer(ad)
    before = ClickTarget(PAGE, None)
    settled = await settle_or_park(
        read(token, parts.signing), before, as_services(parts), datetime.now(UTC)
    )
    assert settled.outcome is ClickOutcome.CHARGED
    assert await charged(parts) == [250_000]


async def test_nothing_is_kept_of_an_answer_that_is_never_recorded(
    parts: Accounts, ad: Ad, http: httpx.AsyncClient, store: Store, namespace: str
) -> None:
    response_id, [token] = await parts.answer(ad, is_recorded=False)
    await http.get(f"/c/{token}")
    key = f"{{{namespace}}}:parked:{response_id}"
    assert 0 < await store.run(lambda redis: redis.ttl(key)) <= 900
