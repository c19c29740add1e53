"""What keeps a stage from being run is told before or after it, not stumbled over."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from models.alignment.pipeline import Pipeline
from models.alignment.presets import PAPER, SMALL, Preset
from models.alignment.run import RunError, open_run
from models.simulation.world import WorldOptions
from service.cli import DEMO_ADS

FEW_USERS = WorldOptions(users=20)


def pipeline(tmp_path: Path, preset: Preset, catalogue: Path = DEMO_ADS) -> Pipeline:
    preset = replace(preset, world=FEW_USERS)
    return Pipeline(open_run(tmp_path / "run", preset, catalogue), tmp_path / "base")


def test_a_catalogue_smaller_than_an_auction_is_refused_at_once(tmp_path: Path) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text("".join(DEMO_ADS.read_text().splitlines(keepends=True)[:9]))

    with pytest.raises(RunError, match="has 9 ads; an auction has 10"):
        pipeline(tmp_path, SMALL, few)


@pytest.fixture
def nothing_clicked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def showings(self: Pipeline, epoch: int, progress: Callable[[int], None]) -> list[None]:
        return []

    monkeypatch.setattr(Pipeline, "_reward_phase", showings)


@pytest.mark.usefixtures("nothing_clicked")
def test_without_clicks_there_is_no_click_model_and_none_is_missed(tmp_path: Path) -> None:
    assert pipeline(tmp_path, SMALL).pctr(1) is None


@pytest.mark.usefixtures("nothing_clicked")
def test_rewards_by_learned_clicks_need_a_click_model(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="No click model of epoch 1"):
        pipeline(tmp_path, replace(PAPER, auction=SMALL.auction)).pctr(1)
