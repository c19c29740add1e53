"""What commands show of a world: rows that were left out, and tables."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from models.progress import progress_bar
from models.simulation.auctions import AuctionOptions, draw_auctions
from models.simulation.nouns import Split
from models.simulation.outside import BadRow
from models.simulation.randomness import generator
from models.simulation.saved_world import read_manifest
from models.simulation.world import World

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

_BAD_ROWS_SHOWN = 5


def show_bad(path: Path, bad: Sequence[BadRow]) -> None:
    """The rows of `path` that were left out, the first of them with the reason."""
    for row in bad[:_BAD_ROWS_SHOWN]:
        err.print(Text(f"{path.name}, line {row.line}: {row.reason}"))
    if bad:
        err.print(f"{len(bad)} rows of {path.name} were left out.")


def show_counts(folder: Path) -> None:
    """What the manifest of the world in `folder` says. Raises SavedWorldError."""
    manifest = read_manifest(folder)
    counts = manifest["counts"]
    out.print(
        f"[bold]{folder}[/]: {counts['users']} users ({counts['test_users']} held out), "
        f"{counts['queries']} queries ({counts['queries_without_category']} without a category), "
        f"{counts['ads']} ads in {counts['categories']} categories",
        soft_wrap=True,
    )
    out.print(f"Questions from {manifest['built'].get('questions_from', 'an unknown source')}")


def show_users(world: World, samples: int, seed: int) -> None:
    """Some users of `world` and all they ask."""
    chosen = generator("inspect", seed).sample(world.users, min(samples, len(world.users)))
    asked = {
        user.user_id: [q for q in world.queries if q.user_id == user.user_id] for user in chosen
    }
    for user in chosen:
        table = Table(
            "category",
            "question",
            title_justify="left",
            title=Text(
                f"{user.user_id} ({user.split}): {user.profile.info}\n"
                f"{', '.join(user.profile.interests)}"
            ),
        )
        for query in asked[user.user_id]:
            table.add_row(Text(query.category or "–"), Text(query.text))
        out.print(table)


def show_clicks(world: World, count: int, seed: int) -> None:
    """How the click model treats `count` auctions of `world`, held-out ones where there are any."""
    from models.simulation.calibration import calibrate
    from models.simulation.click_model import ClickModel
    from models.simulation.embeddings import MiniLmEncoder

    options = AuctionOptions(candidates=min(10, len(world.ads)))
    split = Split.TEST if world.queries_of(Split.TEST) else Split.TRAIN
    auctions = draw_auctions(world, split, count, seed, options)
    users = ClickModel(MiniLmEncoder())
    with progress_bar("Reading auctions", count, err, is_transient=True) as advance:
        found = calibrate(users, auctions, advance)
    table = Table("candidates", "number", "clicked, natively placed", "10 %", "median", "90 %")
    for group in found.groups:
        low, median, high = group.quantiles
        table.add_row(
            group.name,
            str(group.ads),
            f"{group.mean:.1%}",
            f"{low:.1%}",
            f"{median:.1%}",
            f"{high:.1%}",
        )
    out.print(table)
    if found.auc is not None:
        out.print(f"Fitting ads told from others by relevance: AUC {found.auc:.3f}")
