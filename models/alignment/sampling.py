"""Answers of the policy to auctions, written as the service has them written."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path

from models.alignment.answers import OpenEngine
from models.alignment.examples import auction_prompt
from models.alignment.journal import append_row, open_for_rows, read_rows
from models.contract.grammar import grammar
from models.contract.markers import read
from models.contract.prompt import Layout
from models.contract.reading import Reading
from models.engine.interface import Engine, Generation, Sampling
from models.simulation.nouns import Auction
from models.simulation.randomness import derived_seed

_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """How many answers an auction gets, and how they are drawn. is_constrained: by the grammar."""

    per_auction: int = 5
    max_ads: int = 3
    layout: Layout = Layout.INLINE
    sampling: Sampling = field(default_factory=lambda: Sampling(max_tokens=160))
    is_constrained: bool = True


@dataclass(frozen=True, slots=True)
class Sampled:
    """An answer. text: all that was written, of which `reading` lacks the start of a marker that
    was cut off. is_whole: the model ended it, not the limit on its length."""

    text: str
    reading: Reading
    is_whole: bool


async def sample(
    open_engine: OpenEngine,
    auctions: Sequence[Auction],
    options: SamplingOptions,
    path: Path,
    progress: Callable[[int], None] = lambda done: None,
) -> list[list[Sampled]]:
    """Return `per_auction` answers to each auction, in order, read.

    Each is appended to `path` when it is finished and is not drawn again by a later call, which
    opens no engine where none is left to draw; `progress` is told how many there are.
    """
    kept = _kept(path)
    wanted = [
        (auction, number)
        for auction in auctions
        for number in range(options.per_auction)
        if (auction.auction_id, number) not in kept
    ]
    gate = asyncio.Semaphore(_AT_ONCE)
    progress(len(kept))
    with open_for_rows(path) as file:

        async def draw(engine: Engine, auction: Auction, number: int) -> None:
            async with gate:
                text, is_whole = await _generate(engine, auction, number, options)
            kept[auction.auction_id, number] = text, is_whole
            row = {"auction": auction.auction_id, "number": number}
            append_row(file, row | {"answer": text, "is_whole": is_whole})
            progress(len(kept))

        if wanted:
            async with open_engine() as engine:
                await asyncio.gather(*(draw(engine, *one) for one in wanted))

    def sampled(auction: Auction, number: int) -> Sampled:
        text, is_whole = kept[auction.auction_id, number]
        reading = read(text, [ad.marked for ad in auction.ads], options.max_ads)
        return Sampled(text, reading, is_whole)

    return [
        [sampled(auction, number) for number in range(options.per_auction)] for auction in auctions
    ]


async def _generate(
    engine: Engine, auction: Auction, number: int, options: SamplingOptions
) -> tuple[str, bool]:
    """The answer, and whether the model ended it."""
    markers = [ad.marked for ad in auction.ads]
    generation = Generation(
        f"{auction.auction_id}-{number}",
        auction_prompt(options.layout, auction),
        replace(options.sampling, seed=derived_seed("sample", auction.seed, number)),
        grammar(markers, options.max_ads) if options.is_constrained else None,
        insertions=[ad.marker for ad in markers] if options.is_constrained else (),
    )
    pieces, finish_reason = [], None
    async with aclosing(engine.generate(generation)) as chunks:
        async for chunk in chunks:
            pieces.append(chunk.text)
            finish_reason = chunk.finish_reason
    return "".join(pieces), finish_reason == "stop"


def _kept(path: Path) -> dict[tuple[str, int], tuple[str, bool]]:
    return {
        (row["auction"], row["number"]): (row["answer"], row["is_whole"]) for row in read_rows(path)
    }
