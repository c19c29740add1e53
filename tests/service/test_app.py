"""How the application is put together, and what it watches while it runs."""

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

import pytest
from scripted import ScriptedEngine
from valkeys import LOOPBACK, run_valkey

import service.app
from service.metrics import create_metrics
from service.settings import EngineSettings, Settings, StoreSettings


async def test_a_blocked_loop_is_seen_as_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.app, "_WATCH_S", 0.01)
    metrics = create_metrics()
    watcher = asyncio.create_task(service.app._watch_loop(metrics))
    await asyncio.sleep(0)
    time.sleep(0.1)  # noqa: ASYNC251

    def lag_s() -> float:
        return metrics.registry.get_sample_value("llm_auction_loop_lag_seconds_sum") or 0.0

    async with asyncio.timeout(5):
        while not lag_s():  # noqa: ASYNC110
            await asyncio.sleep(0)
    watcher.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watcher
    assert lag_s() >= 0.08


@pytest.mark.parametrize(("demo_ads", "count"), [(None, 0), (True, 100)])
async def test_a_store_of_ones_own_gets_demo_ads_only_where_asked_for(
    demo_ads: bool | None, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start(*_: Any) -> ScriptedEngine:
        return ScriptedEngine([])

    monkeypatch.setattr(service.app, "start_engine", start)
    async with run_valkey(tmp_path / "valkey") as valkey:
        url = f"redis://{LOOPBACK}:{valkey.port}"
        store = StoreSettings(url=url, timeout_ms=5_000, demo_ads=demo_ads)
        app = service.app.create_app(Settings(state_dir=tmp_path, store=store))
        async with app.router.lifespan_context(app):
            assert await app.state.services.catalog.count() == count


async def test_a_servers_context_is_as_the_settings_say() -> None:
    remote = EngineSettings(
        kind="remote", url="http://127.0.0.1:1", model="some/model", max_model_len=777
    )
    engine = await service.app.start_engine(Settings(engine=remote), print)
    assert engine.max_model_len == 777
    await engine.close()
