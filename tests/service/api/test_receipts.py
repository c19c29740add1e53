"""Receipts over HTTP on a real Valkey: read, checked, erased; a user's data exported and erased."""

import json
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from recorded import Accounts, accounts

from service.api import clicks, problems, receipts
from service.api.receipt_schemas import ReceiptNow
from service.auction.ad import Ad
from service.auction.signing_key import SigningKey, SigningKeys
from service.store.connection import Store

UNKNOWN = "resp_" + "0" * 32


@pytest.fixture
def parts(store: Store, namespace: str) -> Accounts:
    return accounts(store, namespace)


@pytest.fixture
async def ad(parts: Accounts, make_ad: Callable[..., Ad]) -> Ad:
    await parts.catalog.put(entered := make_ad("Ad-1"))
    return entered


@pytest.fixture
async def http(parts: Accounts) -> AsyncGenerator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(receipts.router())
    app.include_router(clicks.router())
    problems.install(app)
    app.state.services = parts
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as opened:
        yield opened


async def lines(http: httpx.AsyncClient, user_id: str) -> list[Any]:
    answer = await http.get(f"/users/{user_id}/data")
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    return [json.loads(line) for line in answer.text.splitlines()]


class TestRead:
    async def test_a_receipt_is_as_documented_and_holds_no_text(
        self, parts: Accounts, ad: Ad, http: httpx.AsyncClient
    ) -> None:
        response_id, _ = await parts.answer(ad, user_id="user-1")
        answer = await http.get(f"/responses/{response_id}")
        read = ReceiptNow.model_validate_json(answer.content)
        assert json.loads(read.model_dump_json(exclude_unset=True)) == answer.json()
        assert read.receipt.caller == "chat"
        assert [c.excluded for c in read.receipt.candidates] == [None, "unknown"]
        assert read.receipt.insertions[0].charge.price_micros == 250_000
        for text in ("Which boots", "Hello", "Try these", "user-1"):
            assert text not in answer.text

    async def test_text_is_in_where_the_deployment_keeps_it(
        self, store: Store, namespace: str, parts: Accounts, ad: Ad, http: httpx.AsyncClient
    ) -> None:
        keeping = accounts(store, namespace, receipts={"with_text": True})
        response_id, _ = await keeping.answer(ad)
        text = (await http.get(f"/responses/{response_id}")).json()["receipt"]["text"]
        assert (text["query"], text["answer"]) == ("Which boots?", "Try these.")

    async def test_charges_are_told_as_they_are_now(
        self, parts: Accounts, ad: Ad, make_ad: Callable[..., Ad], http: httpx.AsyncClient
    ) -> None:
        await parts.catalog.put(other := make_ad("Ad-2"))
        response_id, [token, _] = await parts.answer(ad, other)
        before = (await http.get(f"/responses/{response_id}")).json()
        assert [charge["state"] for charge in before["charges"]] == ["open", "open"]
        await http.get(f"/c/{token}")
        after = (await http.get(f"/responses/{response_id}")).json()
        [entry] = [entry async for entry in parts.ledger.entries()]
        assert after["charges"] == [
            {
                "ad_id": "Ad-1",
                "state": "charged",
                "charge_id": entry.charge_id,
                "amount_micros": 250_000,
            },
            {"ad_id": "Ad-2", "state": "open", "charge_id": None, "amount_micros": 0},
        ]
        assert after["receipt"] == before["receipt"]
        assert after["signature"] == before["signature"]

    async def test_what_nobody_clicked_in_time_is_expired(
        self, parts: Accounts, ad: Ad, http: httpx.AsyncClient
    ) -> None:
        given_at = datetime.now(UTC) - timedelta(days=2)
        response_id, _ = await parts.answer(ad, given_at=given_at)
        [charge] = (await http.get(f"/responses/{response_id}")).json()["charges"]
        assert charge["state"] == "expired"

    async def test_an_impression_that_the_budget_had_no_room_for_is_refused(
        self, store: Store, namespace: str, make_ad: Callable[..., Ad], http: httpx.AsyncClient
    ) -> None:
        paid = accounts(store, namespace, auction={"event": "impression", "pctr": 0.1})
        await paid.catalog.put(poor := make_ad("Ad-1", budget={"total": "0.03"}))
        states = []
        for _ in range(2):  # each costs 0.025
            response_id, _ = await paid.answer(poor)
            [charge] = (await http.get(f"/responses/{response_id}")).json()["charges"]
            states.append((charge["state"], charge["amount_micros"]))
        assert states == [("charged", 25_000), ("refused", 0)]

    async def test_an_unknown_id_is_a_404_and_what_is_none_a_422(
        self, http: httpx.AsyncClient
    ) -> None:
        assert (await http.get(f"/responses/{UNKNOWN}")).status_code == 404
        assert (await http.get("/responses/resp_1")).status_code == 422


