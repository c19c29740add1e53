"""Benchmarks of the service, a part at a time, into `loadtest/RESULTS.md`.

    python -m loadtest.bench                    # all parts: about an hour
    python -m loadtest.bench --part b,f --rounds 5
    python -m loadtest.bench --quick            # shows that they run; no figures to keep

    a  against vLLM's own server: tokens/s, time to first token, time per token
    b  the service's own ceiling, with a model that costs nothing
    c  one generation against 20 samples and 3 calls
    d  the prefix cache: candidate lists that recur or change, layouts inline and split
    e  start and memory
    f  CPU time per token in the API process

What is compared alternates within one run, so that a busy machine slows all of it alike; keep it
idle all the same.
"""

import argparse
import asyncio
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from loadtest.bench import against_vllm, calls, ceiling, prefix, startup, tokens
from loadtest.bench.options import Options
from loadtest.bench.results import PAGE, save
from models.engine.environment import has_cpu_vllm
from models.provision import DEFAULT_MODEL, provision

_PARTS = {
    "a": against_vllm.measure,
    "b": ceiling.measure,
    "c": calls.measure,
    "d": prefix.measure,
    "e": startup.measure,
    "f": tokens.measure,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--part", default=",".join(_PARTS), help="which, with commas between")
    parser.add_argument("--rounds", type=int, default=5, help="of alternation")
    parser.add_argument("--model", type=Path, help="a model directory; default: the one that ships")
    parser.add_argument("--state-dir", type=Path, default=Path("state"), help="keeps that model")
    parser.add_argument("--quick", action="store_true", help="tiny sizes; the page is left alone")
    given = parser.parse_args()
    parts = given.part.split(",")
    if unknown := [part for part in parts if part not in _PARTS]:
        parser.error(f"--part {','.join(unknown)}: allowed are {', '.join(_PARTS)}")
    if given.rounds < 1:
        parser.error(f"--rounds {given.rounds}: at least 1")
    console = Console()
    model = given.model
    if model is None:
        model = Path(provision(DEFAULT_MODEL, given.state_dir / "models", console.print).path)
    options = Options(model.absolute(), given.rounds, given.quick)
    for part in parts:
        result = asyncio.run(_PARTS[part](options))
        if not has_cpu_vllm():
            result = result.on_gpu()
        console.print(Markdown(result.markdown()))
        if not options.is_quick:
            save(result)
            console.print(f"written to {PAGE}")


if __name__ == "__main__":
    main()
