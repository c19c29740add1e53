"""Ties an engine's processes to the one that owns them: they end with it, and let it go first.

vLLM's own processes notice an orderly end only: after a SIGKILL (or the kernel's out-of-memory
killer) they would stay, with the model's memory and the accelerator in their hands. And a Ctrl-C,
which a terminal sends to all of them, would end them at once, while their owner still finishes
what it has begun. Runs inside vLLM's workers; knows nothing of vLLM.
"""

import os
import select
import signal
import threading

_PATIENT = 10
"""A niceness; new threads have that of the one that starts them."""


class Lifeline:
    """Mixed into vLLM's worker, which answers its public methods' names as remote calls."""

    def end_with(self, owner_pid: int) -> None:
        """From now on, end this process as soon as the process `owner_pid` has ended.

        A Ctrl-C is left to the owner.
        """
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=_end_with, args=(owner_pid,), daemon=True).start()

    def give_way(self) -> None:
        """Let other processes go first on these cores.

        Where the model computes on all of them, its owner would wait milliseconds for each turn.
        The work stays the same, and so does its speed; only its order changes.
        """
        for thread in os.listdir("/proc/self/task"):
            os.setpriority(os.PRIO_PROCESS, int(thread), _PATIENT)


def _end_with(owner_pid: int) -> None:
    try:
        owner = os.pidfd_open(owner_pid)
    except ProcessLookupError:
        os._exit(1)
    # Readable once the process has ended, and it cannot be mistaken for a later one of the
    # same number.
    select.select([owner], [], [])
    os._exit(1)
