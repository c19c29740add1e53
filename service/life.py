"""Whether this process still serves, and what it has to see through before it ends: the one piece
of state that changes after start."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

log = logging.getLogger(__name__)


def _nothing() -> None:
    pass


@dataclass(slots=True)
class Life:
    """`on_death` is called once, when the engine has died and only a restart helps."""

    is_draining: bool = False
    is_engine_dead: bool = False
    on_death: Callable[[], None] = _nothing
    _answers: set[asyncio.Task[Any]] = field(default_factory=set, init=False, repr=False)
    _records: set[asyncio.Task[Any]] = field(default_factory=set, init=False, repr=False)

    def engine_died(self) -> None:
        """Stop being ready, and have the process end so that a supervisor restarts it."""
        if not self.is_engine_dead:
            self.is_engine_dead = True
            self.on_death()

    @contextlib.contextmanager
    def answering(self) -> Iterator[asyncio.Task[Any]]:
        """A block in which the current task, which is yielded, makes an answer: `end` cancels it,
        and waits for it."""
        task = asyncio.current_task()
        assert task is not None
        self._answers.add(task)
        try:
            yield task
        finally:
            self._answers.discard(task)

    async def complete(self, record: Awaitable[None]) -> None:
        """Run `record`, on to its end when whoever awaits this is cancelled; `end` waits for it."""
        task = asyncio.ensure_future(record)
        self._records.add(task)
        task.add_done_callback(self._records.discard)
        await asyncio.shield(task)

    async def end(self, within_s: float) -> None:
        """Cancel the answers in the making, and wait for what they leave behind to be recorded."""
        for answer in self._answers:
            answer.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while unfinished := self._answers | self._records:
                    await asyncio.wait(unfinished)
        if self._records:
            log.error("%d answers were shown and could not be recorded", len(self._records))
