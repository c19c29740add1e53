"""`POST /respond` around a scripted engine: rendering, streams that break, idempotency."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from scripted import ScriptedEngine, scripted_services

from models.engine.interface import EngineDead, EngineError
from service.answer import TextPart
from service.api import problems, respond
from service.api.access import Access
from service.api.door import Door
from service.api.render import ClickLink, as_event
from service.api.schemas import RespondResponse, TextSegment
from service.auction.ad import Ad
from service.receipt import is_genuine
from service.services import Services
from service.store.catalog import Catalog
from service.store.connection import Store, StoreUnavailable
from service.store.idempotency import IdempotencyStore, Outcome

ASK = {"query": "Which boots?", "candidates": [{"ad_id": "Ad-1", "bid": 0.1}], "max_ads": 2}
TITLE = "Trail [2-Pack] *Boots*"
MARKER = f"@{TITLE}@[Ad-1]"


@asynccontextmanager
async def client(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.state.services = services
    app.include_router(respond.router())
    problems.install(app)
    metrics, life = services.metrics, services.life
    app.add_middleware(Door, settings=services.settings, keys=(), metrics=metrics, life=life)
    app.add_middleware(Access, metrics=metrics)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        yield http


@pytest.fixture
async def serving(
    store: Store, namespace: str, make_ad: Callable[..., Ad]
) -> Callable[..., Services]:
    await Catalog(store, namespace).put(make_ad("Ad-1", title=TITLE))

    def serve(*script: str | EngineError, pause: bool = False) -> Services:
        return scripted_services(store, ScriptedEngine(script, pause), namespace)

    return serve


def events(text: str) -> list[tuple[str, Any]]:
    fields = (
        dict(line.split(": ", 1) for line in block.splitlines())
        for block in text.strip().split("\n\n")
    )
    return [(block["event"], json.loads(block["data"])) for block in fields]


class TestRendering:
    async def test_an_ad_stands_in_every_form_of_the_answer(
        self, serving: Callable[..., Services]
    ) -> None:
        async with client(serving("Try ", MARKER, " today.")) as http:
            response = await http.post("/respond", json=ASK)
        body = TypeAdapter(RespondResponse).validate_json(
            response.content, strict=True, extra="forbid"
        )
        assert body["answer"] == f"Try {MARKER} today."
        assert body["segments"] == [
            {"type": "text", "text": "Try "},
            {"type": "ad", "text": TITLE, "ad_id": "Ad-1", "disclosure": "Sponsored"},
            {"type": "text", "text": " today."},
        ]
        [ad] = body["ads"]
        assert body["answer"][ad["span"]["start"] : ad["span"]["end"]] == MARKER
        assert ad["charge"]["price_micros"] == 100_000
        assert ad["charge"]["price"] == "0.1"
        assert ad["charge"]["event"] == "click"

    async def test_a_title_cannot_break_out_of_its_markdown_link(
        self, serving: Callable[..., Services]
    ) -> None:
        async with client(serving("Try ", MARKER, ".")) as http:
            body = (await http.post("/respond", json=ASK)).json()
        click_url = body["ads"][0]["click_url"]
        assert click_url.startswith("http://test/c/")
        link = rf"[Trail \[2-Pack\] \*Boots\*](<{click_url}>) (Sponsored)"
        assert body["markdown"] == f"Try {link}."

    async def test_a_probe_shows_what_it_would_and_leaves_nothing_behind(
        self, serving: Callable[..., Services]
    ) -> None:
        services = serving("Try ", MARKER, ".")
        async with client(services) as http:
            body = (await http.post("/respond", json={**ASK, "probe": True})).json()
        assert [ad["click_url"] for ad in body["ads"]] == [None]
        assert await services.receipts.get(body["response_id"]) is None
        value = services.metrics.registry.get_sample_value
        assert value("llm_auction_answer_ads_count") == 0

    async def test_every_other_answer_leaves_a_receipt(
        self, serving: Callable[..., Services]
    ) -> None:
        services = serving("Try ", MARKER, ".")
        async with client(services) as http:
            body = (await http.post("/respond", json=ASK)).json()
        value = services.metrics.registry.get_sample_value
        recorded_s = value("llm_auction_stage_seconds_sum", {"stage": "record"})
        assert recorded_s == pytest.approx(body["latency_ms"]["record"] / 1000, abs=1e-6)
        assert recorded_s > 0
        signed = json.loads(await services.receipts.get(body["response_id"]) or b"")
        assert signed["receipt"]["insertions"][0]["charge"]["price_micros"] == 100_000
        assert is_genuine(signed["receipt"], signed["signature"], services.signing)

    async def test_click_rates_are_on_the_receipt_as_they_were_given(
        self, serving: Callable[..., Services]
    ) -> None:
        services = serving("Fine.")
        candidates = [{"ad_id": "Ad-1", "bid": 0.1, "pctr": 0.25}]
        async with client(services) as http:
            body = (await http.post("/respond", json={**ASK, "candidates": candidates})).json()
        signed = json.loads(await services.receipts.get(body["response_id"]) or b"")
        expected = {"ad_id": "Ad-1", "bid_micros": 100_000, "place": 1, "pctr": "0.25"}
        assert signed["receipt"]["candidates"] == [expected]
        assert is_genuine(signed["receipt"], signed["signature"], services.signing)

    @pytest.mark.parametrize("pctr", [0, 1.5, -0.1, "0.1", True])
    async def test_a_click_rate_is_over_0_and_up_to_1(
        self, serving: Callable[..., Services], pctr: object
    ) -> None:
        candidates = [{"ad_id": "Ad-1", "bid": 0.1, "pctr": pctr}]
        async with client(serving("Fine.")) as http:
            answer = await http.post("/respond", json={**ASK, "candidates": candidates})
        assert answer.status_code == 422
        assert "pctr" in answer.text

    async def test_click_rates_are_for_all_candidates_or_none(
        self, serving: Callable[..., Services]
    ) -> None:
        candidates = [{"ad_id": "Ad-1", "bid": 0.1, "pctr": 0.1}, {"ad_id": "Ad-2", "bid": 0.1}]
        async with client(serving("Fine.")) as http:
            answer = await http.post("/respond", json={**ASK, "candidates": candidates})
        assert answer.status_code == 422
        assert "candidate 1 has none" in answer.text

    async def test_a_held_out_user_gets_the_answer_without_ads(
        self, serving: Callable[..., Services]
    ) -> None:
        services = serving("Fine.")
        auction = services.settings.auction.model_copy(update={"holdout_share": 1.0})
        settings = services.settings.model_copy(update={"auction": auction})
        async with client(replace(services, settings=settings)) as http:
            held = (await http.post("/respond", json={**ASK, "user_id": "u1"})).json()
            nobody = (await http.post("/respond", json=ASK)).json()
        assert (held["holdout"], held["excluded"]) == (True, [])
        assert nobody["holdout"] is False

    async def test_paid_impressions_are_charged_with_the_record(
        self, serving: Callable[..., Services]
    ) -> None:
        services = serving("Try ", MARKER, ".")
        update = {"event": "impression", "pctr": 0.05}
        auction = services.settings.auction.model_copy(update=update)
        settings = services.settings.model_copy(update={"auction": auction})
        services = replace(services, settings=settings)
        async with client(services) as http:
            body = (await http.post("/respond", json=ASK)).json()
        assert body["ads"][0]["charge"]["event"] == "impression"
        charges = await services.ledger.charges(body["response_id"])
        assert charges["Ad-1"].amount_micros == 5_000

    async def test_a_second_mention_is_text_and_not_a_second_charge(
        self, serving: Callable[..., Services]
    ) -> None:
        async with client(serving(MARKER, " and ", MARKER)) as http:
            body = (await http.post("/respond", json=ASK)).json()
        assert len(body["ads"]) == 1
        assert body["faults"][0]["kind"] == "duplicate"
        assert body["segments"][-1] == {"type": "text", "text": f" and {TITLE}"}


JSON = "application/json"
CANDIDATE = '{"query": "Which boots?", "candidates": [{"ad_id": "Ad-1", "bid": %s}]}'


class TestShortcut:
    """A request that is not plainly valid goes FastAPI's way, and no request ends otherwise for
    the way that it took."""

    @pytest.mark.parametrize(
        ("body", "headers"),
        [
            ('{"query": "Which boots?"}', {"content-type": JSON}),
            ('{"query": "Which boots?"}', {"content-type": f"{JSON}; charset=utf-8"}),
            ('{"query": "Which boots?"}', {"content-type": "application/vnd.api+json"}),
            ('{"query": "Which boots?"}', {"content-type": "text/plain"}),
            ('{"query": "Which boots?"}', {}),
            ('{"query": "Which boots?"}', {"content-type": JSON, "idempotency-key": ""}),
            ('{"query": "Which boots?"}', {"content-type": JSON, "idempotency-key": "a b"}),
            ('{"query": "Which boots?"}', {"content-type": JSON, "idempotency-key": "k" * 256}),
            ('{"query": "one", "query": "Which boots?"}', {"content-type": JSON}),
            ('{"query": "Which boots?", "unknown": 1}', {"content-type": JSON}),
            ('{"query": "Which boots?", "temperature": 1}', {"content-type": JSON}),
            ('{"query": "Which boots?", "max_ads": 1.0}', {"content-type": JSON}),
            ('{"query": "Which boots?", "temperature": NaN}', {"content-type": JSON}),
            ('{"query": "Which \\ud800 boots?"}', {"content-type": JSON}),
            ('{"query": "Which boots?"', {"content-type": JSON}),
            ("[" * 10_000, {"content-type": JSON}),
            ("", {"content-type": JSON}),
            ('\ufeff{"query": "Which boots?"}', {"content-type": JSON}),
            ('{"query": "Which boots?"}'.encode("utf-16"), {"content-type": JSON}),
            (b'{"query": "\xff"}', {"content-type": JSON}),
            *(
                (CANDIDATE % bid, {"content-type": JSON})
                for bid in ("true", "null", "[]", "{}", "NaN", "-1", "1e400", '"1,5"', "9" * 5_000)
            ),
        ],
    )
    async def test_tells_the_same(
        self,
        serving: Callable[..., Services],
        monkeypatch: pytest.MonkeyPatch,
        body: str | bytes,
        headers: dict[str, str],
    ) -> None:
        async with client(serving("Fine.")) as http:
            straight = await http.post("/respond", content=body, headers=headers)
            monkeypatch.setattr(respond, "_plain_key", lambda _: int("never plain"))
            around = await http.post("/respond", content=body, headers=headers)
        assert straight.status_code == around.status_code
        if straight.is_success:
            assert straight.json()["answer"] == around.json()["answer"] == "Fine."
        else:
            told, told_around = straight.json(), around.json()
            assert told.pop("request_id") != told_around.pop("request_id")
            assert told == told_around

    async def test_a_body_that_is_not_called_json_is_told_its_header(
        self, serving: Callable[..., Services]
    ) -> None:
        headers = {"content-type": "application/x-www-form-urlencoded"}  # curl's, by itself
        async with client(serving("Fine.")) as http:
            refused = await http.post("/respond", content='{"query": "?"}', headers=headers)
        assert refused.status_code == 422
        told = {"loc": "header/content-type", "msg": "must be application/json"}
        assert refused.json()["errors"] == [told]

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
    async def test_no_other_method_is_answered(
        self, serving: Callable[..., Services], method: str
    ) -> None:
        async with client(serving("Fine.")) as http:
            response = await http.request(method, "/respond", json=ASK)
        assert response.status_code == 405

    async def test_a_plain_request_takes_it(
        self, serving: Callable[..., Services], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with client(serving("Fine.")) as http:
            monkeypatch.setattr(APIRoute, "handle", None)
            headers = {"Idempotency-Key": "taken"}
            assert (await http.post("/respond", json=ASK, headers=headers)).is_success


class TestStream:
    @pytest.mark.parametrize("text", ["Try", ' "quoted"\n\r\u2028\\', "帐篷 👩‍👩‍👧 \x00", ""])
    def test_a_text_event_is_the_segment_as_documented(self, text: str) -> None:
        event = as_event(TextPart(text), ClickLink("https://ads.example"))
        name, data, *end = event.decode().split("\n")
        assert (name, end) == ("event: text", ["", ""])
        segment = TypeAdapter(TextSegment).validate_json(data.removeprefix("data: "))
        assert segment == {"type": "text", "text": text}

    async def test_parts_come_in_order_and_end_with_the_whole(
        self, serving: Callable[..., Services]
    ) -> None:
        async with client(serving("Try @Tra", "il [2-Pack] *Boots*@[Ad", "-1] now")) as http:
            text = (await http.post("/respond", json={**ASK, "stream": True})).text
        assert [name for name, _ in events(text)] == ["text", "ad", "text", "done"]
        assert events(text)[1][1]["charge"]["price_micros"] == 100_000
        assert events(text)[-1][1]["answer"] == f"Try {MARKER} now"

    async def test_an_engine_that_dies_in_the_middle_ends_the_stream_with_an_error(
        self, serving: Callable[..., Services]
    ) -> None:
        services = serving("Try this", EngineDead())
        async with client(services) as http:
            response = await http.post("/respond", json={**ASK, "stream": True})
        (first, _), (last, problem) = events(response.text)
        assert (first, last) == ("text", "error")
        assert problem["code"] == "model_unavailable"
        assert problem["request_id"] == response.headers["x-request-id"]
        assert services.life.is_engine_dead

    async def test_one_that_is_dead_before_the_first_word_is_a_503(
        self, serving: Callable[..., Services]
    ) -> None:
        async with client(serving(EngineDead())) as http:
            response = await http.post("/respond", json={**ASK, "stream": True})
        assert response.status_code == 503
        assert response.headers["content-type"] == "application/problem+json"


class DeafStore(IdempotencyStore):
    """Claims are made, and their answers are lost on the way."""

    async def begin(self, *arguments: Any) -> Outcome:
        await super().begin(*arguments)
        raise StoreUnavailable


class TestIdempotency:
    async def test_a_stream_is_replayed_as_a_stream(self, serving: Callable[..., Services]) -> None:
        services = serving("Try ", MARKER, " today.")
        headers = {"Idempotency-Key": "a"}
        async with client(services) as http:
            ask = {**ASK, "stream": True}
            first = await http.post("/respond", json=ask, headers=headers)
            again = await http.post("/respond", json=ask, headers=headers)
        assert again.headers["idempotency-replayed"] == "true"
        assert events(again.text) == events(first.text)

    async def test_a_failed_request_frees_its_key(self, serving: Callable[..., Services]) -> None:
        headers = {"Idempotency-Key": "b"}
        async with client(serving(EngineDead())) as http:
            assert (await http.post("/respond", json=ASK, headers=headers)).status_code == 503
        async with client(serving("Fine.")) as http:
            again = await http.post("/respond", json=ASK, headers=headers)
        assert again.json()["answer"] == "Fine."

    async def test_an_answer_recorded_for_a_client_that_left_is_replayed_and_charged_once(
        self, serving: Callable[..., Services], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        services = serving("Try ", MARKER, ".")
        paid = services.settings.auction.model_copy(update={"event": "impression", "pctr": 0.05})
        settings = services.settings.model_copy(update={"auction": paid})
        services = replace(services, settings=settings)
        is_recording, may_go_on = asyncio.Event(), asyncio.Event()
        save = services.receipts.save

        async def slow(*arguments: Any) -> list[Any]:
            is_recording.set()
            await may_go_on.wait()
            return await save(*arguments)

        monkeypatch.setattr(services.receipts, "save", slow)
        headers = {"Idempotency-Key": "e"}
        async with client(services) as http:
            leaving = asyncio.create_task(http.post("/respond", json=ASK, headers=headers))
            await is_recording.wait()
            leaving.cancel()
            await asyncio.wait({leaving}, timeout=5)
            may_go_on.set()
            again = await http.post("/respond", json=ASK, headers=headers)
        assert again.headers["idempotency-replayed"] == "true"
        assert len(again.json()["ads"]) == 1
        assert len([entry async for entry in services.ledger.entries()]) == 1

    async def test_a_second_request_waits_for_the_first(
        self, serving: Callable[..., Services]
    ) -> None:
        services = serving("Fine.")
        headers = {"Idempotency-Key": "c"}
        async with client(services) as http:
            both = [http.post("/respond", json=ASK, headers=headers) for _ in range(2)]
            one, two = await asyncio.gather(*both)
        assert one.json() == two.json()
        engine = services.engine
        assert isinstance(engine, ScriptedEngine)
        assert len(engine.generations) == 1

    async def test_one_still_running_at_the_deadline_is_told_to_come_back(
        self, serving: Callable[..., Services], namespace: str
    ) -> None:
        services = serving("Fine.")
        body = json.dumps({**ASK, "deadline_ms": 200}).encode()
        body_hash = hashlib.sha256(body).hexdigest()
        await services.idempotency.begin("anonymous", namespace, body_hash, 60_000)
        headers = {"Idempotency-Key": namespace, "Content-Type": "application/json"}
        async with client(services) as http:
            response = await http.post("/respond", content=body, headers=headers)
        assert response.status_code == 409
        assert response.json()["code"] == "idempotency_in_progress"
        assert response.headers["retry-after"] == "1"

    async def test_an_answer_that_a_retry_cannot_replay_has_no_ads(
        self, serving: Callable[..., Services], store: Store, namespace: str
    ) -> None:
        services = serving("Try ", MARKER, " today.")
        services = replace(services, idempotency=DeafStore(store, namespace, 3_600))
        async with client(services) as http:
            response = await http.post("/respond", json=ASK, headers={"Idempotency-Key": "d"})
        assert response.status_code == 200
        body = response.json()
        assert (body["ads"], body["ads_unavailable"]) == ([], True)
        value = services.metrics.registry.get_sample_value
        assert value("llm_auction_ads_unavailable_total") == 1
