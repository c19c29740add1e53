"""Spans of requests to the service around a scripted engine, as an OpenTelemetry SDK has them."""

import sys
from dataclasses import replace

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode, Tracer, format_span_id, format_trace_id
from scripted import ScriptedEngine, scripted_services

from models.engine.interface import EngineUnavailable
from service import tracing
from service.api import operations, problems, respond
from service.api.access import Access
from service.api.door import Door
from service.store.connection import Store

CALLERS = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLERS_SPAN = "00f067aa0ba902b7"
ASK = {"query": "Which boots?"}


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: InMemorySpanExporter) -> Tracer:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("test")


def client(store: Store, tracer: Tracer, engine: ScriptedEngine) -> httpx.AsyncClient:
    services = replace(scripted_services(store, engine), tracer=tracer)
    app = FastAPI()
    app.state.services = services
    for resource in (respond, operations):
        app.include_router(resource.router())
    problems.install(app)
    metrics, life = services.metrics, services.life
    app.add_middleware(Door, settings=services.settings, keys=(), metrics=metrics, life=life)
    app.add_middleware(Access, metrics=metrics, tracer=tracer)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


def split(spans: tuple[ReadableSpan, ...]) -> tuple[ReadableSpan, list[ReadableSpan]]:
    """The request's span and those within it."""
    [request] = [span for span in spans if span.kind is SpanKind.SERVER]
    return request, [span for span in spans if span is not request]


def trace_of(span: ReadableSpan) -> str:
    return format_trace_id(span.context.trace_id)


class TestSpans:
    async def test_a_request_without_a_trace_begins_one(
        self, store: Store, tracer: Tracer, exporter: InMemorySpanExporter
    ) -> None:
        engine = ScriptedEngine(["Fine."])
        async with client(store, tracer, engine) as http:
            await http.post("/respond", json=ASK)
        request, stages = split(exporter.get_finished_spans())
        assert (request.name, request.parent) == ("POST /respond", None)
        assert (request.attributes or {})["http.response.status_code"] == 200
        names = ["eligible", "prompt", "queue", "prefill", "decode", "insertions", "record"]
        assert [stage.name for stage in stages] == names
        for stage in stages:
            assert stage.parent is not None
            assert stage.parent.span_id == request.context.span_id
            assert (request.start_time or 0) <= (stage.start_time or 0) <= (stage.end_time or 0)
        assert (stages[-1].end_time or 0) > (stages[-1].start_time or 0)
        span_id = format_span_id(request.context.span_id)
        onward = engine.generations[0].trace_headers["traceparent"]
        *place, flags = onward.split("-")
        assert place == ["00", trace_of(request), span_id]
        assert int(flags, 16) & 1  # sampled

    async def test_a_request_with_one_goes_on_in_it(
        self, store: Store, tracer: Tracer, exporter: InMemorySpanExporter
    ) -> None:
        headers = {"traceparent": f"00-{CALLERS}-{CALLERS_SPAN}-01"}
        async with client(store, tracer, ScriptedEngine(["Fine."])) as http:
            await http.post("/respond", json=ASK, headers=headers)
        spans = exporter.get_finished_spans()
        request, _ = split(spans)
        assert request.parent is not None
        assert format_span_id(request.parent.span_id) == CALLERS_SPAN
        assert {trace_of(span) for span in spans} == {CALLERS}

    @pytest.mark.parametrize("traceparent", ["", "00-xyz-1-01", f"00-{'0' * 32}-{CALLERS_SPAN}-01"])
    async def test_a_malformed_one_is_none(
        self, store: Store, tracer: Tracer, exporter: InMemorySpanExporter, traceparent: str
    ) -> None:
        async with client(store, tracer, ScriptedEngine(["Fine."])) as http:
            await http.post("/respond", json=ASK, headers={"traceparent": traceparent})
        request, _ = split(exporter.get_finished_spans())
        assert request.parent is None

    async def test_what_the_caller_does_not_sample_is_not_exported(
        self, store: Store, tracer: Tracer, exporter: InMemorySpanExporter
    ) -> None:
        headers = {"traceparent": f"00-{CALLERS}-{CALLERS_SPAN}-00"}
        engine = ScriptedEngine(["Fine."])
        async with client(store, tracer, engine) as http:
            await http.post("/respond", json=ASK, headers=headers)
        assert not exporter.get_finished_spans()
        assert engine.generations[0].trace_headers["traceparent"].endswith("-00")

    async def test_a_trace_begun_here_is_sampled_as_configured(
        self, store: Store, exporter: InMemorySpanExporter
    ) -> None:
        provider = TracerProvider(sampler=ParentBased(ALWAYS_OFF))
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        async with client(store, provider.get_tracer("test"), ScriptedEngine(["Fine."])) as http:
            await http.post("/respond", json=ASK)
        assert not exporter.get_finished_spans()

    async def test_a_failure_is_marked_as_one(
        self, store: Store, tracer: Tracer, exporter: InMemorySpanExporter
    ) -> None:
        async with client(store, tracer, ScriptedEngine([EngineUnavailable("away")])) as http:
            assert (await http.post("/respond", json=ASK)).status_code == 503
        request, _ = split(exporter.get_finished_spans())
        assert request.status.status_code is StatusCode.ERROR

    async def test_what_machines_ask_for_all_the_time_has_none(
        self, store: Store, tracer: Tracer, exporter: InMemorySpanExporter
    ) -> None:
        async with client(store, tracer, ScriptedEngine([])) as http:
            await http.get("/healthz")
        assert not exporter.get_finished_spans()


class TestStart:
    @pytest.fixture(autouse=True)
    def environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
        monkeypatch.delenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", raising=False)

    def test_without_an_endpoint_nothing_is_exported(self) -> None:
        assert tracing.start_tracer() is None

    def test_an_endpoint_without_the_extra_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
        monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
        with pytest.raises(tracing.TracingError, match=r"llm-auction\[otel\]"):
            tracing.start_tracer()
