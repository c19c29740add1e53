"""Takes a plan's answers, many at a time, and writes each down as soon as it is there."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from models.evaluation.config import Study
from models.evaluation.mechanism import Mechanism, Outcome
from models.evaluation.mechanisms.sampled import Sampler
from models.evaluation.native import natively
from models.evaluation.plan import DRAWS, Task
from models.evaluation.policy import Policy, outcome
from models.evaluation.record import Against, Record, plain_text, read_records, record, to_line
from models.simulation.auctions import fitting
from models.simulation.embeddings import Encoder
from models.simulation.nouns import Auction, Exposure, SimulatedUsers
from models.simulation.objective import Objective

OUTCOMES: Final = "outcomes.jsonl"
_DECIMALS = 6
_REFERENCE_DRAW = 1
"""Not the draw that no-ads shows, so that its similarity is the yardstick: sample to sample."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What every outcome is held against: the readers, the reward, and the ad-free answer."""

    mechanisms: Mapping[str, Mechanism]
    reference: Policy
    sampler: Sampler
    users: SimulatedUsers
    objective: Objective
    encoder: Encoder

    async def take(self, task: Task) -> Record:
        """Return what `task` comes to; raises what the engine and the users raise."""
        if task.mechanism == DRAWS:
            return await self._take_draws(task)
        made = await self.mechanisms[task.mechanism].answer(task.auction)
        (clicks,) = await self.users.clicks([Exposure(task.auction, made.reading)])
        reward = self.objective.reward(task.auction, made.reading, clicks)
        is_compared = task.study is Study.EFFICIENCY
        against = await self._against(task.auction, made) if is_compared else None
        return record(task, made, clicks, reward, against)

    async def _take_draws(self, task: Task) -> Record:
        scored = await self.sampler.draws(task.auction)
        first = scored[0]
        draws = [one.draw for one in scored]
        rewards = tuple(one.reward for one in scored)
        unsold = outcome(task.auction, first.draw.reading, (), draws)
        return record(task, unsold, (), first.reward, draw_rewards=rewards)

    async def _against(self, auction: Auction, made: Outcome) -> Against:
        reference = await self.reference.draw_without_ads(auction, _REFERENCE_DRAW)
        answer = reference.reading.answer
        vectors = await asyncio.to_thread(self.encoder.encode, [plain_text(made), answer])
        native = [Exposure(auction, natively(answer, ad)) for ad in fitting(auction)]
        clicks = [click for one in await self.users.clicks(native) for click in one]
        potentials = {click.ad_id: click.probability for click in clicks}
        # Rounded, so that the last bits of an embedding, which depend on its batch, do not show.
        return Against(round(float(vectors[0] @ vectors[1]), _DECIMALS), potentials)


async def run(
    tasks: Sequence[Task],
    bench: Bench,
    directory: Path,
    progress: Callable[[int], None],
    concurrency: int = 16,
) -> None:
    """Take the tasks whose records are not in `directory` yet, `concurrency` at a time.

    progress: told how many are done, first those of an earlier start. The first error ends the run;
    what was written stays, and another call goes on from there.
    """
    keys, lines = _begun(directory)
    left = iter([task for task in tasks if task.key not in keys])
    done = sum(task.key in keys for task in tasks)
    progress(done)
    with lines:

        async def work() -> None:
            nonlocal done
            for task in left:
                lines.write(to_line(await bench.take(task)))
                lines.flush()
                done += 1
                progress(done)

        async with asyncio.TaskGroup() as workers:
            for _ in range(concurrency):
                workers.create_task(work())


def _begun(directory: Path) -> tuple[set[str], BinaryIO]:
    """Return what is recorded already, and the file to append to; half a line at its end goes."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / OUTCOMES
    done, end = read_records(file)
    lines = file.open("ab")
    lines.truncate(end)
    return {one.key for one in done}, lines