class TestErase:
    async def test_an_erased_receipt_is_gone_and_its_charge_stays(
        self, parts: Accounts, ad: Ad, http: httpx.AsyncClient
    ) -> None:
        response_id, [token] = await parts.answer(ad)
        await http.get(f"/c/{token}")
        erased = await http.delete(f"/responses/{response_id}")
        assert (erased.status_code, erased.content) == (204, b"")
        assert (await http.get(f"/responses/{response_id}")).status_code == 404
        assert (await http.delete(f"/responses/{response_id}")).status_code == 404
        assert await parts.ledger.count() == 1


class TestVerify:
    async def verify(self, http: httpx.AsyncClient, body: dict[str, Any], **more: str) -> Any:
        return (await http.post("/receipts/verify", json={**body, **more})).json()

    async def document(self, parts: Accounts, ad: Ad, http: httpx.AsyncClient) -> Any:
        response_id, _ = await parts.answer(ad)
        return (await http.get(f"/responses/{response_id}")).json()

    async def test_what_was_handed_out_is_valid(
        self, parts: Accounts, ad: Ad, http: httpx.AsyncClient
    ) -> None:
        document = await self.document(parts, ad, http)
        assert await self.verify(http, document) == {
            "valid": True,
            "query_matches": None,
            "answer_matches": None,
        }

    async def test_a_changed_price_is_not(
        self, parts: Accounts, ad: Ad, http: httpx.AsyncClient
    ) -> None:
        document = await self.document(parts, ad, http)
        document["receipt"]["insertions"][0]["charge"]["price_micros"] = 1
        assert (await self.verify(http, document))["valid"] is False

    async def test_a_receipt_of_an_older_key_is_valid_until_the_key_goes(
        self, parts: Accounts, ad: Ad, http: httpx.AsyncClient
    ) -> None:
        document = await self.document(parts, ad, http)
        old, fresh = parts.signing.current, SigningKey("k2", b"2" * 32)
        parts.signing = SigningKeys(fresh, (fresh, old))
        assert (await self.verify(http, document))["valid"] is True
        parts.signing = SigningKeys(fresh, (fresh,))
        assert (await self.verify(http, document))["valid"] is False

    async def test_texts_are_compared_with_their_hashes(
        self, parts: Accounts, ad: Ad, http: httpx.AsyncClient
    ) -> None:
        document = await self.document(parts, ad, http)
        same = await self.verify(http, document, query="Which boots?", answer="Try these.")
        assert (same["query_matches"], same["answer_matches"]) == (True, True)
        other = await self.verify(http, document, query="which boots?", answer="")
        assert (other["query_matches"], other["answer_matches"]) == (False, False)

    @pytest.mark.parametrize(
        "body",
        [
            b"{",
            b'{"receipt": {}}',
            b'{"receipt": [], "signature": {}}',
            b'{"receipt": {}, "signature": {"value": 1}}',
            b'{"receipt": {}, "signature": {}, "query": "\\ud800"}',
            b'{"receipt": {}, "signature": {}, "answer": "\\ud800"}',
        ],
    )
    async def test_what_is_no_receipt_is_refused(
        self, http: httpx.AsyncClient, body: bytes
    ) -> None:
        headers = {"Content-Type": "application/json"}
        answer = await http.post("/receipts/verify", content=body, headers=headers)
        assert answer.status_code in {400, 422}

    async def test_hashes_that_are_no_text_match_nothing(self, http: httpx.AsyncClient) -> None:
        odd = b'{"query_hash": "\\ud800", "answer_hash": "\\udfff"}'
        signature = b'{"key_id": "k1", "algorithm": "HMAC-SHA256", "value": "\\ud800"}'
        body = b'{"receipt": %b, "signature": %b, "query": "x", "answer": "x"}' % (odd, signature)
        headers = {"Content-Type": "application/json"}
        answer = await http.post("/receipts/verify", content=body, headers=headers)
        checked = {"valid": False, "query_matches": False, "answer_matches": False}
        assert (answer.status_code, answer.json()) == (200, checked)

    async def test_deep_nesting_is_not_valid_or_refused(self, http: httpx.AsyncClient) -> None:
        signature = '{"key_id": "k1", "algorithm": "HMAC-SHA256", "value": ""}'
        headers = {"Content-Type": "application/json"}
        for depth in range(800, 1_000):
            nested = "[" * depth + "]" * depth
            body = f'{{"receipt": {{"a": {nested}}}, "signature": {signature}}}'
            answer = await http.post("/receipts/verify", content=body, headers=headers)
            assert answer.status_code in {200, 400}
            assert answer.status_code == 400 or answer.json()["valid"] is False

    async def test_odd_values_are_just_not_valid(self, http: httpx.AsyncClient) -> None:
        body = (
            b'{"receipt": {"a": 1e400, "b": NaN, "c": "\\ud800"},'
            b' "signature": {"key_id": "k1", "algorithm": "HMAC-SHA256", "value": "\xc3\xa9"}}'
        )
        headers = {"Content-Type": "application/json"}
        answer = await http.post("/receipts/verify", content=body, headers=headers)
        assert answer.status_code in {200, 400, 422}
        assert answer.status_code != 200 or answer.json()["valid"] is False


