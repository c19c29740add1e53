"""`POST /respond` against vLLM's own OpenAI server: output tokens per second, side by side.

    python -m loadtest.against_vllm --model DIR --concurrency 8 --rounds 6

Starts both on loopback with the same model and engine settings, asks both the same prompts with
the same sampling, and alternates between them, so that a busy machine slows both. The service
decodes under its grammar; vLLM's server is unconstrained. Prompts come from the prompt contract,
the one thing imported here: two servers can only be compared on the same words.
"""

import argparse
import asyncio
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from loadtest.ask import QUERIES, catalogue
from models.contract.prompt import Candidate, Layout, Prompt, build_prompt
from models.engine.environment import process_environment

Json = dict[str, Any]
SAMPLING = {"temperature": 0.7, "top_p": 0.8, "top_k": 20}


@contextmanager
def process(command: list[str], ready: str) -> Iterator[str]:
    """A child process; yields the first group of `ready` once its output matches that."""
    environment = {**os.environ, "COLUMNS": "500"}
    with tempfile.NamedTemporaryFile("w+", suffix=".log") as log:
        child = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            until = monotonic() + 300
            while not (match := re.search(ready, Path(log.name).read_text())):
                if child.poll() is not None or monotonic() > until:
                    raise SystemExit(Path(log.name).read_text())
                asyncio.run(asyncio.sleep(0.2))
            yield match[1]
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait()


def service_command(options: argparse.Namespace, state_dir: str) -> list[str]:
    return [
        sys.executable, "-m", "service.cli", "serve",
        "--port", "0", "--state-dir", state_dir, "--model", options.model,
    ]  # fmt: skip


def vllm_command(options: argparse.Namespace, port: int) -> list[str]:
    return [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server",
        "--model", options.model, "--served-model-name", "model", "--port", str(port),
        "--host", "127.0.0.1", "--enforce-eager", "--max-model-len", "8192",
        "--max-num-seqs", "32", "--kv-cache-memory-bytes", str(2 << 30),
        "--disable-uvicorn-access-log",
    ]  # fmt: skip


def make_asks(ads: list[Json], options: argparse.Namespace) -> list[tuple[Json, Json]]:
    """Pairs of the same question for the service and for vLLM's server."""
    rng = random.Random(options.seed)
    pairs = []
    for number in range(options.requests):
        query = f"{QUERIES[number % len(QUERIES)]} (visitor {rng.randrange(10**6)})"
        chosen = [(ad, rng.randint(1, 100)) for ad in rng.sample(ads, options.candidates)]
        seed = rng.randrange(1 << 31)
        common = {**SAMPLING, "max_tokens": options.max_tokens, "seed": seed}
        candidates = [
            Candidate(ad["ad_id"], ad["title"], ad["category"], ad["description"], Decimal(bid))
            for ad, bid in chosen
        ]
        prompt = build_prompt(Layout.INLINE, candidates, query, (), None)
        bids = [{"ad_id": ad["ad_id"], "bid": bid} for ad, bid in chosen]
        pairs.append(
            (
                {**common, "query": query, "candidates": bids},
                {**common, "model": "model", "messages": messages(prompt)},
            )
        )
    return pairs


def messages(prompt: Prompt) -> list[Json]:
    return [
        {"role": m.role, "content": "".join(piece.text for piece in m.pieces)}
        for m in prompt.messages
    ]


async def tokens_per_second(url: str, path: str, asks: list[Json], concurrency: int) -> float:
    """Output tokens per second over all `asks`, `concurrency` at a time."""
    slots = asyncio.Semaphore(concurrency)
    async with httpx.AsyncClient(base_url=url, timeout=600) as client:

        async def send(ask: Json) -> int:
            async with slots:
                response = await client.post(path, json=ask)
            response.raise_for_status()
            return int(response.json()["usage"]["completion_tokens"])

        begun = monotonic()
        written = await asyncio.gather(*map(send, asks))
        return sum(written) / (monotonic() - begun)


async def compare(service: str, vllm: str, options: argparse.Namespace) -> None:
    console = Console()
    async with httpx.AsyncClient(base_url=service, timeout=60) as client:
        ads = await catalogue(client)
    table = Table("round", "service tok/s", "vLLM tok/s", "ratio")
    ratios = []
    for number in range(options.rounds + 1):
        options.seed += 1
        ours, theirs = zip(*make_asks(ads, options), strict=True)
        runs = [("ours", service, "/respond", list(ours)),
                ("theirs", vllm, "/v1/chat/completions", list(theirs))]  # fmt: skip
        if number % 2:
            runs.reverse()
        rates = {
            name: await tokens_per_second(url, path, asks, options.concurrency)
            for name, url, path, asks in runs
        }
        if number == 0:
            continue  # warms both up
        ratios.append(rates["ours"] / rates["theirs"])
        table.add_row(
            str(number), f"{rates['ours']:.1f}", f"{rates['theirs']:.1f}", f"{ratios[-1]:.3f}"
        )
    console.print(table)
    spread = statistics.stdev(ratios) if len(ratios) > 1 else 0.0
    console.print(
        f"median ratio {statistics.median(ratios):.3f} (mean {statistics.mean(ratios):.3f},"
        f" standard deviation {spread:.3f}) at concurrency {options.concurrency},"
        f" {options.candidates} candidates, up to {options.max_tokens} tokens"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a model directory")
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--candidates", type=int, default=10)
    parser.add_argument("--requests", type=int, default=24, help="per round and server")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--vllm-port", type=int, default=8123)
    options = parser.parse_args()
    os.environ.update(process_environment(os.environ))
    with ExitStack() as stack:
        state_dir = stack.enter_context(tempfile.TemporaryDirectory())
        service = stack.enter_context(
            process(service_command(options, state_dir), r"Ready after .* on (http://\S+)")
        )
        stack.enter_context(
            process(vllm_command(options, options.vllm_port), r"(Application startup complete)")
        )
        asyncio.run(compare(service, f"http://127.0.0.1:{options.vllm_port}", options))


if __name__ == "__main__":
    main()
