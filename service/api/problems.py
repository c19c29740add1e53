"""Renders every error as problem details (RFC 9457, `application/problem+json`).

Nothing that a caller sent is echoed: an error names the place and what is allowed there.
"""

import json
import logging
import math
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from service.errors import (
    FieldError,
    InvalidRequest,
    MalformedBody,
    NotFound,
    ProblemError,
)

log = logging.getLogger(__name__)


class WrongField(BaseModel):
    """One wrong field of a request."""

    loc: str = Field(description="JSON pointer into the body, or `query/…`, `path/…`, `header/…`")
    msg: str = Field(description="What is wrong and what is allowed")


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    type: str = Field(examples=["urn:llm-auction:problem:invalid_request"])
    title: str
    status: int
    code: str = Field(description="Stable name of this kind of problem")
    detail: str | None = None
    errors: list[WrongField] | None = None
    retry_after_ms: int | None = None
    request_id: str | None = None


def problem_body(problem: ProblemError, request_id: str | None) -> dict[str, Any]:
    """The problem as the JSON object that is sent."""
    return Problem(
        type=f"urn:llm-auction:problem:{problem.code}",
        title=problem.title,
        status=problem.status,
        code=problem.code,
        detail=problem.detail or None,
        errors=[WrongField(loc=e.loc, msg=e.msg) for e in problem.errors] or None,
        retry_after_ms=problem.retry_after_ms,
        request_id=request_id,
    ).model_dump(exclude_none=True)


def problem_response(problem: ProblemError, request_id: str | None) -> Response:
    """An HTTP response that says what went wrong."""
    headers = {}
    if problem.retry_after_ms is not None:
        headers["Retry-After"] = str(math.ceil(problem.retry_after_ms / 1000))
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = json.dumps(problem_body(problem, request_id), ensure_ascii=False)
    return Response(
        # a name that a caller chose may hold half a surrogate pair, which is no text
        body.encode(errors="replace"),
        status_code=problem.status,
        headers=headers,
        media_type="application/problem+json",
    )


def documented(*problems: type[ProblemError]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI `responses` for the problems that a route can answer with."""
    by_status: dict[int | str, list[str]] = {}
    for problem in problems:
        by_status.setdefault(problem.status, []).append(problem.title)
    schema = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": "; ".join(titles), "content": schema}
        for status, titles in by_status.items()
    }


def install(app: FastAPI) -> None:
    """Make every exception of `app` a problem, in fact and in its OpenAPI."""
    _document(app)
    app.add_exception_handler(ProblemError, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_bug)


def _document(app: FastAPI) -> None:
    """Have the OpenAPI hold the Problem schema, and say `problem+json` where FastAPI assumes its
    own shape of a validation error."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = plain()
            for operations in schema["paths"].values():
                for operation in operations.values():
                    _say_problem(operation)
            schemas = schema["components"]["schemas"]
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            schemas["WrongField"] = WrongField.model_json_schema()
            problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            problem.pop("$defs")
            schemas["Problem"] = problem
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]


def _say_problem(operation: dict[str, Any]) -> None:
    invalid = operation["responses"].get("422", {}).get("content", {}).get("application/json")
    if invalid and invalid["schema"].get("$ref", "").endswith("/HTTPValidationError"):
        operation["responses"]["422"] = documented(InvalidRequest)[422]


def _request_id(request: Request) -> str | None:
    request_id: str | None = request.scope.get("state", {}).get("request_id")
    return request_id


async def _on_problem(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, ProblemError)
    return problem_response(problem, _request_id(request))


async def _on_invalid(request: Request, invalid: Exception) -> Response:
    assert isinstance(invalid, RequestValidationError)
    problem = as_problem(invalid.errors())
    kind = request.headers.get("content-type", "").partition(";")[0]
    if problem.errors and problem.errors[0].loc == "/" and not kind.endswith("json"):
        problem.errors = (FieldError("header/content-type", "must be application/json"),)
    return problem_response(problem, _request_id(request))


_MOST_ERRORS = 100
"""That are told of one request."""


def as_problem(errors: Any) -> ProblemError:
    """Pydantic's errors as one of ours."""
    fields = [FieldError(_pointer(error["loc"]), error["msg"]) for error in errors[:_MOST_ERRORS]]
    if more := len(errors) - len(fields):
        fields.append(FieldError("", f"and {more} more"))
    if any(error["type"] == "json_invalid" for error in errors):
        return MalformedBody("The body is not valid JSON", errors=fields)
    return InvalidRequest(errors=fields)


def _pointer(loc: tuple[str | int, ...]) -> str:
    place, *path = loc
    parts = (str(part).replace("~", "~0").replace("/", "~1") for part in path)
    return "/" + "/".join(parts) if place == "body" else "/".join((str(place), *parts))


_BY_STATUS: Mapping[int, type[ProblemError]] = {404: NotFound, 400: MalformedBody}


async def _on_http_exception(request: Request, raised: Exception) -> Response:
    assert isinstance(raised, HTTPException)
    kind = _BY_STATUS.get(raised.status_code, ProblemError)
    problem = kind(str(raised.detail))
    if kind is ProblemError:
        problem.status, problem.title = raised.status_code, str(raised.detail)
        problem.code, problem.detail = f"http_{raised.status_code}", ""
    response = problem_response(problem, _request_id(request))
    response.headers.update(raised.headers or {})
    if raised.status_code == 405:
        response.headers["Allow"] = ", ".join(_methods(request))
    return response


def _methods(request: Request) -> list[str]:
    """What the path of a request understands: Starlette's own answer stops at its first route."""
    routes = (route for route in request.app.routes if isinstance(route, APIRoute))
    path = request.scope["path"]
    return sorted({m for route in routes if route.path_regex.match(path) for m in route.methods})


async def _on_bug(request: Request, bug: Exception) -> Response:
    log.error("unhandled error", exc_info=bug)
    return problem_response(ProblemError(), _request_id(request))
