"""The whole alignment, conducted: which model serves and which trains at each stage.

The command line over this is `cli`; the stages themselves are in `stages`.
"""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from rich.console import Console

from models.alignment import stages
from models.alignment.launch import is_first, processes
from models.alignment.pctr import PctrModel, Showing
from models.alignment.pctr_report import report
from models.alignment.preferences import Preference
from models.alignment.run import Run, RunError
from models.alignment.shipping import servable_policy
from models.contract.prompt import context_tokens
from models.engine.interface import Engine
from models.progress import progress_bar
from models.provision import provision
from models.simulation.cli_tables import show_bad
from models.simulation.click_model import ClickModel
from models.simulation.embeddings import MiniLmEncoder
from models.simulation.outside import read_ads
from models.simulation.world import World, build_world

console = Console(stderr=True, highlight=False)


class Pipeline:
    """The stages of one run, with what they share: the world, simulated users, the base model."""

    def __init__(self, run: Run, base: Path) -> None:
        self.run = run
        self._base = base
        self._world = _world_of(run)
        self._click_models: dict[int, PctrModel | None] = {}
        self._encoder = MiniLmEncoder()
        self._users = ClickModel(self._encoder)
        wanted = run.preset.auction.candidates
        if len(self._world.ads) < wanted:
            raise RunError(
                f"{run.catalogue} has {len(self._world.ads)} ads; an auction has {wanted} of them"
            )

    @classmethod
    def of(cls, run: Run, models_dir: Path) -> Self:
        """Make the base model servable in `models_dir`. Raises ProvisionError, and RunError for a
        catalogue that is too small or not fit for auctions."""
        return cls(run, Path(provision(run.preset.base, models_dir, console.print).path))

    def warm_start(self) -> None:
        if not self.run.preset.answers:
            console.print("This preset has no warm start")
            return
        self._require_one_process("warm-start")
        total = len(stages.questions_to_answer(self.run, self._world))
        with self._stage("answers without ads", total) as progress:
            asyncio.run(self._answer(progress))
        with self._stage("warm start", self.run.preset.warm_start.steps) as progress:
            stages.warm_start(self.run, self._world, str(self._base), self._tokenizer(), progress)

    def pctr(self, epoch: int) -> PctrModel | None:
        """The click model of `epoch`; the figures of its fit are kept and printed.

        None where clicks are too few to fit and assess one, and rewards do not need it; RunError
        where they do.
        """
        if epoch not in self._click_models:
            self._click_models[epoch] = self._fit_clicks(epoch)
        return self._click_models[epoch]

    def preferences(self, epoch: int) -> list[Preference]:
        """Winners and losers of `epoch`, whose answers are drawn and rewarded once."""
        if not self.run.scored(epoch).exists():
            self._require_one_process(f"sample --epoch {epoch}")
            total = self.run.preset.auctions * self.run.preset.sampling.per_auction
            model = self._click_model_of_rewards(epoch)
            with self._stage(f"epoch {epoch}: policy phase, samples", total) as progress:
                asyncio.run(self._policy_phase(model, epoch, progress))
        return stages.preferences(self.run, self._world, epoch)

    def dpo(self, epoch: int) -> None:
        """Train on the preferences of `epoch`; several processes can where TRL trains."""
        if self.is_online:
            raise RunError(f"The preset {self.run.preset.name} trains by `align grpo`")
        if self.run.preset.trl is None:
            self._require_one_process(f"dpo --epoch {epoch}")
        found = self.preferences(epoch)
        steps = -(-len(found) // self.run.preset.dpo.auctions_per_step)
        with self._stage(f"epoch {epoch}: policy phase, training", steps) as progress:
            base, policy = str(self._base), str(self._policy(epoch))
            stages.train_policy(self.run, found, base, policy, self._tokenizer(), epoch, progress)

    def grpo(self, epoch: int) -> None:
        """Train online; several processes can."""
        if not self.is_online:
            raise RunError(f"The preset {self.run.preset.name} trains by `align dpo`")
        model = self._click_model_of_rewards(epoch)
        with self._stage(f"epoch {epoch}: policy phase, online", self.run.preset.auctions):
            policy = str(self._policy(epoch))
            stages.train_online(
                self.run, self._world, self._users, model, policy, self._tokenizer(), epoch
            )

    @property
    def is_online(self) -> bool:
        return self.run.preset.trl is not None and self.run.preset.trl.is_online

    def servable(self) -> Path:
        """What the run has come to, as a model that can be served and measured."""
        return self._made(self.run.preset.epochs + 1, self.run.model)

    def _click_model_of_rewards(self, epoch: int) -> PctrModel | None:
        """None where rewards come from the simulated users themselves."""
        return self.pctr(epoch) if self.run.preset.has_learned_clicks else None

    def _fit_clicks(self, epoch: int) -> PctrModel | None:
        total = self.run.preset.auctions * self.run.preset.reward_samples
        with self._stage(f"epoch {epoch}: reward phase", total) as progress:
            showings = asyncio.run(self._reward_phase(epoch, progress))
        try:
            model, quality = stages.fit_pctr(showings, self._encoder, self.run)
        except ValueError as unfit:
            if self.run.preset.has_learned_clicks:
                raise RunError(f"No click model of epoch {epoch}: {unfit}") from unfit
            console.print(f"No click model of epoch {epoch}: {unfit}")
            return None
        if is_first():
            report(quality, self.run.epoch(epoch) / "pctr")
        console.print(
            f"pCTR on held-out users: AUC {quality.auc:.3f}, log-loss {quality.log_loss:.3f} "
            f"(always the mean: {quality.base_log_loss:.3f})"
        )
        return model

    @contextmanager
    def _stage(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        with progress_bar(name, total, console) as progress, self.run.timed(name):
            yield progress

    @asynccontextmanager
    async def _engine(self, path: Path) -> AsyncIterator[Engine]:
        from models.engine.vllm import VllmEngine, VllmOptions

        _free_gpu()
        preset = self.run.preset
        longest = max(preset.answer_tokens, preset.sampling.sampling.max_tokens)
        context = context_tokens(preset.auction.candidates, longest)
        options = VllmOptions(max_model_len=context, is_offline=True)
        model = provision(str(path), path.parent, console.print)
        engine = await VllmEngine.start(model, options=options, progress=console.print)
        try:
            yield engine
        finally:
            await engine.close()

    def _tokenizer(self) -> Any:
        return stages.servable_tokenizer(self._base)

    async def _answer(self, progress: Callable[[int], None]) -> None:
        def serve() -> AbstractAsyncContextManager[Engine]:
            return self._engine(self._base)

        await stages.answer_questions(self.run, self._world, serve, progress)

    async def _reward_phase(self, epoch: int, progress: Callable[[int], None]) -> list[Showing]:
        def serve() -> AbstractAsyncContextManager[Engine]:
            self._require_one_process(f"pctr --epoch {epoch}")
            return self._engine(self._policy(epoch))

        return await stages.reward_phase(self.run, self._world, self._users, serve, epoch, progress)

    async def _policy_phase(
        self, model: PctrModel | None, epoch: int, progress: Callable[[int], None]
    ) -> None:
        def serve() -> AbstractAsyncContextManager[Engine]:
            return self._engine(self._policy(epoch))

        await stages.policy_phase(self.run, self._world, self._users, model, serve, epoch, progress)

    def _require_one_process(self, command: str) -> None:
        """Raise RunError in one of several that train together: only TRL shares out its work."""
        if processes() > 1:
            raise RunError(
                "Several processes can only train. Run this first, without `accelerate launch`: "
                f"llm-auction align {command} --run {self.run.directory}"
                f" --preset {self.run.preset.name}"
            )

    def _policy(self, epoch: int) -> Path:
        """The servable policy that `epoch` samples from."""
        return self._made(epoch, self.run.epoch(epoch) / "policy")

    def _made(self, epoch: int, target: Path) -> Path:
        """What was trained before `epoch`, servable: at `target` where that has to be made."""
        trained = self.run.trained_before(epoch)
        if trained is None:
            return self._base
        if trained.name == "model":
            return trained
        # TRL trains a new adapter on each epoch's policy; without it, one adapter is trained on
        is_stacked = self.run.preset.trl is not None and epoch > 1
        target.parent.mkdir(parents=True, exist_ok=True)
        return servable_policy(
            self._policy(epoch - 1) if is_stacked else self._base, trained, target
        )


def _free_gpu() -> None:
    """Give back what an earlier stage trained in: vLLM takes nearly all of a GPU."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _world_of(run: Run) -> World:
    """The simulated world that the run's catalogue is sold in. Raises RunError."""
    rows = read_ads(run.catalogue)
    show_bad(run.catalogue, rows.bad)
    try:
        return build_world(rows.good, run.preset.world)
    except ValueError as error:
        raise RunError(f"{run.catalogue} is not fit for auctions: {error}") from error
