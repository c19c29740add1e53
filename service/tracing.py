"""Traces: W3C `traceparent` accepted and passed on; spans exported where OpenTelemetry is set up.

Spans need the extra `otel` and `OTEL_EXPORTER_OTLP_ENDPOINT` (the standard variables of the
OpenTelemetry SDK apply). Without them only the headers travel.
"""

import os
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

_TRACEPARENT = re.compile(r"^00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})$")
_FIRST_SERVER_ERROR = 500


class TracingError(Exception):
    """Spans cannot be exported as configured; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Where a request stands in its trace. headers: for whatever works on its behalf.

    span: of the whole request; None where none are exported.
    """

    trace_id: str
    headers: Mapping[str, str]
    span: "Span | None" = None


def start_tracer() -> "Tracer | None":
    """A tracer that exports by OTLP over HTTP, or None where no endpoint is configured.

    Raises TracingError where an endpoint is configured and the extra `otel` is missing.
    """
    if not (
        os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
        or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    ):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as missing:
        raise TracingError(
            "an OpenTelemetry endpoint is configured: install the extra with"
            " `pip install 'llm-auction[otel]'`"
        ) from missing
    provider = TracerProvider(resource=Resource.create({"service.name": "llm-auction"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider.get_tracer("llm-auction")


def begin(headers: Mapping[str, str], tracer: "Tracer | None") -> Trace:
    """The trace of a request with these headers (W3C Trace Context).

    A missing or malformed `traceparent` begins a new trace, as the recommendation says; whether
    that one is sampled is the tracer's to decide.
    """
    if tracer is None:
        match = _TRACEPARENT.match(headers.get("traceparent", ""))
        trace_id, flags = (match[1], match[3]) if match else (secrets.token_hex(16), "00")
        return Trace(trace_id, {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-{flags}"})
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    propagator = TraceContextTextMapPropagator()
    callers = propagator.extract(headers)
    span = tracer.start_span("request", context=callers, kind=trace.SpanKind.SERVER)
    onward: dict[str, str] = {}
    propagator.inject(onward, context=trace.set_span_in_context(span))
    return Trace(trace.format_trace_id(span.get_span_context().trace_id), onward, span)


def end(trace: Trace, method: str, route: str, status: int) -> None:
    """End the request's span, named and described as OpenTelemetry's conventions for HTTP say."""
    if trace.span is None:
        return
    from opentelemetry.trace import StatusCode

    trace.span.update_name(f"{method} {route}")
    trace.span.set_attributes(
        {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
        }
    )
    if status >= _FIRST_SERVER_ERROR:
        trace.span.set_status(StatusCode.ERROR)
    trace.span.end()


def export_stages(
    tracer: "Tracer", headers: Mapping[str, str], total_s: float, stages: Mapping[str, float]
) -> None:
    """A span for each stage of an answer that took `total_s` until now, laid end to end.

    headers: of the request's Trace. stages: name → seconds, in order. Insertions are read between
    tokens; their span stands after decoding and shows their sum.
    """
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    inside = TraceContextTextMapPropagator().extract(headers)
    at = time.time_ns() - int(total_s * 1e9)
    for name, seconds in stages.items():
        span = tracer.start_span(name, context=inside, start_time=at)
        at += int(seconds * 1e9)
        span.end(at)
