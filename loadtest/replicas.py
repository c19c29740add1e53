"""Replicas on a local Ray cluster: growth of throughput, the loss of one under load, scaling.

    make load && .venv/bin/pip install -c requirements/load.lock 'ray[serve]==2.60.0'
    .venv/bin/python -m loadtest.replicas                # a stand-in that answers in a second
    .venv/bin/python -m loadtest.replicas --model DIR    # two of the real model, one killed

The application and settings are those of `deploy/ray/serve.yaml`, but for what a single machine
cannot give. All replicas share the store of one more service, which answers nothing itself; after
the loss of a replica that store's ledger is verified. Exits with 1 where a request failed that no
lost replica was running, or the ledger is not sound; the tables go to `loadtest/RESULTS.md`.
"""

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx
import psutil
import yaml
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import Progress

from loadtest.bench.results import Lines, Result, Table, save
from loadtest.bench.tokens import PATIENT
from loadtest.own_service import OwnService, free_port, run_fake_vllm, run_server
from loadtest.steady import ASK, Tally, keep_busy

_ROOT = Path(__file__).parent.parent
_CONFIG = _ROOT / "deploy" / "ray" / "serve.yaml"
_REPLICA = "ray::ServeReplica"
"""How Ray names a replica's process."""

_START_S, _POLL_S = 300.0, 0.2
_GROWTH = (1, 2, 4)
_ANSWER_MS = 1_000
_AT_ONCE = 4
"""Answers that a replica of the stand-in runs at a time: bound by latency, not by this machine."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Loss:
    """A load during which a replica was killed. running: the most answers that it can have been
    running. back_after_s: until there were as many processes as before; with a model of its own a
    new one answers only some time after that."""

    tally: Tally
    running: int
    back_after_s: float
    is_sound: bool

    @property
    def is_kept(self) -> bool:
        """Whether nothing was lost but what the replica was running, with a clear answer."""
        clear = all(what.endswith("503 unavailable") for _, what in self.tally.failures)
        return self.is_sound and clear and len(self.tally.failures) <= self.running

    def row(self, name: str) -> list[str]:
        """As a row of a table."""
        told = Counter(what for _, what in self.tally.failures)
        return [
            name,
            f"{len(self.tally.seconds)}",
            ", ".join(f"{count} × {what}" for what, count in told.items()) or "0",
            f"{self.running}",
            f"{sum(self.tally.clicks.values())}",
            f"{self.back_after_s:.0f}",
            "sound" if self.is_sound else "NOT sound",
        ]


class Cluster:
    """A Ray cluster of this machine only. url: of its proxy."""

    def __init__(self, url: str, service: OwnService) -> None:
        self.url = url
        self._service = service

    @staticmethod
    def replicas() -> list[psutil.Process]:
        """The processes that run now."""
        found = []
        for process in psutil.process_iter(["name", "cmdline"]):
            title = " ".join(process.info["cmdline"] or ()) or process.info["name"] or ""
            if title.startswith(_REPLICA):
                found.append(process)
        return found

    async def until(self, count: int) -> None:
        """Wait until there are `count` processes and the proxy has answered for a while.

        Raises TimeoutError.
        """
        async with asyncio.timeout(_START_S), httpx.AsyncClient(timeout=_START_S) as client:
            answered = 0
            while answered < 10 * count:  # in a row, so that all of them are likely to be asked
                is_ready = len(self.replicas()) == count and await self._answers(client)
                answered = answered + 1 if is_ready else 0
                if not is_ready:
                    await asyncio.sleep(_POLL_S)

    async def _answers(self, client: httpx.AsyncClient) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return (await client.get(f"{self.url}/readyz")).status_code == httpx.codes.OK
        return False

    async def is_sound(self) -> bool:
        """Whether the ledger of the shared store verifies."""
        words = ("-m", "service.cli", "ledger", "verify", "--state-dir")
        process = await asyncio.create_subprocess_exec(
            sys.executable, *words, self._service.state_dir, stdout=asyncio.subprocess.DEVNULL
        )
        return await process.wait() == 0


@asynccontextmanager
async def run_cluster(
    service: OwnService, log: IO[bytes], deployment: Json, variables: Mapping[str, str]
) -> AsyncGenerator[Cluster]:
    """The application on Ray with the settings of `deployment`, and `service`'s store."""
    port = free_port()
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(configuration(service, port, deployment, variables), file)
        file.flush()
        env = {
            **os.environ,
            "PYTHONPATH": str(_ROOT),
            "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "deploy.ray.proxy:middlewares",
            "RAY_ADDRESS": "local",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        words = ("-m", "ray.serve.scripts", "run", file.name)
        async with run_server(words, port, env, log) as url:
            yield Cluster(url, service)


def configuration(
    service: OwnService, port: int, deployment: Json, variables: Mapping[str, str]
) -> Json:
    """The deployed configuration, on loopback at `port`, with the store of `service`.

    deployment: settings of Ray's deployment to change. variables: of the service's environment.
    """
    config: Json = yaml.safe_load(_CONFIG.read_text(encoding="utf-8"))
    config |= {"proxy_location": "HeadOnly", "http_options": {"host": "127.0.0.1", "port": port}}
    (application,) = config["applications"]
    application["runtime_env"]["env_vars"] = {
        "REDIS_URL": f"unix://{service.valkey_socket}",
        "LLM_AUCTION_STATE_DIR": str(service.state_dir),
        "LLM_AUCTION_LOG__LEVEL": "error",
        **PATIENT,
        **variables,
    }
    application["args"] = {"num_cpus": 0.1}
    (replica,) = application["deployments"]
    replica |= deployment
    if "num_replicas" in deployment:
        del replica["autoscaling_config"]
    return config


async def busy(cluster: Cluster, clients: int, seconds: float) -> tuple[Tally, float]:
    """What came of a steady load, and how long it took."""
    limits, begun = httpx.Limits(max_connections=clients), time.monotonic()
    async with httpx.AsyncClient(base_url=cluster.url, timeout=_START_S, limits=limits) as client:
        ask = ASK | {"max_tokens": 64}
        tally = await keep_busy(client, ask, clients, begun + seconds, click_share=0.5)
    return tally, time.monotonic() - begun


async def lose_one(cluster: Cluster, clients: int, running: int, seconds: float) -> Loss:
    """Kill one of two replicas, which runs up to `running` answers, a third into a steady load."""
    before = len(cluster.replicas())

    async def kill() -> float:
        await asyncio.sleep(seconds / 3)
        cluster.replicas()[0].kill()
        killed_at = time.monotonic()
        await cluster.until(before)
        return time.monotonic() - killed_at

    (tally, _), back_after_s = await asyncio.gather(busy(cluster, clients, seconds), kill())
    return Loss(tally, running, back_after_s, await cluster.is_sound())


async def watch(cluster: Cluster, begun: float, counts: list[tuple[float, int]]) -> None:
    """Note how many replicas there are, once a second, for ever."""
    while True:
        counts.append(((time.monotonic() - begun) / 60, len(cluster.replicas())))
        await asyncio.sleep(1.0)


async def stand_ins(service: OwnService, log: IO[bytes], scale_s: float) -> tuple[Result, bool]:
    """Throughput at 1, 2 and 4 replicas, the loss of one, and scaling, with a stand-in."""
    port = free_port()
    words = ("-m", "loadtest.fake_vllm", "--port", str(port), "--delay-ms", str(_ANSWER_MS))
    rates, losses, counts = dict[int, float](), list[Loss](), list[tuple[float, int]]()
    steady = list[Tally]()
    async with run_server(words, port) as fake:
        variables = {"LLM_AUCTION_ENGINE__KIND": "remote", "LLM_AUCTION_ENGINE__URL": fake}
        fixed = {"max_ongoing_requests": _AT_ONCE}
        for count in _GROWTH:
            chosen = fixed | {"num_replicas": count}
            async with run_cluster(service, log, chosen, variables) as cluster:
                await cluster.until(count)
                await busy(cluster, _AT_ONCE * count, 3)  # warms up
                tally, lasted_s = await busy(cluster, 2 * _AT_ONCE * count, 20)
                steady.append(tally)
                rates[count] = len(tally.seconds) / lasted_s
                if count == 2:
                    losses.append(await lose_one(cluster, 2 * _AT_ONCE, _AT_ONCE, 20))
        autoscaled = {
            "max_ongoing_requests": _AT_ONCE,
            "autoscaling_config": {
                "min_replicas": 1, "max_replicas": 4, "target_ongoing_requests": 2,
                "upscale_delay_s": 3, "downscale_delay_s": 10,
            },
        }  # fmt: skip
        async with run_cluster(service, log, autoscaled, variables) as cluster:
            await cluster.until(1)
            watching = asyncio.create_task(watch(cluster, time.monotonic(), counts))
            scaled, _ = await busy(cluster, 3 * _AT_ONCE, scale_s)
            await cluster.until(1)
            await asyncio.sleep(2.0)
            watching.cancel()
    is_kept = losses[0].is_kept and not any(tally.failures for tally in (*steady, scaled))
    return _about_stand_ins(rates, losses[0], scaled, counts), is_kept


def _about_stand_ins(
    rates: Mapping[int, float], loss: Loss, scaled: Tally, counts: list[tuple[float, int]]
) -> Result:
    one = rates[1]
    growth = Table(
        ("replicas", "answers/s", "÷ (replicas × one's)"),
        [[f"{n}", f"{rate:.2f}", f"{rate / (n * one):.2f}"] for n, rate in rates.items()],
    )
    scaling = Table(
        ("scaling under load and after it", "answers", "failed", "most replicas", "at the end"),
        [["1 to 4 allowed", f"{len(scaled.seconds)}", f"{len(scaled.failures)}",
          f"{max(count for _, count in counts)}", f"{counts[-1][1]}"]],
    )  # fmt: skip
    plot = Lines("replicas", "Scaling under load and after it",
                 [minute for minute, _ in counts],
                 {"replicas": [float(count) for _, count in counts]})  # fmt: skip
    text = (
        f"Each replica has the remote engine before a stand-in that takes {_ANSWER_MS} ms for an"
        f" answer, and runs {_AT_ONCE} at once, so that latency is what bounds it. One of two is"
        " killed (SIGKILL) under load, and half of the ads shown are clicked."
    )
    return Result("replicas", "Replicas on Ray, with a stand-in for the model",
                  "python -m loadtest.replicas", text,
                  [growth, _losses(loss, "stand-in"), scaling], [plot])  # fmt: skip


async def real_model(service: OwnService, log: IO[bytes], model: Path) -> tuple[Result, bool]:
    """Two replicas of the real model behind one address; one is killed under load."""
    variables = {"LLM_AUCTION_ENGINE__KIND": "vllm", "LLM_AUCTION_ENGINE__MODEL": str(model)}
    async with run_cluster(service, log, {"num_replicas": 2}, variables) as cluster:
        await cluster.until(2)
        loss = await lose_one(cluster, 8, 8, 60)
    text = (
        "Two replicas, each with vLLM and the model in a process of its own, on the same cores; one"
        " is killed (SIGKILL) under load, and half of the ads shown are clicked."
    )
    result = Result("replicas-real", "Replicas on Ray, with the real model",
                    "python -m loadtest.replicas --model DIR", text,
                    [_losses(loss, model.name)])  # fmt: skip
    return result, loss.is_kept


def _losses(loss: Loss, name: str) -> Table:
    columns = ("one of two killed", "answers", "failed requests", "it ran at most", "clicks",
               "s until a new process stood in its place", "ledger")  # fmt: skip
    return Table(columns, [loss.row(name)])


async def run(options: argparse.Namespace) -> int:
    """Start the store, then the clusters one after the other."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llm-auction-")))
        log = stack.enter_context((directory / "ray.log").open("ab"))
        stack.enter_context(Progress(transient=True)).add_task("replicas", total=None)
        fake = await stack.enter_async_context(run_fake_vllm(ads=1))
        service = OwnService(directory / "state", fake)
        service.state_dir.mkdir()
        await stack.enter_async_context(service)
        try:
            if options.model:
                result, is_kept = await real_model(service, log, options.model.resolve())
            else:
                result, is_kept = await stand_ins(service, log, options.scale_s)
        except BaseException:
            sys.stderr.buffer.write((directory / "ray.log").read_bytes()[-4_000:])
            raise
    Console().print(Markdown(result.markdown()))
    if options.save:
        save(result)
    return 0 if is_kept else 1


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="a model directory, as the service keeps them")
    parser.add_argument("--scale-s", type=float, default=40, help="seconds of load while scaling")
    parser.add_argument("--no-save", dest="save", action="store_false", help="only print")
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
