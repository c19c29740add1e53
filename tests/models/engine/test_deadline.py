"""Streams that end at their deadline."""

import asyncio
import time
from collections.abc import AsyncGenerator

from models.engine.deadline import until_deadline
from models.engine.interface import Chunk


class Stream:
    """Yields its chunks, then waits for what never comes, or ends."""

    def __init__(self, *texts: str, is_endless: bool) -> None:
        self.texts = texts
        self.is_endless = is_endless
        self.is_closed = False

    async def chunks(self) -> AsyncGenerator[Chunk]:
        try:
            for text in self.texts:
                yield Chunk(text, 1)
            if self.is_endless:
                await asyncio.Event().wait()
        finally:
            self.is_closed = True


async def collected(stream: Stream, deadline_at: float | None) -> list[Chunk]:
    return [chunk async for chunk in until_deadline(stream.chunks(), deadline_at)]


async def test_gives_what_came_and_says_that_the_deadline_ended_it() -> None:
    stream = Stream("Try", " this", is_endless=True)
    chunks = await collected(stream, time.monotonic() + 0.05)

    assert [chunk.text for chunk in chunks] == ["Try", " this", ""]
    assert [chunk.finish_reason for chunk in chunks] == [None, None, "deadline"]
    assert stream.is_closed


async def test_a_deadline_in_the_past_ends_it_before_anything_is_waited_for() -> None:
    chunks = await collected(Stream(is_endless=True), time.monotonic() - 1)
    assert [chunk.finish_reason for chunk in chunks] == ["deadline"]


async def test_leaves_what_ends_in_time_as_it_is() -> None:
    expected = [Chunk("Try", 1), Chunk(" this", 1)]
    assert await collected(Stream("Try", " this", is_endless=False), None) == expected
    later = time.monotonic() + 60
    assert await collected(Stream("Try", " this", is_endless=False), later) == expected
