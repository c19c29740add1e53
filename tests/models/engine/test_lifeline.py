"""No engine process stays behind, however its owner ends."""

import signal
import subprocess
import sys
import textwrap

import pytest

WORKER = textwrap.dedent(
    """
    import sys, threading
    from models.engine.lifeline import Lifeline
    Lifeline().end_with(int(sys.argv[1]))
    print("watching", flush=True)
    threading.Event().wait()
    """
)
OWNER = textwrap.dedent(
    """
    import os, subprocess, sys
    subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())]).wait()
    """
)


def test_a_worker_ends_when_its_owner_is_killed(pytestconfig: pytest.Config) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, WORKER],
        stdout=subprocess.PIPE,
        cwd=pytestconfig.rootpath,
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"watching\n"

    owner.send_signal(signal.SIGKILL)

    # The pipe ends when the worker, its last holder, has ended.
    assert owner.communicate(timeout=5)[0] == b""


def test_a_worker_ends_when_its_owner_has_gone_before(pytestconfig: pytest.Config) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()

    worker = subprocess.run(
        [sys.executable, "-c", WORKER, str(gone.pid)],
        cwd=pytestconfig.rootpath,
        capture_output=True,
        timeout=10,
        check=False,
    )

    assert worker.returncode == 1
