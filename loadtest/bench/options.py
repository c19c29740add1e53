"""How long and on what the benchmarks run; the same for every part."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Options:
    """model: a model directory. rounds: of alternation, 1 or more. is_quick: only shows that the
    parts run; too short for figures."""

    model: Path
    rounds: int
    is_quick: bool

    def command(self, part: str) -> str:
        """The command that runs one part again."""
        quick = " --quick" if self.is_quick else ""
        return f"python -m loadtest.bench --part {part} --rounds {self.rounds}{quick}"