class TestUserData:
    async def test_the_export_holds_all_that_is_kept_about_the_user_and_nobody_else(
        self, parts: Accounts, ad: Ad, http: httpx.AsyncClient
    ) -> None:
        now = datetime.now(UTC)
        older, _ = await parts.answer(ad, user_id="user-1", given_at=now - timedelta(hours=1))
        newer, _ = await parts.answer(ad, user_id="user-1", given_at=now)
        await parts.answer(ad, user_id="user-2")
        await parts.answer(ad)
        first, second, *shown = await lines(http, "user-1")
        assert first["receipt"]["response_id"] == older
        assert second["receipt"]["response_id"] == newer
        assert [line["shown"]["response_id"] for line in shown] == [older, newer]
        assert {line["shown"]["ad_id"] for line in shown} == {"Ad-1"}

    async def test_exported_receipts_are_signed(
        self, parts: Accounts, ad: Ad, http: httpx.AsyncClient
    ) -> None:
        await parts.answer(ad, user_id="user-1")
        document, *_ = await lines(http, "user-1")
        assert (await http.post("/receipts/verify", json=document)).json()["valid"] is True

    async def test_many_receipts_all_come(
        self, parts: Accounts, ad: Ad, http: httpx.AsyncClient
    ) -> None:
        for _ in range(205):
            await parts.answer(ad, user_id="user-1")
        found = [line for line in await lines(http, "user-1") if "receipt" in line]
        assert len({line["receipt"]["response_id"] for line in found}) == 205

    async def test_after_erasure_nothing_is_left_but_the_ledger(
        self, parts: Accounts, ad: Ad, http: httpx.AsyncClient, store: Store, namespace: str
    ) -> None:
        response_id, [token] = await parts.answer(ad, user_id="user-1")
        kept, _ = await parts.answer(ad, user_id="user-2")
        await http.get(f"/c/{token}")
        erased = await http.delete("/users/user-1/data")
        assert erased.json() == {"receipts": 1, "showings": True}
        assert await lines(http, "user-1") == []
        assert (await http.get(f"/responses/{response_id}")).status_code == 404
        assert (await http.get(f"/responses/{kept}")).status_code == 200
        assert await parts.ledger.count() == 1
        assert (await http.delete("/users/user-1/data")).json()["receipts"] == 0

    async def test_no_key_or_value_in_the_store_holds_the_users_id(
        self, parts: Accounts, ad: Ad, http: httpx.AsyncClient, store: Store, namespace: str
    ) -> None:
        _, [token] = await parts.answer(ad, user_id="user-unmistakable")
        await http.get(f"/c/{token}")
        names = await store.run(lambda redis: redis.keys(f"{{{namespace}}}:*"))
        dumps = [await store.run(lambda redis, n=name: redis.dump(n)) for name in names]
        assert len(names) > 5
        assert not any(b"unmistakable" in raw for raw in [*names, *dumps])

    async def test_an_unknown_user_has_no_data(self, http: httpx.AsyncClient) -> None:
        assert await lines(http, "nobody") == []
        assert (await http.get("/users/not%20a%20user/data")).status_code == 422
