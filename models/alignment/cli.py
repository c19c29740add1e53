"""`llm-auction align`: from a pretrained model to one that runs the auction.

Everything heavy is imported by the commands that need it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from models.engine.environment import prepare_process

if TYPE_CHECKING:
    from models.alignment.pipeline import Pipeline
    from models.alignment.run import Run

app = typer.Typer(
    no_args_is_help=True,
    help="Align a model: teach it to run the auction. Every stage goes on where it was stopped.",
)
console = Console(stderr=True, highlight=False)

RunDir = Annotated[Path, typer.Option("--run", help="Where everything is kept.", file_okay=False)]
PresetName = Annotated[
    str,
    typer.Option(
        "--preset",
        help="small: two CPU cores, hours. refine: on from the adapter that ships. "
        "paper: a 4B model on GPUs.",
    ),
]
Catalogue = Annotated[
    Path | None, typer.Option(help="Ads as JSON lines; else the demo catalogue.", dir_okay=False)
]
StateDir = Annotated[Path, typer.Option(help="Where servable models are kept.")]
Epoch = Annotated[int, typer.Option(min=1, help="Which epoch, from 1.")]


@app.command("all")
def align_all(
    ctx: typer.Context,
    run_dir: RunDir = Path("state/alignment"),
    preset: PresetName = "small",
    catalogue: Catalogue = None,
    state_dir: StateDir = Path("state"),
) -> None:
    """All stages: warm start, then every epoch's reward and policy phase.

    llm-auction align all --run state/alignment --preset small
    """
    with _pipeline(run_dir, preset, catalogue or ctx.obj, state_dir) as pipeline:
        epochs = pipeline.run.preset.epochs
        pipeline.warm_start()
        for epoch in range(1, epochs + 1):
            pipeline.pctr(epoch)
            pipeline.dpo(epoch)
        model = pipeline.servable()
    measured = run_dir / "evaluation"
    console.print(
        f"[green]Done:[/] {model}\n"
        f"Measure it: llm-auction evaluate run --quick --aligned {model} --out {measured}\n"
        f"            llm-auction evaluate report --run {measured}\n"
        f"Its card:   llm-auction align card --run {run_dir} --epochs {epochs}"
        f" --evaluation {measured}",
        soft_wrap=True,  # commands are to be pasted
    )


@app.command()
def warm_start(
    ctx: typer.Context,
    run_dir: RunDir = Path("state/alignment"),
    preset: PresetName = "small",
    catalogue: Catalogue = None,
    state_dir: StateDir = Path("state"),
) -> None:
    """Teach the marker and the choice on the base model's own answers with ads woven in."""
    with _pipeline(run_dir, preset, catalogue or ctx.obj, state_dir) as pipeline:
        pipeline.warm_start()


@app.command()
def pctr(
    ctx: typer.Context,
    run_dir: RunDir = Path("state/alignment"),
    preset: PresetName = "small",
    epoch: Epoch = 1,
    catalogue: Catalogue = None,
    state_dir: StateDir = Path("state"),
) -> None:
    """An epoch's reward phase: sample answers, simulate clicks, fit and assess the click model."""
    with _pipeline(run_dir, preset, catalogue or ctx.obj, state_dir) as pipeline:
        pipeline.pctr(epoch)


@app.command()
def sample(
    ctx: typer.Context,
    run_dir: RunDir = Path("state/alignment"),
    preset: PresetName = "small",
    epoch: Epoch = 1,
    catalogue: Catalogue = None,
    state_dir: StateDir = Path("state"),
) -> None:
    """Draw an epoch's answers for the policy phase, constrained as the service constrains them."""
    with _pipeline(run_dir, preset, catalogue or ctx.obj, state_dir) as pipeline:
        found = pipeline.preferences(epoch)
    console.print(f"{len(found)} auctions with a winner and losers")


@app.command()
def dpo(
    ctx: typer.Context,
    run_dir: RunDir = Path("state/alignment"),
    preset: PresetName = "small",
    epoch: Epoch = 1,
    catalogue: Catalogue = None,
    state_dir: StateDir = Path("state"),
) -> None:
    """An epoch's policy phase: learn winners from losers."""
    with _pipeline(run_dir, preset, catalogue or ctx.obj, state_dir) as pipeline:
        pipeline.dpo(epoch)


