"""`llm-auction evaluate`: run mechanisms on the same auctions, and report what they are worth."""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from models.engine.environment import prepare_process
from models.progress import progress_bar

if TYPE_CHECKING:
    from models.evaluation.assembly import Place
    from models.evaluation.config import RunConfig
    from models.evaluation.plan import Task
    from models.evaluation.run import Bench
    from models.simulation.user_llm_engine import EngineChoice
    from models.simulation.world import World

app = typer.Typer(
    no_args_is_help=True,
    help="Compare mechanisms on simulated users: what they earn, and what a bid does.",
)
STUDIES = ("efficiency", "bid_response", "continuity", "order", "optimum")
NAMES = (
    *("pretrained", "aligned", "mosaic", "best-of-k", "generate-insert-rewrite"),
    *("segment-auction", "position-auction", "first-fitting", "no-ads", "aligned-no-ads"),
)
_OF_ALIGNED = ("aligned", "aligned-no-ads")
_QUICK_TOKENS, _TOKENS = 64, 512
_CONCURRENCY = 64
_OTHER_WORLD = (
    "Users are held out from training in their own world: some of another world's may be among "
    "those that the aligned model which ships was trained on."
)
err = Console(stderr=True, highlight=False)

Mechanisms = Annotated[
    list[str] | None,
    typer.Option("--mechanism", help=f"Repeat for more; without any, all of: {', '.join(NAMES)}."),
]
WorldDir = Annotated[
    Path | None,
    typer.Option("--world", help="A world of `llm-auction simulate build`; else the default one."),
]
Catalogue = Annotated[Path | None, typer.Option(help="Ads of the default world, as JSON lines.")]
Auctions = Annotated[int | None, typer.Option(min=2, help="Auctions that every mechanism answers.")]
Studies = Annotated[
    list[str] | None,
    typer.Option("--study", help=f"Repeat for more; without any, all of: {', '.join(STUDIES)}."),
]
SweepQueries = Annotated[
    int | None, typer.Option(min=1, help="Queries in which one ad's bid is swept.")
]
SweepRepeats = Annotated[
    int | None, typer.Option(min=1, help="Answers to each of these at each of 11 bids.")
]
CurveRepeats = Annotated[
    int | None,
    typer.Option(
        min=1, help="Answers at each bid of the fine sweep.", show_default="200; --quick: 5"
    ),
]
Candidates = Annotated[int, typer.Option(min=1, max=100, help="Ads in each auction.")]
Seed = Annotated[int, typer.Option(help="Another one draws other auctions, answers and clicks.")]
Model = Annotated[
    str | None, typer.Option(help="Unaligned model, name or directory; else the default.")
]
Aligned = Annotated[
    str | None, typer.Option(help="Aligned weights, name or directory, for the mechanisms aligned.")
]
MaxTokens = Annotated[int | None, typer.Option(min=8, help="The longest answer.")]
MaxAds = Annotated[int, typer.Option(min=1, max=10, help="The most ads in an answer.")]
Draws = Annotated[int, typer.Option(min=2, help="K of mosaic and best-of-k.")]
Tau = Annotated[float, typer.Option(min=0.001, help="Temperature of mosaic's choice.")]
Beta = Annotated[float, typer.Option(min=0.001, help="Weight of the KL term in the optimum.")]
LayoutName = Annotated[str, typer.Option("--layout", help="Of the prompt: inline or split.")]
Unconstrained = Annotated[
    bool, typer.Option("--unconstrained", help="Decode without the grammar, to count faults.")
]
Pctr = Annotated[
    bool,
    typer.Option("--pctr", help="List candidates by bid x estimated clicks, as callers may."),
]
JudgeUrl = Annotated[
    str | None,
    typer.Option(help="A vLLM server's address, whose model plays the users; else a click model."),
]
JudgeModel = Annotated[
    str | None, typer.Option(help="The judge's model; without --judge-url, it runs here.")
]
JudgeKey = Annotated[
    str | None, typer.Option(envvar="LLM_AUCTION_USER_LLM_KEY", help="The judge's API key.")
]
Out = Annotated[Path, typer.Option(help="Where outcomes and manifest go; an earlier run goes on.")]
StateDir = Annotated[Path, typer.Option(help="Where models and completions are kept.")]
Forget = Annotated[
    bool,
    typer.Option(
        "--no-cache", help="Take no completion or verdict of earlier runs, and keep none."
    ),
]
Quick = Annotated[bool, typer.Option("--quick", help="Small sizes: under 10 minutes on two cores.")]
RunDir = Annotated[
    Path, typer.Option("--run", help="What `evaluate run --out` wrote.", file_okay=False)
]


