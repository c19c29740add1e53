"""What each setting of the engine is worth on this machine: start, tokens per second, memory.

    python -m loadtest.engine_settings --rounds 2
    python -m loadtest.engine_settings --only default,float32,int8

Starts the service once a round with each variation of the defaults and asks it for answers of 64
tokens, 1, 16 and 32 at a time; the page of results has each as soon as it is known. torch.compile
compiles the model before the first. `int8` serves weights of 8 bits, with activations made so on
the way (W8A8, dynamic): a copy of the model that this program writes, whose answers differ; how
good they are is not measured here.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import Progress

from loadtest.bench.clients import open_session, together
from loadtest.bench.prompts import make_asks
from loadtest.bench.results import Bars, Result, Table, save, spread
from loadtest.bench.startup import memory_mib
from loadtest.bench.tokens import enter_ads
from loadtest.own_service import OwnService
from models.engine.environment import process_environment
from models.provision import DEFAULT_MODEL, provision

_CONCURRENCIES = (1, 16, 32)
_MAX_TOKENS = 64
_REQUESTS = {1: 3, 16: 32, 32: 64}
_PREPARED = {"_LLM_AUCTION_ENVIRONMENT_PREPARED": "1"}
"""Has the service take the environment as it is here."""


@dataclass(frozen=True, slots=True)
class Variation:
    """A change of the defaults. env: variables; None unsets one. without: a library that is not
    preloaded. args: of vLLM's engine."""

    env: Mapping[str, str | None] = field(default_factory=dict)
    without: str | None = None
    args: Mapping[str, Any] = field(default_factory=dict)
    is_int8: bool = False

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """The variables of the service's process."""
        changed = {**base, **_PREPARED, "LLM_AUCTION_ENGINE__ARGS": json.dumps(dict(self.args))}
        if self.without is not None:
            libraries = base.get("LD_PRELOAD", "").split(":")
            changed["LD_PRELOAD"] = ":".join(name for name in libraries if self.without not in name)
        changed |= {name: value for name, value in self.env.items() if value is not None}
        return {
            name: value for name, value in changed.items() if self.env.get(name, "") is not None
        }


VARIATIONS: dict[str, Variation] = {
    "default": Variation(),
    "without tcmalloc": Variation(without="tcmalloc"),
    "without Intel OpenMP": Variation(without="libiomp5"),
    "OMP_NUM_THREADS=1": Variation(env={"OMP_NUM_THREADS": "1"}),
    "KMP_BLOCKTIME=200": Variation(env={"KMP_BLOCKTIME": "200"}),
    "vLLM binds threads": Variation(env={"OMP_NUM_THREADS": None,
                                         "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}),
    "without huge pages": Variation(env={"THP_MEM_ALLOC_ENABLE": None}),
    "vLLM's top-k and top-p": Variation(args={"logits_processors": []}),
    "vLLM's norms": Variation(args={"ir_op_priority": {}}),
    "float32": Variation(args={"dtype": "float32"}),
    "int8": Variation(is_int8=True),
    "max_num_seqs=8": Variation(env={"LLM_AUCTION_ENGINE__MAX_NUM_SEQS": "8"}),
    "max_num_seqs=64": Variation(env={"LLM_AUCTION_ENGINE__MAX_NUM_SEQS": "64"}),
    "chunks of 512": Variation(args={"enable_chunked_prefill": True,
                                     "max_num_batched_tokens": 512}),
    "torch.compile": Variation(args={"enforce_eager": False}),
}  # fmt: skip


@dataclass(slots=True)
class Figures:
    """Of one variation, a value a round."""

    start_s: list[float] = field(default_factory=list)
    memory_mib: list[float] = field(default_factory=list)
    tokens_per_s: dict[int, list[float]] = field(
        default_factory=lambda: {n: [] for n in _CONCURRENCIES}
    )
    problem: str = ""


def write_int8(model: Path, target: Path) -> None:
    """A copy of `model` whose linear layers have weights of 8 bits, one scale an output channel.

    In the format of compressed-tensors; activations are made int8 by the engine, token by token.
    """
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(model, target, ignore=shutil.ignore_patterns("*.safetensors", "manifest.json"))
    tensors: dict[str, torch.Tensor] = {}
    for name, weight in load_file(model / "model.safetensors").items():
        if not name.endswith("_proj.weight"):
            tensors[name] = weight
            continue
        scale = weight.float().abs().amax(dim=1, keepdim=True).clamp(min=1e-8) / 127
        tensors[name] = (weight.float() / scale).round().clamp(-128, 127).to(torch.int8)
        tensors[f"{name}_scale"] = scale
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((target / "config.json").read_text())
    eight_bits = {"num_bits": 8, "type": "int", "symmetric": True}
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": {**eight_bits, "strategy": "channel", "dynamic": False},
                "input_activations": {**eight_bits, "strategy": "token", "dynamic": True},
            }
        },
    }
    (target / "config.json").write_text(json.dumps(config))


