"""Whether this process still serves: the one piece of state that changes after start."""

from collections.abc import Callable
from dataclasses import dataclass


def _nothing() -> None:
    pass


@dataclass(slots=True)
class Life:
    """`on_death` is called once, when the engine has died and only a restart helps."""

    is_draining: bool = False
    is_engine_dead: bool = False
    on_death: Callable[[], None] = _nothing

    def engine_died(self) -> None:
        """Stop being ready, and have the process end so that a supervisor restarts it."""
        if not self.is_engine_dead:
            self.is_engine_dead = True
            self.on_death()
