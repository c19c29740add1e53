"""Progress of long work: a bar where somebody looks on, a line a minute where it goes to a log."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_QUIET_S = 60.0


@contextmanager
def progress_bar(
    what: str, total: int, console: Console, *, is_transient: bool = False
) -> Iterator[Callable[[int], None]]:
    """Show how far `what` is and how long it will take; what it yields takes how many are done.

    Work that goes on from an earlier start tells first how many were done then. is_transient:
    the bar goes once the work is done.
    """
    if not console.is_terminal:
        yield Lines(what, total, lambda line: console.print(line, markup=False, soft_wrap=True))
        return
    columns = (TextColumn(what, markup=False), BarColumn(), MofNCompleteColumn())
    shown = Progress(*columns, TimeRemainingColumn(), console=console, transient=is_transient)
    with shown:
        task = shown.add_task(what, total=total)
        yield lambda done: shown.update(task, completed=done)


class Lines:
    """Progress in words: at the beginning, once a minute, at the end. clock: gives seconds."""

    def __init__(
        self,
        what: str,
        total: int,
        say: Callable[[str], None],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._what = what
        self._total = total
        self._say = say
        self._clock = clock
        self._before: int | None = None
        self._begun = self._said = clock()

    def __call__(self, done: int) -> None:
        """`done` so far, those of an earlier start among them."""
        now = self._clock()
        if self._before is None:
            self._before = done
        elif done < self._total and now - self._said < _QUIET_S:
            return
        self._said = now
        self._say(f"{self._what}: {done} of {self._total}{self._left(done, now)}")

    def _left(self, done: int, now: float) -> str:
        made = done - (self._before or 0)
        if made < 1 or done >= self._total:
            return ""
        seconds = (now - self._begun) / made * (self._total - done)
        return f", {timedelta(seconds=round(seconds))} left"