async def measure(
    session: aiohttp.ClientSession, variation: Variation, model: Path, figures: Figures, seed: int
) -> None:
    """Start the service once with the variation and add what it does."""
    base = {**process_environment(os.environ), "LLM_AUCTION_ENGINE__MODEL": str(model)}
    with tempfile.TemporaryDirectory(prefix="llm-auction-settings-") as directory:
        service = OwnService(Path(directory), None, **variation.environment(base))
        for name, value in variation.env.items():
            if value is None:
                service.environment.pop(name, None)
        begun = time.monotonic()
        try:
            async with service:
                figures.start_s.append(time.monotonic() - begun)
                await enter_ads(session, service.url, 200)
                rng = random.Random(seed)
                url = f"{service.url}/respond"
                for concurrency, rates in figures.tokens_per_s.items():
                    asks = make_asks(rng, _REQUESTS[concurrency], 10, _MAX_TOKENS)
                    bodies = [_without_seed(ours) for ours, _ in asks]
                    run = await together(session, url, bodies, concurrency)
                    rates.append(run.tokens_per_s)
                figures.memory_mib.append(sum(memory_mib(service).values()))
        except (RuntimeError, TimeoutError, aiohttp.ClientError) as error:
            figures.problem = (
                str(error).strip().splitlines()[-1][:120] if str(error) else "no start"
            )


def _without_seed(body: dict[str, Any]) -> dict[str, Any]:
    """vLLM dies on a CPU when it reads the prompt of a seeded request in several steps."""
    return {name: value for name, value in body.items() if name != "seed"}


async def run(options: argparse.Namespace) -> None:
    names = options.only.split(",") if options.only else list(VARIATIONS)
    model = options.model or Path(
        provision(DEFAULT_MODEL, options.state_dir / "models", Console().print).path
    )
    found = {name: Figures() for name in names}
    with tempfile.TemporaryDirectory(prefix="llm-auction-int8-") as directory:
        int8 = Path(directory) / f"{model.name}-int8"
        if any(VARIATIONS[name].is_int8 for name in names):
            write_int8(model, int8)
        async with open_session() as session:
            with Progress(transient=True) as progress:
                task = progress.add_task("settings", total=options.rounds * len(names))
                for number in range(options.rounds):
                    for name in names:
                        variation = VARIATIONS[name]
                        chosen = int8 if variation.is_int8 else model.absolute()
                        await measure(session, variation, chosen, found[name], number)
                        if options.save:
                            save(_result(options, found))
                        progress.advance(task)
    Console().print(Markdown(_result(options, found).markdown()))


def _result(options: argparse.Namespace, found: Mapping[str, Figures]) -> Result:
    """What is known so far; settings that were not tried yet are left out."""
    rows = []
    for name, figures in found.items():
        if not figures.problem and not figures.start_s:
            continue
        if figures.problem:
            rows.append([name, f"does not run: {figures.problem}", "", "", "", ""])
            continue
        rates = [spread(figures.tokens_per_s[n], 0) for n in _CONCURRENCIES]
        rows.append([name, spread(figures.start_s, 0), *rates, spread(figures.memory_mib, 0)])
    columns = ["setting", "start, s", *(f"tokens/s, {n} at once" for n in _CONCURRENCIES), "MiB"]
    ran = {name: f for name, f in found.items() if f.start_s and not f.problem}
    series = {
        f"{n} at once": [statistics.median(figures.tokens_per_s[n]) for figures in ran.values()]
        for n in _CONCURRENCIES
    }
    bars = Bars("settings", "Output tokens a second", "tokens/s", list(ran), series)
    command = f"python -m loadtest.engine_settings --rounds {options.rounds}"
    text = (__doc__ or "").rpartition("\n\n")[2].strip()
    return Result("settings", "Engine settings", command, text, [Table(columns, rows)], [bars])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", help=f"some of: {', '.join(VARIATIONS)}")
    parser.add_argument("--model", type=Path, help="a model directory; default: the one that ships")
    parser.add_argument("--state-dir", type=Path, default=Path("state"), help="keeps that model")
    parser.add_argument("--no-save", dest="save", action="store_false", help="only print")
    options = parser.parse_args()
    unknown = set((options.only or "default").split(",")) - set(VARIATIONS)
    if unknown:
        parser.error(f"--only {', '.join(unknown)}: allowed are {', '.join(VARIATIONS)}")
    asyncio.run(run(options))


if __name__ == "__main__":
    main()