@app.command()
def run(
    ctx: typer.Context,
    mechanism: Mechanisms = None,
    study: Studies = None,
    world: WorldDir = None,
    catalogue: Catalogue = None,
    auctions: Auctions = None,
    sweep_queries: SweepQueries = None,
    sweep_repeats: SweepRepeats = None,
    curve_repeats: CurveRepeats = None,
    candidates: Candidates = 8,
    seed: Seed = 1,
    model: Model = None,
    aligned: Aligned = None,
    max_tokens: MaxTokens = None,
    max_ads: MaxAds = 3,
    draws: Draws = 20,
    tau: Tau = 10.0,
    beta: Beta = 10.0,
    layout: LayoutName = "inline",
    unconstrained: Unconstrained = False,
    pctr: Pctr = False,
    judge_url: JudgeUrl = None,
    judge_model: JudgeModel = None,
    judge_key: JudgeKey = None,
    out: Out = Path("state/evaluation"),
    state_dir: StateDir = Path("state"),
    no_cache: Forget = False,
    quick: Quick = False,
) -> None:
    """Answer the same auctions of held-out users with every mechanism, and write all down.

    Users are held out from training in the world that a model was aligned in: the default one, for
    the model that ships.

    An outcome a line in OUT/outcomes.jsonl, settings and versions in OUT/manifest.json. What was
    taken before a kill is not taken again; other settings in the same OUT are refused.

        llm-auction evaluate run --quick --out state/evaluation
        llm-auction evaluate report --run state/evaluation
    """
    from models.contract.prompt import Layout

    mechanisms, studies = _mechanisms(mechanism, aligned), _studies(study)
    if layout not in list(Layout):
        raise typer.BadParameter(f"is one of {', '.join(Layout)}", param_hint="--layout")
    prepare_process()
    from dataclasses import replace

    from models.engine.interface import Sampling
    from models.evaluation.assembly import Place
    from models.evaluation.config import QUICK, RunConfig, Sizes, Study
    from models.simulation.user_llm_engine import EngineChoice

    sizes = QUICK if quick else Sizes()
    sizes = replace(
        sizes,
        auctions=auctions or sizes.auctions,
        sweep_queries=sweep_queries or sizes.sweep_queries,
        sweep_repeats=sweep_repeats or sizes.sweep_repeats,
        curve_repeats=curve_repeats or sizes.curve_repeats,
    )
    tokens = max_tokens or (_QUICK_TOKENS if quick else _TOKENS)
    config = RunConfig(
        mechanisms=mechanisms,
        studies=tuple(map(Study, studies)),
        seed=seed,
        candidates=candidates,
        layout=Layout(layout),
        max_ads=max_ads,
        draws=draws,
        tau=tau,
        beta=beta,
        is_constrained=not unconstrained,
        has_pctr=pctr,
        sampling=Sampling(max_tokens=tokens),
        sizes=sizes,
    )
    place = Place(
        models=state_dir / "models",
        completions=None if no_cache else state_dir / "completions.sqlite",
        verdicts=None if no_cache else state_dir / "verdicts.sqlite",
    )
    judge = EngineChoice(judge_url, judge_model, judge_key, place.models)
    chosen = Chosen(config, model, aligned, judge if judge_url or judge_model else None)
    _run(chosen, _world(world, catalogue or ctx.obj), place, out)


