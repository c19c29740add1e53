"""A small run of planted mechanisms, written down as a real one is."""

from pathlib import Path

from market import BagOfWords, Planted, Readers, an_auction
from typist import Typist

from models.contract.prompt import Layout
from models.engine.interface import Sampling
from models.evaluation.config import RunConfig, Sizes
from models.evaluation.manifest import claim
from models.evaluation.mechanisms.no_ads import NoAds
from models.evaluation.mechanisms.sampled import Sampler
from models.evaluation.plan import auctions_needed, plan
from models.evaluation.policy import Policy
from models.evaluation.run import Bench, run
from models.simulation.completions import Completions, CompletionStore
from models.simulation.objective import Objective

SIZES = Sizes(
    auctions=6, sweep_queries=3, sweep_repeats=1, curve_repeats=2, curve_step=4, order_auctions=2
)


async def a_run(directory: Path, concurrency: int = 4) -> None:
    """Into `directory`."""
    config = RunConfig(("rising", "blind", "no-ads"), sizes=SIZES, draws=4)
    completions = Completions(Typist(lambda _: "A plain answer."), CompletionStore(None))
    policy = Policy(completions, Layout.INLINE, Sampling(), 3)
    mechanisms = {
        "rising": Planted("rising", lambda bid, _: bid / 110),
        "blind": Planted("blind", lambda *_: 0.4),
        "no-ads": NoAds(policy),
    }
    sampler = Sampler(policy, Readers(), Objective(), config.draws)
    bench = Bench(mechanisms, policy, sampler, Readers(), Objective(), BagOfWords())
    model = {"name": "<typist>", "revision": "1"}
    claim(directory, {"config": config.as_json(), "model": model}, begun_at="2026-01-01")
    auctions = [an_auction(number) for number in range(auctions_needed(SIZES))]
    await run(plan(config, auctions), bench, directory, lambda done: None, concurrency)
