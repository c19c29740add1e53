"""Ends a stream of chunks at its deadline, for engines that know of none."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from models.engine.interface import Chunk


async def until_deadline(
    chunks: AsyncGenerator[Chunk], deadline_at: float | None
) -> AsyncGenerator[Chunk]:
    """Yield `chunks`; at the deadline close them, and yield a last one that says so.

    deadline_at: seconds on `time.monotonic()`'s clock; None: there is none.
    """
    async with aclosing(chunks):
        while True:
            left_s = None if deadline_at is None else deadline_at - time.monotonic()
            try:
                async with asyncio.timeout(left_s):
                    chunk = await anext(chunks, None)
            except TimeoutError:
                yield Chunk("", 0, "deadline")
                return
            if chunk is None:
                return
            yield chunk
