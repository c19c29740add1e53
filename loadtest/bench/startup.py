"""(e) Start and memory: from the command to the first answer, and what the processes then hold.

Memory is the proportional set size, which counts shared pages once, of each process of the
service after eight answers. The model is made servable before; its first preparation is apart.
"""

import time
from collections import defaultdict

import psutil
from rich.progress import Progress

from loadtest.bench.clients import open_session, together
from loadtest.bench.options import Options
from loadtest.bench.prompts import bids_of, own_ads
from loadtest.bench.results import Result, Table, spread
from loadtest.bench.servers import real_service, remote_service
from loadtest.own_service import OwnService, run_fake_vllm

_MIB = 1 << 20
_SHARED = "service"
Memory = dict[str, float]


async def measure(options: Options) -> Result:
    """Return seconds to readiness and MiB by process, with vLLM in process and elsewhere."""
    kinds = ("vLLM in process", "remote engine")
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    memory: dict[str, list[Memory]] = {kind: [] for kind in kinds}
    async with open_session() as session, run_fake_vllm(ads=1) as fake:
        with Progress(transient=True) as progress:
            task = progress.add_task("start", total=options.rounds * len(kinds))
            for _ in range(options.rounds):
                for kind in kinds:
                    begun = time.perf_counter()
                    starting = (
                        real_service(options, session, 10)
                        if kind == kinds[0]
                        else remote_service(fake, session, 10)
                    )
                    async with starting as service:
                        body = {"query": "Which boots?", "candidates": bids_of(own_ads(10)),
                                "max_tokens": 8}  # fmt: skip
                        await together(session, f"{service.url}/respond", [body], 1)
                        seconds[kind].append(time.perf_counter() - begun)
                        await together(session, f"{service.url}/respond", [body] * 8, 4)
                        memory[kind].append(memory_mib(service))
                    progress.advance(task)
    rows = []
    for kind in kinds:
        processes = memory[kind][0]
        cells = [spread([m[name] for m in memory[kind]], 0) for name in processes]
        held = ", ".join(f"{name} {cell}" for name, cell in zip(processes, cells, strict=True))
        rows.append([kind, spread(seconds[kind], 1), held])
    table = Table(["engine", "command to first answer, s", "memory, MiB"], rows)
    return Result("e", "Start and memory", options.command("e"),
                  __doc__.partition("\n\n")[2], [table])  # fmt: skip


def memory_mib(service: OwnService) -> Memory:
    """Proportional set size by process: the service itself, the engine's, Valkey's."""
    assert service.process is not None
    root = psutil.Process(service.process.pid)
    held: Memory = defaultdict(float)
    for process in (root, *root.children(recursive=True)):
        held[_role(process, root)] += process.memory_full_info().pss / _MIB
    return dict(held)


def _role(process: psutil.Process, root: psutil.Process) -> str:
    if process.pid == root.pid:
        return _SHARED
    command = " ".join(process.cmdline())
    return "Valkey" if "valkey" in command else "engine"
