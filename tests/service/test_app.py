"""What the application watches while it runs."""

import asyncio
import contextlib
import time

import pytest

import service.app
from service.metrics import create_metrics


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
