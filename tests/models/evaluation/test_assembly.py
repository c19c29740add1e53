"""What a run starts, and what it is told by, without starting it."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from market import BagOfWords, an_auction
from talking import TalkingEngine
from typist import Typist

from models.engine.interface import Engine, ModelIdentity
from models.evaluation import assembly
from models.evaluation.assembly import (
    JudgeIdentity,
    Place,
    Weights,
    assembled,
    manifest,
    models_asked,
)
from models.evaluation.config import RunConfig, Study
from models.evaluation.manifest import ManifestDiffers, claim
from models.provision import ServableModel
from models.simulation.judge import PROMPT_NAME
from models.simulation.nouns import Ad
from models.simulation.user_llm_engine import EngineChoice
from models.simulation.world import World, outside_world

BASE, ALIGNED = ServableModel("/base", "base", "1"), ServableModel("/aligned", "aligned", "2")
BOTH = Weights(BASE, ALIGNED)
SWEEP = (Study.BID_RESPONSE, Study.CONTINUITY, Study.ORDER)


@pytest.fixture
def world() -> World:
    return outside_world([Ad("Ad-1", "Tent", "tents", "")], [], near={})


class TestModelsAsked:
    @pytest.mark.parametrize(
        ("mechanisms", "studies", "asked"),
        [
            (("aligned",), SWEEP, [ALIGNED]),
            (("aligned-no-ads",), SWEEP, [ALIGNED]),
            (("aligned",), (*SWEEP, Study.EFFICIENCY), [BASE, ALIGNED]),
            (("aligned",), (Study.OPTIMUM,), [BASE, ALIGNED]),
            (("aligned", "mosaic"), SWEEP, [BASE, ALIGNED]),
            (("pretrained",), SWEEP, [BASE]),
        ],
    )
    def test_only_what_mechanisms_and_studies_use(
        self, mechanisms: tuple[str, ...], studies: tuple[Study, ...], asked: list[ServableModel]
    ) -> None:
        assert list(models_asked(RunConfig(mechanisms, studies), BOTH).values()) == asked


class TestAssembled:
    @pytest.mark.parametrize(
        ("judge_url", "mechanisms", "shares"),
        [
            (None, ("pretrained", "aligned"), [0.3, 0.3, 0.3]),
            ("http://127.0.0.1:9/v1", ("pretrained", "aligned"), [0.45, 0.45, 0.45]),
            (None, ("aligned",), [0.45, 0.45]),
        ],
    )
    async def test_engines_share_the_gpu_with_a_judge_that_runs_here(
        self,
        judge_url: str | None,
        mechanisms: tuple[str, ...],
        shares: list[float],
        world: World,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        given: list[float] = []

        async def engine(
            _stack: object, _model: object, _config: object, gpu_share: float, _say: object
        ) -> Engine:
            given.append(gpu_share)
            return Typist(lambda _: "Plain.")

        @asynccontextmanager
        async def open_engine(
            _choice: object, _say: object, gpu_share: float
        ) -> AsyncGenerator[Engine]:
            given.append(gpu_share)
            yield TalkingEngine(["[]"])

        monkeypatch.setattr(assembly, "_engine", engine)
        monkeypatch.setattr(assembly, "open_engine", open_engine)
        monkeypatch.setattr(assembly, "MiniLmEncoder", BagOfWords)
        config = RunConfig(mechanisms, SWEEP)
        judge = EngineChoice(judge_url, None, None, tmp_path)
        place = Place(tmp_path, completions=None, verdicts=None)

        async with assembled(config, BOTH, world, place, lambda line: None, judge) as bench:
            outcome = await bench.mechanisms["aligned"].answer(an_auction())

        assert outcome.reading.answer == "Plain."
        assert given == pytest.approx(shares)


class TestManifest:
    async def test_another_judge_behind_the_same_options_is_refused(
        self, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        served = iter([ModelIdentity("qwen", "r1"), ModelIdentity("llama", "r1")])

        async def identity(_choice: object, _say: object) -> ModelIdentity:
            return next(served)

        async def made_with() -> dict[str, Any]:
            choice = EngineChoice("http://127.0.0.1:9/v1", None, None, tmp_path)
            judge = await JudgeIdentity.of(choice, lambda line: None)
            return manifest(RunConfig(("aligned",)), BOTH, world, [], judge)

        monkeypatch.setattr(assembly, "identity", identity)
        first = await made_with()
        claim(tmp_path, first, "now")

        assert first["users"]["judge"] == {
            "name": "qwen",
            "revision": "r1",
            "is_remote": True,
            "prompt": PROMPT_NAME,
        }
        with pytest.raises(ManifestDiffers, match=r'judge.name was "qwen" and now is "llama"'):
            claim(tmp_path, await made_with(), "later")
