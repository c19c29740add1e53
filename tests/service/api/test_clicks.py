"""Clicks over HTTP on a real Valkey: every valid link leads to its page, and is charged once."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from recorded import Accounts, accounts, charged, click_client

from service.auction.ad import Ad
from service.auction.signing_key import SigningKey, SigningKeys
from service.settings import StoreSettings
from service.store.connection import Store, StoreUnavailable, open_store

PAGE = "https://www.trailhead-boots.example/"


@pytest.fixture
def parts(store: Store, namespace: str) -> Accounts:
    return accounts(store, namespace)


@pytest.fixture
async def ad(parts: Accounts, make_ad: Callable[..., Ad]) -> Ad:
    entered = make_ad("Ad-1", budget={"total": 1})
    await parts.catalog.put(entered)
    return entered


@pytest.fixture
async def http(parts: Accounts) -> AsyncGenerator[httpx.AsyncClient]:
    async with click_client(parts) as opened:
        yield opened


async def thawed(store: Store) -> None:
    """Wait until the store answers again."""
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(StoreUnavailable):
                await store.ping()
                return


class TestFollow:
    async def test_a_click_leads_to_the_page_and_costs_the_bid(
        self, parts: Accounts, ad: Ad, http: httpx.AsyncClient
    ) -> None:
        response_id, [token] = await parts.answer(ad, bid_micros=250_000)
        answer = await http.get(f"/c/{token}")
        assert answer.status_code == 302
        assert answer.headers["location"] == PAGE
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-robots-tag"] == "noindex, nofollow"
        [entry] = [entry async for entry in parts.ledger.entries()]
        assert (entry.response_id, entry.ad_id) == (response_id, "Ad-1")
        assert (entry.advertiser_id, entry.event) == ("adv-trailhead", "click")
        assert (entry.price_micros, entry.bid_micros, entry.position) == (250_000, 250_000, 1)

    async def test_each_ad_of_an_answer_is_charged_with_its_position(
        self, parts: Accounts, ad: Ad, make_ad: Callable[..., Ad], http: httpx.AsyncClient
    ) -> None:
        await parts.catalog.put(other := make_ad("Ad-2"))
        _, tokens = await parts.answer(ad, other)
        for token in tokens:
            await http.get(f"/c/{token}")
        entries = [entry async for entry in parts.ledger.entries()]
        assert [(entry.ad_id, entry.position) for entry in entries] == [("Ad-1", 1), ("Ad-2", 2)]

    async def test_a_repeated_click_leads_there_uncharged(
        self, parts: Accounts, ad: Ad, http: httpx.AsyncClient
    ) -> None:
        _, [token] = await parts.answer(ad)
        answers = [await http.get(f"/c/{token}") for _ in range(3)]
        assert [answer.headers["location"] for answer in answers] == [PAGE] * 3
        assert await charged(parts) == [250_000]
        assert parts.metrics.seen() == {"charged": 1, "duplicate": 2}
        assert parts.metrics.spent_micros("click") == 250_000

    async def test_clicks_at_the_same_time_are_charged_once(
        self, parts: Accounts, ad: Ad, http: httpx.AsyncClient
    ) -> None:
        _, [token] = await parts.answer(ad)
        answers = await asyncio.gather(*(http.get(f"/c/{token}") for _ in range(50)))
        assert {answer.headers["location"] for answer in answers} == {PAGE}
        assert await charged(parts) == [250_000]

    async def test_an_expired_click_leads_there_uncharged(
        self, parts: Accounts, ad: Ad, http: httpx.AsyncClient
    ) -> None:
        lives_s = parts.settings.auction.charge_ttl_s
        _, [token] = await parts.answer(ad, given_at=datetime.now(UTC) - timedelta(seconds=lives_s))
        assert (await http.get(f"/c/{token}")).headers["location"] == PAGE
        assert await charged(parts) == []
        assert parts.metrics.seen() == {"expired": 1}

    async def test_a_click_within_the_last_minute_is_charged(
        self, parts: Accounts, ad: Ad, http: httpx.AsyncClient
    ) -> None:
        lives_s = parts.settings.auction.charge_ttl_s
        given_at = datetime.now(UTC) - timedelta(seconds=lives_s - 60)
        _, [token] = await parts.answer(ad, given_at=given_at)
        await http.get(f"/c/{token}")
        assert await charged(parts) == [250_000]

    async def test_a_click_beyond_the_budget_leads_there_uncharged(
        self, parts: Accounts, ad: Ad, http: httpx.AsyncClient
    ) -> None:
        tokens = [(await parts.answer(ad, bid_micros=600_000))[1][0] for _ in range(2)]
        answers = [await http.get(f"/c/{token}") for token in tokens]
        assert [answer.headers["location"] for answer in answers] == [PAGE] * 2
        assert await charged(parts) == [600_000]
        assert parts.metrics.seen() == {"charged": 1, "budget_exhausted": 1}
        assert parts.metrics.spent_micros("click") == 600_000

    async def test_the_price_is_the_answers_whatever_the_ad_has_become(
        self, parts: Accounts, ad: Ad, make_ad: Callable[..., Ad], http: httpx.AsyncClient
    ) -> None:
        _, [token] = await parts.answer(ad, bid_micros=250_000)
        changed = make_ad(
            "Ad-1",
            status="paused",
            reserve=9,
            landing_url="https://new.example/",
        )
        await parts.catalog.put(changed)
        assert (await http.get(f"/c/{token}")).headers["location"] == "https://new.example/"
        assert await charged(parts) == [250_000]

    async def test_whoever_pays_gets_the_visit_though_the_ad_has_become_anothers(
        self, parts: Accounts, ad: Ad, make_ad: Callable[..., Ad], http: httpx.AsyncClient
    ) -> None:
        _, [token] = await parts.answer(ad)
        others = make_ad("Ad-1", landing_url="https://others.example/", advertiser_id="b")
        await parts.catalog.put(others)
        assert (await http.get(f"/c/{token}")).headers["location"] == PAGE
        [entry] = [entry async for entry in parts.ledger.entries()]
        assert (entry.price_micros, entry.advertiser_id) == (250_000, "adv-trailhead")

    async def test_a_deleted_ad_leads_to_the_page_that_it_was_shown_with(
        self, parts: Accounts, ad: Ad, http: httpx.AsyncClient
    ) -> None:
        _, [token] = await parts.answer(ad)
        await parts.catalog.delete("Ad-1")
        assert (await http.get(f"/c/{token}")).headers["location"] == PAGE

    async def test_an_answer_that_left_no_record_is_not_billed(
        self, parts: Accounts, ad: Ad, http: httpx.AsyncClient
    ) -> None:
        given_at = datetime.now(UTC) - timedelta(hours=1)
        _, [token] = await parts.answer(ad, given_at=given_at, is_recorded=False)
        assert (await http.get(f"/c/{token}")).headers["location"] == PAGE
        assert await charged(parts) == []
        assert parts.metrics.seen() == {"unrecorded": 1}

    async def test_erasing_the_receipt_keeps_link_and_charge(
        self, parts: Accounts, ad: Ad, http: httpx.AsyncClient
    ) -> None:
        response_id, [token] = await parts.answer(ad)
        await parts.receipts.erase(response_id)
        assert (await http.get(f"/c/{token}")).headers["location"] == PAGE
        assert await charged(parts) == [250_000]

    @pytest.mark.parametrize(
        "headers",
        [
            {"Sec-Purpose": "prefetch"},
            {"Purpose": "prefetch"},
            {"X-Moz": "prefetch"},
            {"User-Agent": "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)"},
        ],
    )
    async def test_fetching_ahead_is_not_charged_and_spoils_no_click(
        self, parts: Accounts, ad: Ad, http: httpx.AsyncClient, headers: dict[str, str]
    ) -> None:
        _, [token] = await parts.answer(ad)
        assert (await http.get(f"/c/{token}", headers=headers)).headers["location"] == PAGE
        assert await charged(parts) == []
        await http.get(f"/c/{token}")
        assert await charged(parts) == [250_000]

    async def test_head_is_answered_like_get_and_not_charged(
        self, parts: Accounts, ad: Ad, http: httpx.AsyncClient
    ) -> None:
        _, [token] = await parts.answer(ad)
        answer = await http.head(f"/c/{token}")
        assert (answer.status_code, answer.headers["location"]) == (302, PAGE)
        assert await charged(parts) == []
        assert parts.metrics.seen() == {"head": 1}

    async def test_a_forged_link_leads_nowhere(
        self, parts: Accounts, ad: Ad, http: httpx.AsyncClient
    ) -> None:
        _, [token] = await parts.answer(ad)
        forged = token[:-2] + ("AA" if token[-2:] != "AA" else "BA")
        for link in (forged, "x", "https:%2F%2Fevil.example", "A" * 5_000):
            answer = await http.get(f"/c/{link}")
            assert answer.status_code == 404
            assert "location" not in answer.headers
            assert answer.headers["content-type"] == "application/problem+json"
        assert await charged(parts) == []

    async def test_another_deployments_link_is_forged(
        self, parts: Accounts, ad: Ad, http: httpx.AsyncClient
    ) -> None:
        _, [token] = await parts.answer(ad)
        other = SigningKey("k1", b"2" * 32)
        parts.signing = SigningKeys(other, (other,))
        assert (await http.get(f"/c/{token}")).status_code == 404

    async def test_a_query_cannot_choose_the_page(
        self, parts: Accounts, ad: Ad, http: httpx.AsyncClient
    ) -> None:
        _, [token] = await parts.answer(ad)
        answer = await http.get(f"/c/{token}?url=https://evil.example&landing_url=//evil.example")
        assert answer.headers["location"] == PAGE

    async def test_an_ad_of_which_nothing_is_known_is_a_404(
        self, parts: Accounts, make_ad: Callable[..., Ad], http: httpx.AsyncClient
    ) -> None:
        _, [token] = await parts.answer(make_ad("Ad-gone"), is_recorded=False)
        assert (await http.get(f"/c/{token}")).status_code == 404

    async def test_a_page_that_is_no_web_address_is_never_led_to(
        self, parts: Accounts, ad: Ad, http: httpx.AsyncClient, store: Store, namespace: str
    ) -> None:
        _, [token] = await parts.answer(ad)
        damaged = '{"landing_url": "javascript:alert(1)"}'
        await store.run(lambda redis: redis.hset(f"{{{namespace}}}:ads", "Ad-1", damaged))
        assert (await http.get(f"/c/{token}")).headers["location"] == PAGE


class TestStoreAway:
    @pytest.fixture
    async def own_store(self, tmp_path: Path) -> AsyncGenerator[Store]:
        settings = StoreSettings(timeout_ms=200, breaker_failures=99)
        async with open_store(settings, tmp_path, print) as opened:
            yield opened

    async def freeze(self, store: Store, for_ms: int) -> None:
        await store.run(lambda redis: redis.execute_command("CLIENT", "PAUSE", for_ms))

    async def test_a_known_page_is_led_to_uncharged_and_the_next_click_is_charged(
        self, own_store: Store, namespace: str, make_ad: Callable[..., Ad]
    ) -> None:
        parts = accounts(own_store, namespace)
        await parts.catalog.put(ad := make_ad("Ad-1"))
        _, [token] = await parts.answer(ad)
        async with click_client(parts) as http:
            await self.freeze(own_store, for_ms=1_500)
            answer = await http.get(f"/c/{token}")
            assert (answer.status_code, answer.headers["location"]) == (302, PAGE)
            assert parts.metrics.seen() == {"store_unavailable": 1}
            assert (await http.post("/v1/clicks", json={"token": token})).status_code == 503
            await thawed(own_store)
            assert await charged(parts) == []
            await http.get(f"/c/{token}")
            assert await charged(parts) == [250_000]

    async def test_an_unknown_page_is_a_503_to_try_again(
        self, own_store: Store, namespace: str, make_ad: Callable[..., Ad]
    ) -> None:
        parts = accounts(own_store, namespace)
        _, [token] = await parts.answer(make_ad("Ad-1"), is_recorded=False)
        async with click_client(parts) as http:
            await self.freeze(own_store, for_ms=1_000)
            answer = await http.get(f"/c/{token}")
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"


async def test_the_day_is_that_of_the_deployments_time_zone(
    store: Store, namespace: str, make_ad: Callable[..., Ad]
) -> None:
    # between them these two zones are never on the same day
    days = set()
    for zone in ("Pacific/Kiritimati", "Etc/GMT+12"):
        parts = accounts(store, f"{namespace}-{zone.replace('/', '-').replace('+', '')}",
                         auction={"timezone": zone})  # fmt: skip
        await parts.catalog.put(ad := make_ad("Ad-1"))
        _, [token] = await parts.answer(ad)
        async with click_client(parts) as http:
            await http.get(f"/c/{token}")
        days |= {entry.day async for entry in parts.ledger.entries()}
    assert len(days) == 2
