"""`llm-auction align`: from a pretrained model to one that runs the auction.

Everything heavy is imported by the commands that need it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

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
        help="small: two CPU cores, hours. On from the adapter that ships: refine; close, to "
        "answers that end; bare, to answers without candidates. paper: a 4B model on GPUs. All by "
        "DPO; by IPO: small-ipo, refine-ipo, paper-ipo; online, by GRPO: paper-grpo.",
    ),
]
Catalogue = Annotated[
    Path | None, typer.Option(help="Ads as JSON lines; else the demo catalogue.", dir_okay=False)
]
StateDir = Annotated[Path, typer.Option(help="Where servable models are kept.")]
Epoch = Annotated[int, typer.Option(min=1, help="Which epoch, from 1.")]
Epochs = Annotated[
    int | None,
    typer.Option(
        min=0, help="After how many epochs; 0: warm start.", show_default="all of the preset's"
    ),
]


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
        pipeline.warm_start()
        for epoch in range(1, pipeline.run.preset.epochs + 1):
            pipeline.pctr(epoch)
            if pipeline.is_online:
                pipeline.grpo(epoch)
            else:
                pipeline.dpo(epoch)
        model = pipeline.servable()
        base = pipeline.run.preset.base
    measured = run_dir / "evaluation"
    given = f"--run {run_dir} --preset {preset}"
    ads = "" if catalogue is None else f" --catalogue {catalogue}"
    console.print(
        f"[green]Done:[/] {model}\n"
        f"Measure it: llm-auction evaluate run --quick --model {base} --aligned {model}{ads}"
        f" --out {measured}\n"
        f"            llm-auction evaluate report --run {measured}\n"
        f"Its card:   llm-auction align card {given}{ads} --evaluation {measured}",
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
    """An epoch's policy phase: learn winners from losers (DPO; IPO by a preset so named).

    Presets for GPUs train in several processes, once the answers are drawn in one:

        llm-auction align sample --preset paper

        accelerate launch -m service.cli align dpo --preset paper
    """
    with _pipeline(run_dir, preset, catalogue or ctx.obj, state_dir) as pipeline:
        pipeline.dpo(epoch)


@app.command()
def grpo(
    ctx: typer.Context,
    run_dir: RunDir = Path("state/alignment"),
    preset: PresetName = "paper-grpo",
    epoch: Epoch = 1,
    catalogue: Catalogue = None,
    state_dir: StateDir = Path("state"),
) -> None:
    """An epoch's policy phase, online: draw answers while training, and go towards the better ones.

    In several processes, once the click model's answers are drawn in one:

        llm-auction align pctr --preset paper-grpo

        accelerate launch -m service.cli align grpo --preset paper-grpo
    """
    with _pipeline(run_dir, preset, catalogue or ctx.obj, state_dir) as pipeline:
        pipeline.grpo(epoch)


@app.command()
def ship(
    ctx: typer.Context,
    target: Annotated[Path, typer.Argument(help="Directory for adapter, config and manifest.")],
    run_dir: RunDir = Path("state/alignment"),
    preset: PresetName = "small",
    epochs: Epochs = None,
    share: Annotated[
        float,
        typer.Option(min=0, max=1, help="How far to go, from the adapter that the run began with."),
    ] = 1.0,
    catalogue: Catalogue = None,
) -> None:
    """Write a trained adapter as one that ships: bfloat16, with a manifest of hashes.

    llm-auction align ship models/weights/SmolLM2-135M-Instruct-auction --run state/alignment
    """
    from models.alignment.run import RunError, begun_with
    from models.alignment.shipping import Aligned
    from models.alignment.shipping import ship as write

    run, epochs, adapter = _trained(run_dir, preset, catalogue or ctx.obj, epochs)
    if adapter.name != "adapter":
        raise typer.BadParameter(f"{adapter} is a whole model: serve it as it is")
    layout, recipe = run.preset.warm_start.examples.layout, f"{preset}, {epochs} epochs"
    try:
        start = begun_with(run) if share < 1 else None
    except RunError as error:
        raise typer.BadParameter(str(error), param_hint="--share") from error
    if start is not None:
        recipe += f", {share:g} of the way"
    aligned = Aligned(run.preset.base, layout, recipe)
    try:
        write(adapter, target, aligned, start=start, share=share)
    except ValueError as unfit:
        raise typer.BadParameter(str(unfit), param_hint="--run") from unfit
    console.print(
        f"[green]{target}[/] is ready to ship; `llm-auction align card` writes its MODEL_CARD.md"
    )


@app.command()
def card(
    ctx: typer.Context,
    run_dir: RunDir = Path("state/alignment"),
    preset: PresetName = "small",
    epochs: Epochs = None,
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

    run, epochs, _ = _trained(run_dir, preset, catalogue or ctx.obj, epochs)
    try:
        text = write_card(run, epochs, evaluation)
    except FileNotFoundError as missing:
        raise typer.BadParameter(
            f"{missing.filename} is missing: `llm-auction evaluate report --run {evaluation}`"
            " writes the report of an evaluation",
            param_hint="--evaluation",
        ) from missing
    except ValueError as other:
        raise typer.BadParameter(str(other), param_hint="--evaluation") from other
    if out is None:
        print(text)
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)
        console.print(f"[green]{out}[/] is written; say in it what you know beyond the figures")


def _preset(name: str) -> Any:
    from models.alignment.presets import PRESETS

    if name not in PRESETS:
        raise typer.BadParameter(f"{name} is no preset: {', '.join(PRESETS)}")
    return PRESETS[name]


def _ads(catalogue: Path | None) -> Path:
    if catalogue is None or not catalogue.is_file():
        raise typer.BadParameter(f"{catalogue} is not a file of ads", param_hint="--catalogue")
    return catalogue


def _trained(
    directory: Path, preset: str, catalogue: Path | None, epochs: int | None
) -> "tuple[Run, int, Path]":
    """The run at `directory`, its epochs (all where `epochs` is None), what they have trained."""
    from models.alignment.run import RunError, find_run

    try:
        run = find_run(directory, _preset(preset), _ads(catalogue))
        after = run.preset.epochs if epochs is None else epochs
        trained = run.trained_before(after + 1)
        if trained is None:
            raise RunError(f"{directory} trains nothing before its first epoch")
    except RunError as error:
        raise typer.BadParameter(str(error), param_hint="--run") from error
    return run, after, trained


@contextmanager
def _pipeline(
    directory: Path, preset: str, catalogue: Path | None, state_dir: Path
) -> "Iterator[Pipeline]":
    """The run's stages; what keeps one from being run is told in a line."""
    chosen, ads = _preset(preset), _ads(catalogue)
    prepare_process()
    from models.alignment.pipeline import Pipeline
    from models.alignment.run import RunError, held, open_run
    from models.engine.interface import EngineError
    from models.provision import ProvisionError

    try:
        with held(directory):
            yield Pipeline.of(open_run(directory, chosen, ads), state_dir / "models")
    except (EngineError, ProvisionError, RunError) as error:
        console.print(Text.assemble(("Stopped: ", "bold red"), str(error)), soft_wrap=True)
        raise typer.Exit(1) from error
