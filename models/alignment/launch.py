"""What `accelerate launch` and torchrun tell each of the processes that train together."""

import os


def processes() -> int:
    """How many there are: 1 for a process that was started alone."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Tell whether this is the one that writes for all."""
    return os.environ.get("RANK", "0") == "0"
