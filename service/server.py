"""Runs the application under uvicorn: prepared environment, ready line, drain, exit status."""

import asyncio
import gc
import json
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from time import monotonic

import uvicorn
import uvloop
from rich.console import Console
from rich.markup import escape

from models.engine.environment import prepare_process
from models.engine.interface import EngineError
from models.provision import ProvisionError
from service.api.auth import KeysFileError
from service.app import StateDirError, create_app
from service.life import Life
from service.logs import configure_logs
from service.settings import Settings
from service.signing import SigningKeysError
from service.store.embedded import EmbeddedError
from service.store_url import StoreUrlError
from service.tracing import TracingError

log = logging.getLogger(__name__)
_OBJECTS_UNTIL_COLLECTION = 50_000
"""As many as the answers in the making hold at 16 times 100 candidates; none of them is in a cycle,
so that there is nothing to collect."""
EXIT_ENGINE_DIED = 70
"""sysexits' EX_SOFTWARE: a supervisor restarts the process."""


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; returns the process's exit status.

    0 after a drained stop, 70 when the engine died, 1 when the start failed.
    """
    if settings.engine.kind == "vllm":
        prepare_process()
    configure_logs(settings.log.level)
    try:
        return uvloop.run(_serve(settings))
    except _START_ERRORS as error:
        Console(stderr=True).print(
            f"[bold red]Not started:[/] {escape(str(error))}", soft_wrap=True
        )
        return 1


class StartError(Exception):
    """The service could not start; the message says what to do."""


_START_ERRORS = (
    StartError,
    StateDirError,
    KeysFileError,
    SigningKeysError,
    StoreUrlError,
    EmbeddedError,
    ProvisionError,
    EngineError,
    TracingError,
)
"""Each with a message that says what to do."""


class Server(uvicorn.Server):
    """A uvicorn server that drains on a signal and then returns.

    Uvicorn's own handling raises the signal again after a graceful stop, so that the process
    would not exit with 0.
    """

    def __init__(self, config: uvicorn.Config, life: Life, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self.life = life
        self.announce = announce

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """First SIGTERM or SIGINT: drain. A second one: stop at once."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            self.announce()

    def _stop(self) -> None:
        self.force_exit = self.life.is_draining
        self.life.is_draining = True
        self.should_exit = True


async def _serve(settings: Settings) -> int:
    begun = monotonic()
    console = Console(stderr=True, highlight=False)
    listener = _bind(settings)
    url = f"http://{settings.http.host}:{listener.getsockname()[1]}"
    life = Life()
    app = create_app(settings, life=life, progress=lambda line: console.print(f"[cyan]·[/] {line}"))
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",  # run here, so that a failed start can be told in a sentence
        timeout_graceful_shutdown=settings.http.drain_s,
    )
    has_keys = settings.auth.keys_file is not None
    server = Server(config, life, lambda: _announce(console, url, monotonic() - begun, has_keys))
    life.on_death = partial(setattr, server, "should_exit", True)
    async with app.router.lifespan_context(app):
        _leave_out_of_collections()
        await server.serve(sockets=[listener])
    if life.is_engine_dead:
        log.critical("the engine has died; ending so that a supervisor restarts the process")
        return EXIT_ENGINE_DIED
    return 0


def _leave_out_of_collections() -> None:
    """Keep the garbage collector from going through all that was made at the start.

    It stays until the end, and to look at it again and again is a quarter of a request's CPU time
    at 100 candidates.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_UNTIL_COLLECTION)


def _bind(settings: Settings) -> socket.socket:
    """Take the port before the long preparation, so that a used one is reported at once."""
    host, port = settings.http.host, settings.http.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise StartError(
            f"cannot bind {host}:{port} ({error.strerror}); choose another PORT"
        ) from error
    return listener


def _announce(console: Console, url: str, seconds: float, has_keys: bool) -> None:
    body = json.dumps(
        {
            "query": "Which running shoes are good for a beginner?",
            "candidates": [{"ad_id": "Ad-1001", "bid": 1.25}],
            "max_tokens": 100,
        }
    )
    console.print(f"\n[bold green]Ready[/] after {seconds:.0f} s on {url} — try it:\n")
    key = "-H 'Authorization: Bearer <key>' " if has_keys else ""
    console.print(
        f"curl -s {url}/respond {key}-H 'Content-Type: application/json' -d '{body}'\n",
        soft_wrap=True,
        markup=False,
    )
