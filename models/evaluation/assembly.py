"""Puts a run together: world, auctions, engines, readers, mechanisms. The only file here that
starts engines."""

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models.contract.prompt import CONTRACT_VERSION, context_tokens
from models.engine.interface import Engine
from models.evaluation.callers_pctr import CallersPctr, fit_callers_pctr
from models.evaluation.config import RunConfig, Study
from models.evaluation.manifest import versions
from models.evaluation.mechanisms.catalogue import ALIGNED, MECHANISMS, OF_ALIGNED, Parts
from models.evaluation.mechanisms.sampled import Sampler
from models.evaluation.plan import auctions_needed
from models.evaluation.policy import Policy
from models.evaluation.relevance import EmbeddingRelevance
from models.evaluation.run import Bench
from models.provision import ServableModel, provision
from models.simulation.asking import UserLlm
from models.simulation.auctions import AuctionOptions, draw_auctions
from models.simulation.click_model import ClickModel
from models.simulation.click_parameters import ClickParameters
from models.simulation.completions import Completions, CompletionStore
from models.simulation.embeddings import MiniLmEncoder
from models.simulation.judge import PROMPT_NAME, Judge
from models.simulation.nouns import Auction, SimulatedUsers, Split
from models.simulation.user_llm_engine import EngineChoice, identity, open_engine
from models.simulation.world import World

_GPU_SHARE = 0.9
_UNALIGNED = "unaligned"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Place:
    """Where things are kept. models: servable weights. completions, and a judge's verdicts: None
    for no memory."""

    models: Path
    completions: Path | None
    verdicts: Path | None


@dataclass(frozen=True, slots=True)
class Weights:
    """Which models answer: names or directories; aligned: None where that mechanism is not run."""

    model: ServableModel
    aligned: ServableModel | None

    @classmethod
    def provision(cls, model: str, aligned: str | None, folder: Path, say: Say) -> "Weights":
        """Raises ProvisionError."""
        return cls(
            provision(model, folder, say), provision(aligned, folder, say) if aligned else None
        )


@dataclass(frozen=True, slots=True)
class JudgeIdentity:
    """Which model plays the users, where it runs, and by which prompt. revision: as an engine
    tells it (`ModelIdentity`)."""

    name: str
    revision: str
    is_remote: bool
    prompt: str = PROMPT_NAME

    @classmethod
    async def of(cls, judge: EngineChoice, say: Say) -> "JudgeIdentity":
        """Raises EngineError, ProvisionError."""
        model = await identity(judge, say)
        return cls(model.name, model.revision, judge.is_remote)


def drawn_auctions(world: World, config: RunConfig) -> list[Auction]:
    """Return the run's auctions, of users that no model was trained on in this world."""
    options = AuctionOptions(candidates=config.candidates)
    count = auctions_needed(config.sizes)
    return draw_auctions(world, Split.TEST, count, config.seed, options)


def manifest(
    config: RunConfig,
    weights: Weights,
    world: World,
    auctions: Sequence[Auction],
    judge: JudgeIdentity | None = None,
) -> dict[str, Any]:
    """Return all that the run's results follow from."""
    clicking = {"judge": asdict(judge)} if judge else {"click_model": asdict(ClickParameters())}
    return {
        "config": config.as_json(),
        "contract": CONTRACT_VERSION,
        "model": _identity(weights.model),
        "aligned": _identity(weights.aligned) if weights.aligned else None,
        "is_fit_known": world.is_fit_known,
        "auctions_sha256": _sha256([asdict(auction) for auction in auctions]),
        "users": clicking,
        "versions": versions(),
    }


@asynccontextmanager
async def assembled(
    config: RunConfig,
    weights: Weights,
    world: World,
    place: Place,
    say: Say,
    judge: EngineChoice | None = None,
) -> AsyncGenerator[Bench]:
    """Start what the run needs, and end it afterwards. Raises EngineError, ProvisionError.

    judge: the model that plays the users; None for the click model. A caller's own click model
    (`RunConfig.has_pctr`) is fitted to the clicks of the click model, whoever plays the users.
    """
    async with AsyncExitStack() as stack:
        store = CompletionStore(place.completions)
        stack.callback(store.close)
        say("loading the sentence embeddings")
        encoder = MiniLmEncoder()
        users: SimulatedUsers = ClickModel(encoder)
        pctr = None
        if config.has_pctr:
            options = AuctionOptions(candidates=config.candidates)
            clicks = ClickModel(encoder)
            pctr = await asyncio.to_thread(fit_callers_pctr, world, clicks, encoder, options)
        answering = models_asked(config, weights)
        is_judge_here = judge is not None and not judge.is_remote
        gpu_share = _GPU_SHARE / (len(answering) + is_judge_here)
        policies = {
            name: _policy(config, await _engine(stack, model, config, gpu_share, say), store, pctr)
            for name, model in answering.items()
        }
        aligned = policies.get(ALIGNED)
        # One that is never asked stands in for the unaligned model's where that is not needed.
        policy = policies.get(_UNALIGNED) or policies[ALIGNED]
        if judge is not None:
            engine = await stack.enter_async_context(open_engine(judge, say, gpu_share))
            verdicts = CompletionStore(place.verdicts)
            stack.callback(verdicts.close)
            users = Judge(UserLlm(engine, verdicts))
        sampler = Sampler(policy, users, config.objective, config.draws)
        parts = Parts(policy, sampler, EmbeddingRelevance(encoder), aligned, config.tau)
        mechanisms = {name: MECHANISMS[name](parts) for name in config.mechanisms}
        yield Bench(mechanisms, policy, sampler, users, config.objective, encoder)


def models_asked(config: RunConfig, weights: Weights) -> dict[str, ServableModel]:
    """Return the models that answer in this run. The unaligned one is what every mechanism but
    OF_ALIGNED asks, and gives Study.EFFICIENCY its ad-free answers and Study.OPTIMUM its draws."""
    others = set(config.mechanisms) - OF_ALIGNED
    asked = {}
    if others or not {Study.EFFICIENCY, Study.OPTIMUM}.isdisjoint(config.studies):
        asked[_UNALIGNED] = weights.model
    if weights.aligned is not None and not OF_ALIGNED.isdisjoint(config.mechanisms):
        asked[ALIGNED] = weights.aligned
    return asked


async def _engine(
    stack: AsyncExitStack, model: ServableModel, config: RunConfig, gpu_share: float, say: Say
) -> Engine:
    from models.engine.vllm import VllmEngine, VllmOptions

    options = VllmOptions(
        max_model_len=context_tokens(config.candidates, config.sampling.max_tokens),
        gpu_memory_utilization=gpu_share,
        is_offline=True,
    )
    engine = await VllmEngine.start(model, options=options, progress=say)
    stack.push_async_callback(engine.close)
    return engine


def _policy(
    config: RunConfig, engine: Engine, store: CompletionStore, pctr: CallersPctr | None
) -> Policy:
    return Policy(
        Completions(engine, store),
        config.layout,
        config.sampling,
        config.max_ads,
        config.is_constrained,
        pctr,
    )


def _identity(model: ServableModel) -> dict[str, str]:
    return {"name": model.name, "revision": model.revision}


def _sha256(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
