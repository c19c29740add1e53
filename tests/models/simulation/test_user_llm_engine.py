"""A real model in this process as User-LLM: small and foolish, but held to the form."""

from collections.abc import Callable
from pathlib import Path

from models.engine.vllm import VllmEngine
from models.provision import ServableModel
from models.simulation.asking import UserLlm
from models.simulation.completions import CompletionStore
from models.simulation.judge import Judge
from models.simulation.nouns import Ad, Exposure
from models.simulation.user_llm import build_llm_world
from models.simulation.user_llm_engine import EngineChoice, open_engine
from models.simulation.world import WorldOptions


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
