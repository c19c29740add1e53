"""The measuring of eligibility: all candidates with budgets, spend and showings, each time."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loadtest.eligibility import main, measure
from service.settings import StoreSettings
from service.store.connection import open_store


async def test_every_request_is_timed(tmp_path: Path) -> None:
    options: Any = SimpleNamespace(ads=30, candidates=20, requests=5, seed=1)
    async with open_store(StoreSettings(timeout_ms=10_000), tmp_path, print) as store:
        times = await measure(store, options)
    assert list(times) == ["a PING", "the round trip", "the decision"]
    for taken in times.values():
        assert len(taken) == 5
        assert all(ms > 0 for ms in taken)


def test_more_candidates_than_ads_are_wrong_usage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["eligibility", "--ads", "10", "--candidates", "11"])
    with pytest.raises(SystemExit):
        main()
    assert "--candidates 11 must not exceed --ads 10" in capsys.readouterr().err