@app.command()
def ship(
    ctx: typer.Context,
    target: Annotated[Path, typer.Argument(help="Directory for adapter, config and manifest.")],
    run_dir: RunDir = Path("state/alignment"),
    preset: PresetName = "small",
    epochs: Annotated[int, typer.Option(min=0, help="After how many epochs; 0: warm start.")] = 0,
    catalogue: Catalogue = None,
) -> None:
    """Write a trained adapter as one that ships: bfloat16, with a manifest of hashes.

    llm-auction align ship models/weights/SmolLM2-135M-Instruct-auction --run state/alignment
    """
    from models.alignment.run import RunError
    from models.alignment.shipping import Aligned
    from models.alignment.shipping import ship as write

    run = _run(run_dir, preset, catalogue or ctx.obj)
    try:
        adapter = run.adapter_before(epochs + 1)
    except RunError as error:
        raise typer.BadParameter(str(error), param_hint="--run") from error
    if adapter is None:
        raise typer.BadParameter(f"{run_dir} has no adapter after {epochs} epochs")
    layout = run.preset.warm_start.examples.layout
    write(adapter, target, Aligned(run.preset.base, layout, f"{preset}, {epochs} epochs"))
    console.print(
        f"[green]{target}[/] is ready to ship; `llm-auction align card` writes its MODEL_CARD.md"
    )


@app.command()
def card(
    ctx: typer.Context,
    run_dir: RunDir = Path("state/alignment"),
    preset: PresetName = "small",
    epochs: Annotated[int, typer.Option(min=0, help="After how many epochs; 0: warm start.")] = 0,
    evaluation: Annotated[
        Path | None,
        typer.Option(help="What `evaluate run --out` has written of it.", file_okay=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where to write it; else it is printed.", dir_okay=False)
    ] = None,
    catalogue: Catalogue = None,
) -> None:
    """Write the model card of a run: data, recipe, hours, and the figures of an evaluation.

    llm-auction align card --run state/alignment --evaluation state/evaluation --out MODEL_CARD.md
    """
    from models.alignment.card import write_card

    run = _run(run_dir, preset, catalogue or ctx.obj)
    try:
        text = write_card(run, epochs, evaluation)
    except FileNotFoundError as missing:
        raise typer.BadParameter(
            f"{missing.filename} is missing: `llm-auction evaluate report --run {evaluation}`"
            " writes the report of an evaluation",
            param_hint="--evaluation",
        ) from missing
    if out is None:
        print(text)
    else:
        out.write_text(text)
        console.print(f"[green]{out}[/] is written; say in it what you know beyond the figures")


def _preset(name: str) -> Any:
    from models.alignment.presets import PRESETS

    if name not in PRESETS:
        raise typer.BadParameter(f"{name} is no preset: {', '.join(PRESETS)}")
    return PRESETS[name]


def _run(directory: Path, preset: str, catalogue: Path | None) -> "Run":
    from models.alignment.run import RunError, open_run

    if catalogue is None or not catalogue.is_file():
        raise typer.BadParameter(f"{catalogue} is not a file of ads", param_hint="--catalogue")
    try:
        return open_run(directory, _preset(preset), catalogue)
    except RunError as error:
        raise typer.BadParameter(str(error), param_hint="--run") from error


@contextmanager
def _pipeline(
    directory: Path, preset: str, catalogue: Path | None, state_dir: Path
) -> "Iterator[Pipeline]":
    """The run's stages; what keeps one from being run is told in a line."""
    run = _run(directory, preset, catalogue)
    prepare_process()
    from models.alignment.pipeline import Pipeline
    from models.alignment.run import RunError
    from models.provision import ProvisionError

    try:
        yield Pipeline.of(run, state_dir / "models")
    except (ProvisionError, RunError) as error:
        console.print(f"[bold red]Stopped:[/] {error}")
        raise typer.Exit(1) from error
