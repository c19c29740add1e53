"""Everything the service tells a caller has gone wrong, as problem details (RFC 9457).

    ProblemError                        status
    ├── InvalidRequest                  422  a field is wrong: where, and what is allowed
    ├── MalformedBody                   400  the body is not what its content type says
    ├── Unauthorized                    401  no API key, or an unknown one
    ├── Forbidden                       403  the key's scopes do not cover this
    ├── NotFound                        404
    ├── IdempotencyConflict             409  the key was used with another body
    ├── BodyTooLarge                    413
    ├── PromptTooLarge                  422  query and conversation exceed the model's context
    ├── UnsupportedMediaType            415
    └── Unavailable                     503  try again later (`Retry-After`)
        ├── Overloaded                       the bound on requests at once is reached
        ├── Draining                         the process is shutting down
        ├── StoreDown                        Redis is away
        └── ModelUnavailable                 the engine is away or has died

Each class carries its status and a stable `code`; one handler (`service/api/problems.py`)
renders them. `latency` of a refusal is milliseconds: nothing is started before it is raised.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FieldError:
    """A wrong field: `loc`, a JSON pointer or row and column; `msg`, what is wrong and allowed."""

    loc: str
    msg: str


class ProblemError(Exception):
    """An error with a sentence for the caller. `code` is stable; `detail` is for people."""

    status = 500
    code = "internal_error"
    title = "Something broke on our side"

    def __init__(
        self,
        detail: str = "",
        *,
        errors: Sequence[FieldError] = (),
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail
        self.errors = tuple(errors)
        self.retry_after_ms = retry_after_ms


class InvalidRequest(ProblemError):
    status, code, title = 422, "invalid_request", "The request holds a wrong field"


class MalformedBody(ProblemError):
    status, code, title = 400, "malformed_body", "The body could not be read"


class Unauthorized(ProblemError):
    status, code, title = 401, "unauthorized", "An API key is needed"


class Forbidden(ProblemError):
    status, code, title = 403, "forbidden", "The API key does not allow this"


class NotFound(ProblemError):
    status, code, title = 404, "not_found", "There is no such thing"


class IdempotencyConflict(ProblemError):
    status, code = 409, "idempotency_conflict"
    title = "This Idempotency-Key was used with another body"


class IdempotencyInProgress(ProblemError):
    status, code = 409, "idempotency_in_progress"
    title = "The first request with this Idempotency-Key still runs"


class BodyTooLarge(ProblemError):
    status, code, title = 413, "body_too_large", "The body is too large"


class PromptTooLarge(ProblemError):
    status, code = 422, "prompt_too_large"
    title = "Query and conversation exceed the model's context"


class UnsupportedMediaType(ProblemError):
    status, code, title = 415, "unsupported_media_type", "This content type is not understood"


class Unavailable(ProblemError):
    status, code, title = 503, "unavailable", "Try again later"


class Overloaded(Unavailable):
    code, title = "overloaded", "Too many requests are running"


class Draining(Unavailable):
    code, title = "draining", "The server is shutting down"


class StoreDown(Unavailable):
    code, title = "store_unavailable", "The ad store does not answer"


class ModelUnavailable(Unavailable):
    code, title = "model_unavailable", "The model does not answer"
