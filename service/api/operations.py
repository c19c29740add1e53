"""For operators: is it alive, is it ready, what does it measure."""

from typing import Literal

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from models.engine.interface import EngineDead, EngineError
from service.api.problems import documented
from service.errors import Forbidden, Unauthorized
from service.services import Services


class Health(BaseModel):
    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """`ready` says whether answers are given; without its ad store the service still answers."""

    ready: bool
    engine: Literal["ok", "unavailable", "dead"]
    store: Literal["ok", "unavailable"]
    draining: bool


def router() -> APIRouter:
    """Routes `/healthz`, `/readyz` and `/metrics`."""
    routes = APIRouter(tags=["operations"])

    @routes.get("/healthz", summary="Whether the process is alive")
    async def healthz() -> Health:
        return Health()

    @routes.get(
        "/readyz",
        summary="Whether answers can be given",
        responses={503: {"model": Readiness, "description": "Not ready"}},
    )
    async def readyz(request: Request, response: Response) -> Readiness:
        readiness = await _readiness(request.app.state.services)
        response.status_code = 200 if readiness.ready else 503
        return readiness

    @routes.get(
        "/metrics",
        summary="Prometheus metrics, the engine's included",
        response_class=Response,
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
            **documented(Unauthorized, Forbidden),
        },
    )
    async def metrics(request: Request) -> Response:
        services: Services = request.app.state.services
        services.metrics.store_up.set(services.catalog.is_up)
        return Response(services.metrics.expose(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return routes


async def _readiness(services: Services) -> Readiness:
    engine: Literal["ok", "unavailable", "dead"] = "ok"
    try:
        await services.engine.check()
    except EngineDead:
        engine = "dead"
        services.life.engine_died()
    except EngineError:
        engine = "unavailable"
    return Readiness(
        ready=engine == "ok" and not services.life.is_draining,
        engine=engine,
        store="ok" if services.catalog.is_up else "unavailable",
        draining=services.life.is_draining,
    )