@app.command()
def report(run: RunDir) -> None:
    """Write RUN/report.html, one page that needs nothing else, and RUN/report.md; print tables.

    The same run gives the same bytes.

        llm-auction evaluate report --run state/evaluation
    """
    from models.evaluation.record import RecordsDamaged
    from models.evaluation.report.page import NothingToReport, write_report

    try:
        html, markdown = write_report(run)
    except (NothingToReport, RecordsDamaged) as wrong:
        raise _ended(str(wrong)) from wrong
    typer.echo(markdown.read_text(encoding="utf-8"))
    err.print(f"[green]Written[/] {html} and {markdown}")


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the options say: settings, and the models by name."""

    config: "RunConfig"
    model: str | None
    aligned: str | None
    judge: "EngineChoice | None"


def _run(chosen: Chosen, world: "World", place: "Place", out: Path) -> None:
    """Hold the directory, provision, claim it, run."""
    from models.engine.interface import EngineError
    from models.evaluation.assembly import (
        JudgeIdentity,
        Weights,
        assembled,
        drawn_auctions,
        manifest,
    )
    from models.evaluation.manifest import ManifestDiffers, RunBusy, claim, held
    from models.evaluation.plan import plan
    from models.evaluation.record import RecordsDamaged
    from models.provision import ProvisionError
    from models.simulation.auctions import WorldTooSmall

    def say(line: str) -> None:
        err.print(f"[cyan]·[/] {line}")

    try:
        with held(out):
            name = chosen.model or _unaligned_model()
            weights = Weights.provision(name, chosen.aligned, place.models, say)
            auctions = drawn_auctions(world, chosen.config)
            judge = asyncio.run(JudgeIdentity.of(chosen.judge, say)) if chosen.judge else None
            made_with = manifest(chosen.config, weights, world, auctions, judge)
            claim(out, made_with, datetime.now(UTC).isoformat(timespec="seconds"))
            bench = assembled(chosen.config, weights, world, place, say, chosen.judge)
            asyncio.run(_take(bench, plan(chosen.config, auctions), out, err))
    except (
        RunBusy,
        ProvisionError,
        ManifestDiffers,
        RecordsDamaged,
        EngineError,
        WorldTooSmall,
    ) as wrong:
        raise _ended(str(wrong)) from wrong
    except ExceptionGroup as failed:
        raise _ended(f"{failed.exceptions[0]}; the same command goes on from here") from failed
    err.print(f"[green]Done.[/] llm-auction evaluate report --run {out}")


def _unaligned_model() -> str:
    """What the default model is, or would be, aligned from."""
    from models.engine.environment import has_cpu_vllm
    from models.provision import BASE_MODEL, DEFAULT_GPU_MODEL

    return BASE_MODEL if has_cpu_vllm() else DEFAULT_GPU_MODEL


async def _take(
    assembled: AbstractAsyncContextManager["Bench"],
    tasks: list["Task"],
    out: Path,
    console: Console,
) -> None:
    from models.evaluation.run import run as take_all
    from models.simulation.judge import Judge

    async with assembled as bench:
        with progress_bar("answers", len(tasks), console) as progress:
            await take_all(tasks, bench, out, progress, _CONCURRENCY)
        if isinstance(bench.users, Judge):
            console.print(
                f"{bench.users.unreadable} verdicts of the judge could not be read: "
                "ads in these answers count as not clicked."
            )


def _studies(given: list[str] | None) -> tuple[str, ...]:
    return _known(given or STUDIES, STUDIES, "--study")


def _mechanisms(given: list[str] | None, aligned: str | None) -> tuple[str, ...]:
    """The mechanisms to run, in the order of the report."""
    if not given:
        return tuple(name for name in NAMES if name not in _OF_ALIGNED or aligned)
    chosen = _known(given, NAMES, "--mechanism")
    needy = [name for name in chosen if name in _OF_ALIGNED]
    if needy and not aligned:
        raise typer.BadParameter(
            f"{needy[0]} needs its weights: --aligned DIR", param_hint="--mechanism"
        )
    return chosen


def _known(given: Sequence[str], known: Sequence[str], option: str) -> tuple[str, ...]:
    """What of `known` was given, in its order; anything else is refused."""
    for name in given:
        if name not in known:
            raise typer.BadParameter(f"{name} is none of {', '.join(known)}", param_hint=option)
    return tuple(name for name in known if name in given)


def _world(directory: Path | None, catalogue: Path | None) -> "World":
    from models.simulation.cli_tables import show_bad
    from models.simulation.outside import read_ads
    from models.simulation.saved_world import SavedWorldError, load_world
    from models.simulation.world import build_world

    try:
        if directory is not None:
            err.print(_OTHER_WORLD, soft_wrap=True)
            return load_world(directory)
        if catalogue is None:
            raise typer.BadParameter("is needed for the default world", param_hint="--catalogue")
        rows = read_ads(catalogue)
        show_bad(catalogue, rows.bad)
        return build_world(rows.good)
    except (SavedWorldError, OSError, ValueError) as wrong:
        raise _ended(str(wrong)) from wrong


def _ended(message: str) -> typer.Exit:
    err.print(f"[bold red]Ended:[/] {escape(message)}", soft_wrap=True)
    return typer.Exit(1)
