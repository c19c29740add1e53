"""Traces: W3C `traceparent` accepted and passed on; spans exported where OpenTelemetry is set up.

Spans need the extra `otel` and `OTEL_EXPORTER_OTLP_ENDPOINT` (the standard variables of the
OpenTelemetry SDK apply). Without them only the headers travel.
"""

import os
import re
import secrets
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

_TRACEPARENT = re.compile(r"^00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})$")


def accept(traceparent: str | None) -> tuple[str, dict[str, str]]:
    """The trace id and the headers to pass on, for a request's `traceparent` (W3C Trace Context).

    A missing or malformed one begins a new trace, as the recommendation says.
    """
    match = _TRACEPARENT.match(traceparent or "")
    trace_id, flags = (match[1], match[3]) if match else (secrets.token_hex(16), "00")
    return trace_id, {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-{flags}"}


def start_tracer() -> "Tracer | None":
    """A tracer that exports by OTLP over HTTP, or None where no endpoint is configured.

    Raises RuntimeError where an endpoint is configured and the extra `otel` is missing.
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
        raise RuntimeError(
            "an OpenTelemetry endpoint is configured: install the extra with"
            " `pip install 'llm-auction[otel]'`"
        ) from missing
    provider = TracerProvider(resource=Resource.create({"service.name": "llm-auction"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider.get_tracer("llm-auction")


def export_spans(
    tracer: "Tracer", headers: Mapping[str, str], total_s: float, stages: Mapping[str, float]
) -> None:
    """A span `respond` that ends now, with a child for each stage, laid end to end.

    headers: the `traceparent` that was passed on. stages: name → seconds, in order. Insertions
    are read between tokens; their span stands after decoding and shows their sum.
    """
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    end = time.time_ns()
    at = end - int(total_s * 1e9)
    parent = TraceContextTextMapPropagator().extract(dict(headers))
    span = tracer.start_span("respond", context=parent, start_time=at)
    inside = trace.set_span_in_context(span)
    for name, seconds in stages.items():
        child = tracer.start_span(name, context=inside, start_time=at)
        at += int(seconds * 1e9)
        child.end(at)
    span.end(end)
