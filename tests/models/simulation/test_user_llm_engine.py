"""A model in this process as User-LLM; a real one is small and foolish, but held to the form."""

from collections.abc import Callable
from pathlib import Path

import pytest
from talking import TalkingEngine

from models.engine.vllm import VllmEngine, VllmOptions
from models.provision import ServableModel
from models.simulation import user_llm_engine
from models.simulation.asking import UserLlm
from models.simulation.completions import CompletionStore
from models.simulation.judge import Judge
from models.simulation.nouns import Ad, Exposure
from models.simulation.user_llm import build_llm_world
from models.simulation.user_llm_engine import EngineChoice, identity, open_engine
from models.simulation.world import WorldOptions


async def test_one_that_runs_here_takes_its_share_of_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[VllmOptions] = []

    async def start(_model: object, *, options: VllmOptions, progress: object) -> TalkingEngine:
        given.append(options)
        return TalkingEngine(["7"])

    monkeypatch.setattr(VllmEngine, "start", start)
    choice = EngineChoice(None, str(tmp_path), None, tmp_path)
    monkeypatch.setattr(user_llm_engine, "_provisioned", lambda choice, progress: None)

    async with open_engine(choice, print, gpu_share=0.3):
        pass

    assert [options.gpu_memory_utilization for options in given] == [0.3]


async def test_which_model_it_is_is_known_before_it_runs(
    servable_model: ServableModel, tmp_path: Path
) -> None:
    choice = EngineChoice(None, servable_model.path, None, tmp_path)

    found = await identity(choice, print)

    assert servable_model.name in found.name
    assert found.revision


async def test_it_asks_and_judges_in_the_form_that_the_grammar_enforces(
    servable_model: ServableModel,
    ads: tuple[Ad, ...],
    expose: Callable[..., Exposure],
    tmp_path: Path,
) -> None:
    choice = EngineChoice(None, servable_model.path, None, tmp_path)
    answer = "A desk like {Ad-2593} moves with you. So does the kit {Ad-2463}, they say."
    exposures = [expose(answer, seed=seed) for seed in range(2)]

    async with open_engine(choice, print) as engine:
        assert isinstance(engine, VllmEngine)
        llm = UserLlm(engine, CompletionStore(tmp_path / "llm.sqlite"))
        built = await build_llm_world(ads, llm, WorldOptions(users=1, queries_per_user=2))
        judge = Judge(llm)
        clicks = await judge.clicks(exposures)
        again = await Judge(llm).clicks(exposures)

    assert len(built.world.queries) == 2
    assert judge.unreadable == 0
    assert [[click.ad_id for click in row] for row in clicks] == [["Ad-2593", "Ad-2463"]] * 2
    assert clicks == again
