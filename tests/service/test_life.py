"""The end of a process in the middle of its answers."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from scripted import ScriptedEngine
from starlette.types import Message
from valkeys import LOOPBACK, run_valkey

import service.app
from service.app import create_app
from service.auction.ad import Ad
from service.life import Life
from service.settings import AuctionSettings, Settings, StoreSettings

BODY = b'{"query": "Which boots?", "candidates": [{"ad_id": "Ad-1", "bid": 1}], "stream": true}'


class ClosingEngine(ScriptedEngine):
    """Writes an ad and never ends; notes what has been charged by the time it is closed."""

    def __init__(self, valkey: Any) -> None:
        super().__init__(["Try @Trail Boots@[Ad-1]", " now"], pause=True)
        self.valkey = valkey
        self.charged = 0

    async def close(self) -> None:
        self.charged = await self.valkey.xlen("{llm-auction}:ledger")


async def stream_until_ad(app: Any) -> "asyncio.Task[None]":
    """A request whose client has seen the ad and waits for more."""
    incoming, is_shown = asyncio.Queue[Message](), asyncio.Event()
    incoming.put_nowait({"type": "http.request", "body": BODY, "more_body": False})

    async def send(message: Message) -> None:
        if b"event: ad" in message.get("body", b""):
            is_shown.set()

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/respond",
        "headers": [(b"content-type", b"application/json"), (b"host", b"test")],
        "query_string": b"",
    }
    call = asyncio.create_task(app(scope, incoming.get, send))
    await asyncio.wait_for(is_shown.wait(), 5)
    return call


class TestEnd:
    @pytest.mark.parametrize("is_cancelled", [True, False])
    async def test_what_was_shown_is_recorded_before_anything_is_closed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_cancelled: bool, make_ad: Any
    ) -> None:
        ad: Ad = make_ad("Ad-1", title="Trail Boots")
        async with run_valkey(tmp_path / "valkey") as valkey:
            engine = ClosingEngine(valkey.redis)

            async def start(*_: Any) -> ClosingEngine:
                return engine

            monkeypatch.setattr(service.app, "start_engine", start)
            url = f"redis://{LOOPBACK}:{valkey.port}"
            app = create_app(
                Settings(
                    state_dir=tmp_path,
                    store=StoreSettings(url=url, timeout_ms=5_000),
                    auction=AuctionSettings(event="impression", pctr=0.5),
                )
            )
            async with app.router.lifespan_context(app):
                await app.state.services.catalog.put(ad)
                call = await stream_until_ad(app)
                if is_cancelled:  # as uvicorn does, which then does not wait
                    call.cancel()
            await asyncio.wait({call})
        assert engine.charged == 1

    async def test_waits_no_longer_than_it_may(self, caplog: pytest.LogCaptureFixture) -> None:
        life, never = Life(), asyncio.Event()

        async def record() -> None:
            await never.wait()

        recording = asyncio.create_task(life.complete(record()))
        await asyncio.sleep(0)
        await life.end(0.01)
        assert "could not be recorded" in caplog.text
        never.set()
        await recording
