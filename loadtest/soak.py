"""A long run of chat traffic that looks for what grows: memory, descriptors, lag, the store.

    python -m loadtest.soak --minutes 30
    python -m loadtest.soak --minutes 30 --model DIR     # with the real model in process

Starts a service of its own and has visitors (see `traffic.py`) talk to it, some of whom hang up.
After a warm-up of a fifth of the time, the last third is compared with the first: memory may not
grow by more than 10 %, file descriptors by no more than 10, and the event loop must not come later
than before. The store grows with every answer, as receipts are kept; what must not grow is what
one answer takes. Exits with 1 where something grows or an answer is wrong; the plot and the
verdict go to `loadtest/RESULTS.md`.
"""

import argparse
import asyncio
import json
import random
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from redis.asyncio import Redis
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import Progress

from loadtest.ask import contract_breaks
from loadtest.bench.clients import open_session
from loadtest.bench.prompts import own_ads
from loadtest.bench.results import Lines, Result, Table, save
from loadtest.bench.startup import memory_mib
from loadtest.bench.tokens import enter_ads
from loadtest.own_service import OwnService, run_fake_vllm
from loadtest.traffic import GOOD_CLICKS, Click, Habits, Json, Visitor

_WARM_UP_SHARE = 0.2
_MEMORY_GROWTH, _STORE_GROWTH, _DESCRIPTORS_GROWTH = 1.10, 1.20, 10
_LAG_GROWTH, _LAG_FLOOR_MS = 2.0, 5.0
_LAG = re.compile(r"^llm_auction_loop_lag_seconds_(sum|count) (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Sample:
    """The service at one moment. at_s: since the start. lag_ms: the loop's mean since the last."""

    at_s: float
    memory_mib: float
    descriptors: int
    lag_ms: float
    store_mib: float
    answers: int


@dataclass(frozen=True, slots=True)
class Finding:
    """What a quantity was at first and at last, and how much of it was allowed."""

    name: str
    first: float
    last: float
    allowed: float

    @property
    def is_kept(self) -> bool:
        return self.last <= self.allowed

    def row(self) -> list[str]:
        """As a row of a table."""
        cells = [f"{value:,.2f}" for value in (self.first, self.last, self.allowed)]
        return [self.name, *cells, "yes" if self.is_kept else "**no**"]


def judge(samples: Sequence[Sample]) -> list[Finding]:
    """Compare the last third after the warm-up with the first; `samples` are in order."""
    seen = [s for s in samples if s.at_s >= samples[-1].at_s * _WARM_UP_SHARE]
    if len(seen) < 6:
        raise ValueError(f"{len(seen)} samples after the warm-up: at least 6 are needed")
    third = len(seen) // 3
    first, last = seen[:third], seen[-third:]

    def medians(name: str) -> tuple[float, float]:
        a, b = (statistics.median(getattr(s, name) for s in part) for part in (first, last))
        return a, b

    memory, descriptors, lag = map(medians, ("memory_mib", "descriptors", "lag_ms"))
    stored = _kib_an_answer(seen[: third + 1]), _kib_an_answer(seen[-third - 1 :])
    return [
        Finding("memory of the service, MiB", *memory, memory[0] * _MEMORY_GROWTH),
        Finding("file descriptors", *descriptors, descriptors[0] + _DESCRIPTORS_GROWTH),
        Finding("event loop's lag, ms", *lag, max(lag[0] * _LAG_GROWTH, _LAG_FLOOR_MS)),
        Finding("store, KiB an answer", *stored, stored[0] * _STORE_GROWTH),
    ]


def _kib_an_answer(samples: Sequence[Sample]) -> float:
    grown_mib = samples[-1].store_mib - samples[0].store_mib
    return grown_mib * 1024 / max(1, samples[-1].answers - samples[0].answers)


class Crowd:
    """Visitors at once, until they are cancelled, and what became of their requests."""

    def __init__(self, session: aiohttp.ClientSession, url: str, ads: list[Json]) -> None:
        self.counts: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self._session, self._url = session, url
        self._titles = {ad["ad_id"]: ad["title"] for ad in ads}
        self._tasks: set[asyncio.Task[None]] = set()

    def come(self, visitor: Visitor) -> None:
        """Let one more visitor in."""
        self._begin(self._visit(visitor))

    async def leave(self) -> None:
        """All go, and leave undone what they were about to do."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, what: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(what)
        self._tasks.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.wrong[f"{type(error).__name__}: {error}"] += 1

    async def _visit(self, visitor: Visitor) -> None:
        """Ask, read, click, think; again and again."""
        while True:
            asked = visitor.ask()
            try:
                answer = await self._answer(asked, asked["stream"] and visitor.hangs_up())
            except (aiohttp.ClientError, TimeoutError) as error:
                self.wrong[f"{type(error).__name__}"] += 1
                answer = None
            for click in visitor.read(asked, answer) if answer else ():
                self._begin(self._click(click))
            await asyncio.sleep(visitor.think_s())

    async def _answer(self, asked: Json, hangs_up: bool) -> Json | None:
        async with self._session.post(f"{self._url}/respond", json=asked) as response:
            if response.status != 200:
                self.wrong[f"status {response.status}"] += 1
                return None
            if hangs_up:
                await response.content.readany()
                response.close()
                self.counts["hung up"] += 1
                return None
            text = await response.text()
        _, done, last = text.rpartition("event: done\ndata: ")
        if asked["stream"] and not done:
            self.wrong["a stream that broke off"] += 1
            return None
        self.counts["answers"] += 1
        answer: Json = json.loads(last)
        self.wrong.update(set(contract_breaks(asked, answer, self._titles)))
        return answer

    async def _click(self, click: Click) -> None:
        await asyncio.sleep(click.after_s)
        body = {"token": click.token, "client_event_id": f"soak-{click.token[-40:]}"}
        try:
            async with self._session.post(f"{self._url}/v1/clicks", json=body) as response:
                state = (await response.json()).get("state", f"status {response.status}")
            (self.counts if state in GOOD_CLICKS else self.wrong)[f"clicks {state}"] += 1
        except (aiohttp.ClientError, TimeoutError) as error:
            self.wrong[f"a click: {type(error).__name__}"] += 1


class Watch:
    """Takes samples of a running service."""

    def __init__(self, service: OwnService, session: aiohttp.ClientSession, crowd: Crowd) -> None:
        assert service.process is not None
        self.samples: list[Sample] = []
        self._service, self._session, self._crowd = service, session, crowd
        self._process = psutil.Process(service.process.pid)
        self._begun = time.monotonic()
        self._lag = (0.0, 0.0)

    async def sample(self, redis: Any) -> None:
        """Add how things are now."""
        async with self._session.get(f"{self._service.url}/metrics") as response:
            lag = {name: float(value) for name, value in _LAG.findall(await response.text())}
        before, self._lag = self._lag, (lag["sum"], lag["count"])
        spent_s, times = self._lag[0] - before[0], self._lag[1] - before[1]
        used = (await redis.info("memory"))["used_memory"]
        self.samples.append(
            Sample(
                at_s=time.monotonic() - self._begun,
                memory_mib=memory_mib(self._service)["service"],
                descriptors=self._process.num_fds(),
                lag_ms=spent_s / max(1, times) * 1_000,
                store_mib=used / (1 << 20),
                answers=self._crowd.counts["answers"],
            )
        )


async def run(options: argparse.Namespace) -> int:
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="llm-auction-soak-"))
        session = await stack.enter_async_context(open_session())
        url = None if options.model else await stack.enter_async_context(run_fake_vllm(ads=1))
        variables = {"LLM_AUCTION_ENGINE__MODEL": options.model} if options.model else {}
        service = OwnService(Path(directory), url, **variables)
        await stack.enter_async_context(service)
        ads = own_ads(200)
        await enter_ads(session, service.url, len(ads))
        crowd = Crowd(session, service.url, ads)
        watch = Watch(service, session, crowd)
        redis = await stack.enter_async_context(Redis(unix_socket_path=str(service.valkey_socket)))
        rng, habits = random.Random(options.seed), Habits(think_s=options.think_s)
        for _ in range(options.visitors):
            crowd.come(Visitor(random.Random(rng.random()), ads, habits))
        await _watch(watch, redis, options)
        await crowd.leave()
    return _report(options, watch.samples, crowd)


async def _watch(watch: Watch, redis: Any, options: argparse.Namespace) -> None:
    """A sample every so often; one that comes late does not put off the next ones."""
    count = max(12, round(options.minutes * 60 / options.sample_s))
    every_s, begun = options.minutes * 60 / count, time.monotonic()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("soaking", total=count)
        for number in range(1, count + 1):
            await asyncio.sleep(begun + number * every_s - time.monotonic())
            await watch.sample(redis)
            progress.advance(task)


def _report(options: argparse.Namespace, samples: list[Sample], crowd: Crowd) -> int:
    findings = judge(samples)
    counts = ", ".join(f"{count:,} {what}" for what, count in sorted(crowd.counts.items()))
    text = (
        f"{options.minutes:g} minutes of {options.visitors} visitors: {counts}."
        f" Wrong: {dict(crowd.wrong) or 'nothing'}."
        " After the warm-up, medians of the first and of the last third."
    )
    curves: dict[str, list[float]] = {
        "memory of the service, MiB": [s.memory_mib for s in samples],
        "file descriptors": [s.descriptors for s in samples],
        "event loop's lag, ms": [s.lag_ms for s in samples],
        "store, MiB": [s.store_mib for s in samples],
    }
    engine = f" --model {Path(options.model).name}" if options.model else ""
    crowd_options = f"--visitors {options.visitors} --think-s {options.think_s:g}"
    command = f"python -m loadtest.soak --minutes {options.minutes:g} {crowd_options}{engine}"
    result = Result(
        "soak", "Soak", command, text,
        [Table(["quantity", "first", "last", "allowed", "kept"], [f.row() for f in findings])],
        [Lines("soak", "Soak", [s.at_s / 60 for s in samples], curves)],
    )  # fmt: skip
    Console().print(Markdown(result.markdown()))
    if options.save:
        save(result)
    return 0 if all(f.is_kept for f in findings) and not crowd.wrong else 1


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--visitors", type=int, default=20, help="at once")
    parser.add_argument("--think-s", type=float, default=1.0, help="median between two questions")
    parser.add_argument("--sample-s", type=float, default=5.0, help="seconds between two samples")
    parser.add_argument("--model", help="a model directory; default: a stand-in that costs nothing")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-save", dest="save", action="store_false", help="only print")
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
