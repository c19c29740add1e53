"""The composition root: settings in, an ASGI application out. Wiring and lifespan only."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from time import monotonic

from fastapi import FastAPI

from models.engine.interface import Engine, EngineDead, EngineError
from service import tracing
from service.api import (
    ads,
    advertisers,
    clicks,
    operations,
    problems,
    receipts,
    reports,
    respond,
    top_ups,
)
from service.api.access import Access
from service.api.auth import document_keys, read_keys
from service.api.door import Door
from service.life import Life
from service.metrics import Metrics, create_metrics
from service.services import Services, open_stores
from service.settings import Settings
from service.signing import load_secrets
from service.store.connection import open_store
from service.store.demo import load_demo_ads

Progress = Callable[[str], None]
RESOURCES = (respond, clicks, ads, advertisers, top_ups, reports, receipts, operations)
_WATCH_S = 1.0
_END_WITHIN_S = 5.0


class StateDirError(Exception):
    """Nothing can be kept in the state directory; the message says why."""


def create_app(
    settings: Settings,
    *,
    life: Life | None = None,
    progress: Progress = lambda line: None,
) -> FastAPI:
    """The service. Everything that it holds open is made and closed by its lifespan.

    life: shared with whoever runs the server, to drain and to learn of the engine's death.
    progress: told what is being prepared, a sentence at a time.
    """
    life = life or Life()
    metrics, tracer = create_metrics(), tracing.start_tracer()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            services = await open_services(settings, metrics, life, progress, stack)
            app.state.services = replace(services, tracer=tracer)
            stack.push_async_callback(life.end, _END_WITHIN_S)  # while store and engine are open
            yield

    app = FastAPI(
        title="LLM-Auction",
        summary="Ad serving where the language model is the auction",
        lifespan=lifespan,
        responses=problems.documented(),
        redoc_url=None,
    )
    for resource in RESOURCES:
        app.include_router(resource.router())
    problems.install(app)
    if settings.auth.keys_file:
        document_keys(app)
    keys = read_keys(settings.auth.keys_file) if settings.auth.keys_file else ()
    app.add_middleware(Door, settings=settings, keys=keys, metrics=metrics, life=life)
    app.add_middleware(Access, metrics=metrics, tracer=tracer)
    return app


async def open_services(
    settings: Settings, metrics: Metrics, life: Life, progress: Progress, stack: AsyncExitStack
) -> Services:
    """Open the store and the engine; `stack` closes them in reverse order."""
    signing, state_dir = settings.signing, settings.state_dir
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        secrets = load_secrets(state_dir, signing.keys_file, signing.secret_file)
        store = await stack.enter_async_context(open_store(settings.store, state_dir, progress))
    except OSError as error:
        raise StateDirError(
            f"{error.filename or state_dir}: {error.strerror}; what is kept needs a state directory"
            " that this user can write to (STATE_DIR of make, --state-dir of serve)"
        ) from error
    stores = open_stores(store, settings)
    if settings.store.wants_demo_ads and (loaded := await load_demo_ads(stores["catalog"])):
        progress(f"loaded {loaded} demo ads into the empty catalogue")
    engine = await start_engine(settings, progress)
    stack.push_async_callback(engine.close)
    metrics.watch_engine(lambda: engine.load().running, lambda: engine.load().waiting)
    for watch in (_watch(engine, life), _watch_loop(metrics)):
        stack.callback(asyncio.create_task(watch).cancel)
    return Services(
        settings=settings,
        engine=engine,
        signing=secrets.keys,
        metrics=metrics,
        life=life,
        secret=secrets.deployment,
        **stores,
    )


async def start_engine(settings: Settings, progress: Progress) -> Engine:
    """The engine that the settings name. vLLM is only imported where it runs in process."""
    if settings.engine.kind == "remote":
        from models.engine.remote import RemoteEngine, RemoteOptions

        assert settings.engine.url is not None
        return await RemoteEngine.start(
            RemoteOptions(
                base_url=settings.engine.url,
                model=settings.engine.model,
                max_model_len=settings.engine.max_model_len,
                api_key=settings.engine.api_key,
            )
        )
    from models.engine.vllm import VllmEngine, VllmOptions
    from models.provision import default_model, provision

    name = settings.engine.model or default_model()
    model = await asyncio.to_thread(provision, name, settings.state_dir / "models", progress)
    options = VllmOptions(
        max_model_len=settings.engine.max_model_len,
        max_num_seqs=settings.engine.max_num_seqs,
        extra=settings.engine.args,
    )
    engine: Engine = await VllmEngine.start(model, options=options, progress=progress)
    return engine


async def _watch(engine: Engine, life: Life) -> None:
    """Notice the death of an engine that nobody is asking."""
    while True:
        await asyncio.sleep(_WATCH_S)
        try:
            await engine.check()
        except EngineDead:
            life.engine_died()
            return
        except EngineError:
            continue  # a remote engine that is away: requests say so, and it may come back


async def _watch_loop(metrics: Metrics) -> None:
    """Measure how late this loop is: every request waits that long at each of its steps."""
    while True:
        due_at = monotonic() + _WATCH_S
        await asyncio.sleep(_WATCH_S)
        metrics.loop_lag_seconds.observe(max(0.0, monotonic() - due_at))
