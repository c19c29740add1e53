"""`llm-auction simulate`: build a world, look into one, and compare who clicks on what.

Whoever mounts it puts the path of the default catalogue into the context's `obj`.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from models.engine.environment import prepare_process
from models.progress import progress_bar

if TYPE_CHECKING:
    from models.simulation.nouns import Ad
    from models.simulation.user_llm_engine import EngineChoice
    from models.simulation.world import World, WorldOptions

app = typer.Typer(
    help="A market to try auctions in: users who ask, ads, and who clicks on what.",
    no_args_is_help=True,
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

Folder = Annotated[Path, typer.Option(help="The world's folder.")]
World_ = Annotated[Path, typer.Argument(metavar="WORLD", help="A folder made by build.")]
Ads = Annotated[Path | None, typer.Option(help="Catalogue, JSON lines. Default: the demo ads.")]
Queries = Annotated[Path | None, typer.Option(help="Take these queries, JSON lines; write none.")]
Users = Annotated[int, typer.Option(min=1, help="How many users.")]
PerUser = Annotated[int, typer.Option(min=1, help="Queries of each.")]
TestShare = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Users held out here: 0.2 by default, all of --queries."),
]
AdlessShare = Annotated[
    float, typer.Option(min=0, max=1, help="Queries that no ad is to serve.", show_default=True)
]
Seed = Annotated[int, typer.Option(help="The same seed gives the same world.")]
Url = Annotated[
    str | None, typer.Option("--llm-url", help="Address of a vLLM server that writes questions.")
]
Model = Annotated[
    str | None, typer.Option("--llm-model", help="Its model; without --llm-url, run it here.")
]
Key = Annotated[
    str | None, typer.Option("--llm-key", envvar="LLM_AUCTION_USER_LLM_KEY", help="Its API key.")
]
StateDir = Annotated[Path, typer.Option(help="Where models and what a model said are kept.")]
Concurrency = Annotated[int, typer.Option(min=1, help="Questions to the model at once.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the world that is there.")]
Samples = Annotated[int, typer.Option(min=0, help="How many users to show.")]
Clicks = Annotated[
    int, typer.Option(min=0, help="Auctions to try the click model on; 0 leaves it out.")
]
First = Annotated[
    Path, typer.Argument(help="What `evaluate run --out` wrote, or labels as JSON lines.")
]
Second = Annotated[Path, typer.Argument(help="The same, of the other user or of people.")]


@app.command("build")
def build(
    context: typer.Context,
    folder: Folder = Path("state/world"),
    ads: Ads = None,
    queries: Queries = None,
    users: Users = 3000,
    queries_per_user: PerUser = 5,
    test_share: TestShare = None,
    adless_share: AdlessShare = 0.3,
    seed: Seed = 1,
    llm_url: Url = None,
    llm_model: Model = None,
    llm_key: Key = None,
    state_dir: StateDir = Path("state"),
    concurrency: Concurrency = 16,
    force: Force = False,
) -> None:
    """Build a world: users with profiles, their questions, and ads.

    Users are composed and questions written from the project's own
    wordings, in a second. Questions can also come from a model
    (--llm-url, --llm-model) or from a file (--queries).

        llm-auction simulate build

        llm-auction simulate build --ads my_ads.jsonl --folder state/mine

        llm-auction simulate build --llm-url http://127.0.0.1:8001/v1

        llm-auction simulate build --queries chats.jsonl --ads my_ads.jsonl

    Rows of ads have title, and where there are any ad_id, description and
    category; rows of queries have query, and where it is known category:
    that of the ads which serve it. For queries without one, or with one
    that no ad has, the ads most like them are searched. Bad rows are shown
    and left out.
    """
    from models.simulation.cli_tables import show_counts
    from models.simulation.saved_world import save_world
    from models.simulation.user_llm_engine import EngineChoice
    from models.simulation.world import WorldOptions

    if queries and (llm_url or llm_model):
        raise typer.BadParameter("goes without --llm-url and --llm-model", param_hint="--queries")
    with _explained():
        share = test_share if test_share is not None else 1.0 if queries else 0.2
        options = WorldOptions(seed, users, queries_per_user, share, adless_share)
        catalogue = _catalogue(ads or context.obj)
        if queries:
            world, source = _from_outside(catalogue, queries, options), queries.name
        elif llm_url or llm_model:
            choice = EngineChoice(llm_url, llm_model, llm_key, state_dir / "models")
            if llm_url is None:
                prepare_process()
            cache = state_dir / "user_llm.sqlite"
            world, source = asyncio.run(_by_llm(catalogue, options, choice, cache, concurrency))
        else:
            world, source = _written(catalogue, options), "the project's wordings"
        built = {"questions_from": source, **asdict(options)}
        save_world(world, folder, built, replace=force)
    show_counts(folder)
    out.print(f"Look into it with: llm-auction simulate inspect {folder}", soft_wrap=True)


@app.command("inspect")
def inspect(
    folder: World_ = Path("state/world"), samples: Samples = 3, clicks: Clicks = 0, seed: Seed = 1
) -> None:
    """Show what a world holds, after checking it against its manifest.

    --clicks tries the click model on held-out auctions: how well it tells
    ads that fit from ads that do not, and how often each kind is clicked
    on in its best place. It takes about a second for ten auctions.

        llm-auction simulate inspect state/world --clicks 200
    """
    from models.simulation.cli_tables import show_clicks, show_counts, show_users
    from models.simulation.saved_world import load_world

    with _explained():
        world = load_world(folder)
        show_counts(folder)
        show_users(world, samples, seed)
        if clicks:
            show_clicks(world, clicks, seed)


@app.command("agree")
def agree(first: First, second: Second, seed: Seed = 1) -> None:
    """Compare two simulated users, or one with people's labels.

    A user is what `evaluate run` wrote with it; answers that are the same
    in both runs count, as they are with the same --state-dir:

        llm-auction evaluate run --study efficiency --out state/model

        llm-auction evaluate run --study efficiency --out state/judge
        --judge-url http://127.0.0.1:8001/v1

        llm-auction simulate agree state/model state/judge

    Labels have a JSON object a line, for an ad in an answer:

        {"auction_id": "u00001-q1-a1", "mechanism": "pretrained",
        "ad_id": "Ad-1001", "clicked": true}

    or with a probability in place of clicked; two files of labels may go
    without mechanism. Ads that both have count.
    """
    from models.simulation.agreement import agreement, read_verdicts

    with _explained():
        found = agreement(*read_verdicts(first, second), seed)
    out.print(
        f"Spearman {found.spearman:.2f} (95 % interval {found.low:.2f} to {found.high:.2f}) "
        f"on {found.ads} ads in {found.auctions} auctions"
    )
    out.print(f"Mean click probability: {found.means[0]:.3f} and {found.means[1]:.3f}")


def _catalogue(path: Path | None) -> "Sequence[Ad]":
    from models.simulation.cli_tables import show_bad
    from models.simulation.outside import read_ads

    if path is None:
        raise typer.BadParameter("is needed: there is no default here", param_hint="--ads")
    rows = read_ads(path)
    show_bad(path, rows.bad)
    if not rows.good:
        raise ValueError(f"{path} holds no ad")
    return rows.good


def _from_outside(ads: "Sequence[Ad]", path: Path, options: "WorldOptions") -> "World":
    from models.simulation.cli_tables import show_bad
    from models.simulation.embeddings import MiniLmEncoder
    from models.simulation.outside import read_queries, with_categories_of
    from models.simulation.retrieval import nearest_ads
    from models.simulation.world import outside_world

    rows = read_queries(path)
    show_bad(path, rows.bad)
    if not rows.good:
        raise ValueError(f"{path} holds no query")
    queries = with_categories_of(ads, rows.good)
    unplaced = [query for query in queries if query.category is None]
    if strange := len(unplaced) - sum(query.category is None for query in rows.good):
        err.print(f"{strange} queries of {path.name} are of a category that no ad has.")
    near: dict[str, tuple[str, ...]] = {}
    if unplaced:
        with err.status(f"Searching ads for {len(unplaced)} queries without a category"):
            near = nearest_ads(unplaced, ads, MiniLmEncoder())
    return outside_world(ads, queries, near, options.test_share, options.seed)


def _written(ads: "Sequence[Ad]", options: "WorldOptions") -> "World":
    from models.simulation.world import build_world

    with progress_bar("Writing questions, users", options.users, err, is_transient=True) as advance:
        return build_world(ads, options, advance)


async def _by_llm(
    ads: "Sequence[Ad]", options: "WorldOptions", choice: "EngineChoice", cache: Path, at_once: int
) -> "tuple[World, str]":
    from models.simulation.asking import UserLlm
    from models.simulation.completions import CompletionStore
    from models.simulation.user_llm import build_llm_world
    from models.simulation.user_llm_engine import open_engine

    async with open_engine(choice, lambda line: err.print(f"[cyan]·[/] {line}")) as engine:
        llm = UserLlm(engine, CompletionStore(cache), at_once)
        with progress_bar(
            f"{engine.model.name} asks, users", options.users, err, is_transient=True
        ) as advance:
            built = await build_llm_world(ads, llm, options, advance)
    if built.filled_in:
        err.print(
            f"{built.filled_in} of {len(built.world.queries)} questions were not usable: "
            "they come from the project's wordings."
        )
    return built.world, f"{engine.model.name} ({engine.model.revision})"


@contextmanager
def _explained() -> Iterator[None]:
    """What the caller can mend is told in a sentence, and the command ends with 1."""
    from models.engine.interface import EngineError
    from models.provision import ProvisionError
    from models.simulation.saved_world import SavedWorldError

    try:
        yield
    except (SavedWorldError, EngineError, ProvisionError, ValueError, OSError) as error:
        err.print(Text(str(error), "bold red"))
        raise typer.Exit(1) from error
    except (ImportError, RuntimeError) as error:
        err.print(
            Text(f"{error}. It comes with: pip install 'llm-auction[simulation]'", "bold red")
        )
        raise typer.Exit(1) from error
