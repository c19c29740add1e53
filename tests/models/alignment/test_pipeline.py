"""What keeps a stage from being run is told before or after it, not stumbled over; and nothing is
done twice."""

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_market import FakeEncoder

from models.alignment import pipeline as module
from models.alignment import stages
from models.alignment.pctr import PctrFit, Showing
from models.alignment.pipeline import Pipeline
from models.alignment.presets import PAPER, PAPER_GRPO, SMALL, Preset
from models.alignment.run import RunError, open_run
from models.alignment.trl_training import Reward
from models.contract.markers import read
from models.engine.interface import Chunk, Generation, Usage
from models.simulation.nouns import Auction
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


class Talker:
    """Answers alike, whatever is asked."""

    async def generate(self, generation: Generation) -> AsyncGenerator[Chunk]:
        yield Chunk("Yes.", 1, "stop", Usage(1, 0, 1))


class FixedClicks:
    """A click model to which all ads are alike."""

    def probabilities(self, showings: Sequence[Showing]) -> list[float]:
        return [0.5] * len(showings)


def small(preset: Preset) -> Preset:
    """`preset`, of three auctions."""
    sampling = replace(preset.sampling, per_auction=2)
    return replace(preset, auction=SMALL.auction, auctions=3, reward_samples=2, sampling=sampling)


class TestOnePolicyPhase:
    @pytest.fixture(autouse=True)
    def done(self, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
        """How often what takes long was done; none of it is."""
        counted: Counter[str] = Counter()

        @asynccontextmanager
        async def engine(self: Pipeline, path: Path) -> AsyncIterator[Talker]:
            counted["engine"] += 1
            yield Talker()

        def fit(*_: object) -> tuple[FixedClicks, PctrFit]:
            counted["fit"] += 1
            return FixedClicks(), PctrFit(9, 0.5, 0.5, 0.5, ((0.5, 0.5, 9),))

        def train(*_: object) -> None:
            counted["training"] += 1

        monkeypatch.setattr(Pipeline, "_engine", engine)
        monkeypatch.setattr(module, "MiniLmEncoder", FakeEncoder)
        monkeypatch.setattr(stages, "servable_tokenizer", lambda path: None)
        monkeypatch.setattr(stages, "fit_pctr", fit)
        monkeypatch.setattr(stages, "train_dpo", train)
        return counted

    def test_has_one_reward_phase_and_one_fit(self, tmp_path: Path, done: Counter[str]) -> None:
        epoch = pipeline(tmp_path, small(PAPER))
        epoch.pctr(1)
        epoch.dpo(1)

        assert done == {"engine": 2, "fit": 1, "training": 1}

    def test_starts_no_engine_where_nothing_is_left_to_sample(
        self, tmp_path: Path, done: Counter[str]
    ) -> None:
        pipeline(tmp_path, small(PAPER)).preferences(1)
        done.clear()
        pipeline(tmp_path, small(PAPER)).dpo(1)
        pipeline(tmp_path, small(PAPER)).pctr(1)

        assert done == {"fit": 1, "training": 1}

    def test_is_sampled_in_one_process_before_several_train(
        self, tmp_path: Path, done: Counter[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WORLD_SIZE", "2")
        with pytest.raises(RunError, match=r"align sample --epoch 1 --run .* --preset paper"):
            pipeline(tmp_path, small(PAPER)).dpo(1)
        assert not done
        monkeypatch.delenv("WORLD_SIZE")
        pipeline(tmp_path, small(PAPER)).preferences(1)
        done.clear()
        monkeypatch.setenv("WORLD_SIZE", "2")
        pipeline(tmp_path, small(PAPER)).dpo(1)

        assert done == {"training": 1}

    @pytest.mark.parametrize(
        ("preset", "stage", "command"),
        [
            (SMALL, Pipeline.warm_start, "warm-start"),
            (small(SMALL), lambda it: it.dpo(1), "dpo --epoch 1"),
            (small(PAPER), lambda it: it.pctr(1), "pctr --epoch 1"),
            (small(PAPER_GRPO), lambda it: it.grpo(1), "pctr --epoch 1"),
        ],
    )
    def test_and_what_comes_before_it_are_for_one_process(
        self,
        tmp_path: Path,
        done: Counter[str],
        monkeypatch: pytest.MonkeyPatch,
        preset: Preset,
        stage: Callable[[Pipeline], object],
        command: str,
    ) -> None:
        monkeypatch.setenv("WORLD_SIZE", "2")

        with pytest.raises(RunError, match=f"align {command} --run"):
            stage(pipeline(tmp_path, preset))
        assert not done

    def test_online_is_rewarded_by_the_click_model(
        self, tmp_path: Path, done: Counter[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rewards: list[float] = []

        def train(
            model: str, tokenizer: Any, auctions: Sequence[Auction], reward: Reward, *_: object
        ) -> None:
            one = auctions[0]
            texts = ("Yes.", f"Try @{one.ads[0].title}@[{one.ads[0].ad_id}] then.")
            markers = [ad.marked for ad in one.ads]
            rewards.extend(reward([(one, read(text, markers, 3)) for text in texts]))
            assert len(auctions) == 3
            assert rewards[1] == one.bids[0] * 0.5 - SMALL.objective.ad_penalty

        monkeypatch.setattr(stages, "train_grpo", train)
        pipeline(tmp_path, small(PAPER_GRPO)).grpo(1)

        assert rewards[0] == 0
        assert done == {"engine": 1, "fit": 1}

    @pytest.mark.parametrize(
        ("preset", "stage", "right"),
        [(PAPER, Pipeline.grpo, "dpo"), (PAPER_GRPO, Pipeline.dpo, "grpo")],
    )
    def test_is_the_one_of_its_preset(
        self,
        tmp_path: Path,
        preset: Preset,
        stage: Callable[[Pipeline, int], None],
        right: str,
    ) -> None:
        with pytest.raises(RunError, match=f"{preset.name} trains by `align {right}`"):
            stage(pipeline(tmp_path, small(preset)), 1)
