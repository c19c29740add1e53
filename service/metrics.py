"""Every Prometheus collector of the service, named once.

Units are in the names; labels are enums or route templates, never a user, an ad or raw text.
vLLM registers its own collectors (`vllm:*`) on prometheus_client's default registry; `expose`
returns both.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

_SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 45, 60,
)  # fmt: skip
_STAGE_SECONDS = (0.0001, 0.00025, 0.0005, *_SECONDS)
STAGES = ("eligible", "prompt", "queue", "prefill", "decode", "insertions", "record")
_TOKEN_SECONDS = (0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1)


@dataclass(frozen=True)
class Metrics:
    """The collectors of one process, on a registry of their own."""

    registry: CollectorRegistry
    http_requests: Counter
    http_seconds: Histogram
    respond_seconds: Histogram
    stage_seconds: Histogram
    ttft_seconds: Histogram
    tpot_seconds: Histogram
    answer_ads: Histogram
    excluded: Counter
    faults: Counter
    aborted: Counter
    refused: Counter
    ads_unavailable: Counter
    unrecorded: Counter
    clicks: Counter
    charges: Counter
    spend_micros: Counter
    tokens: Counter
    in_flight: Gauge
    engine_requests: Gauge
    store_up: Gauge
    loop_lag_seconds: Histogram

    @cached_property
    def of_stage(self) -> Mapping[str, Histogram]:
        """`stage_seconds` by stage: to look a label up costs as much as to observe."""
        return {stage: self.stage_seconds.labels(stage) for stage in STAGES}

    @cached_property
    def of_tokens(self) -> Mapping[str, Counter]:
        """`tokens` by kind."""
        return {kind: self.tokens.labels(kind) for kind in ("prompt", "cached", "completion")}

    def watch_engine(self, running: Callable[[], float], waiting: Callable[[], float]) -> None:
        """Read the engine's load whenever metrics are scraped."""
        self.engine_requests.labels("running").set_function(running)
        self.engine_requests.labels("waiting").set_function(waiting)

    def count_charge(self, event: str, state: str, amount_micros: int) -> None:
        """One attempt to charge. amount_micros: what it takes where `state` is `charged`."""
        self.charges.labels(event, state).inc()
        if state == "charged":
            self.spend_micros.labels(event).inc(amount_micros)

    def expose(self) -> bytes:
        """The text exposition of these collectors and of the process's default ones."""
        return generate_latest(self.registry) + generate_latest(REGISTRY)


def create_metrics() -> Metrics:
    """A fresh set of collectors."""
    registry = CollectorRegistry()

    def counter(name: str, text: str, *labels: str) -> Counter:
        return Counter(f"llm_auction_{name}", text, labels, registry=registry)

    def gauge(name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"llm_auction_{name}", text, labels, registry=registry)

    def seconds(
        name: str, text: str, *labels: str, buckets: tuple[float, ...] = _SECONDS
    ) -> Histogram:
        return Histogram(
            f"llm_auction_{name}_seconds", text, labels, registry=registry, buckets=buckets
        )

    return Metrics(
        registry=registry,
        http_requests=counter("http_requests", "HTTP requests", "route", "method", "status"),
        http_seconds=seconds("http_request", "HTTP request, first byte to last", "route"),
        respond_seconds=seconds("respond", "One answer, door to record", "finish_reason"),
        stage_seconds=seconds("stage", "One stage of one answer", "stage", buckets=_STAGE_SECONDS),
        ttft_seconds=seconds("ttft", "Request to first token"),
        tpot_seconds=seconds(
            "tpot", "Time per output token after the first", buckets=_TOKEN_SECONDS
        ),
        answer_ads=Histogram(
            "llm_auction_answer_ads",
            "Ads inserted in an answer",
            registry=registry,
            buckets=(0, 1, 2, 3, 4, 5, 7, 10),
        ),
        excluded=counter("excluded_candidates", "Candidates not put before the model", "reason"),
        faults=counter("insertion_faults", "Insertions that are not billed", "kind"),
        aborted=counter("aborted", "Answers whose client went away"),
        refused=counter("refused", "Requests refused at the door", "reason"),
        ads_unavailable=counter("ads_unavailable", "Answers without ads as the store was away"),
        unrecorded=counter("unrecorded", "Answers that the store could not record"),
        clicks=counter("clicks", "Clicks", "outcome"),
        charges=counter(
            "charges", "Attempts to charge, for clicks or impressions", "event", "state"
        ),
        spend_micros=counter("spend_micros", "Charged, in micros of the currency", "event"),
        tokens=counter("tokens", "Tokens", "kind"),
        in_flight=gauge("in_flight_requests", "Answers in the making"),
        engine_requests=gauge("engine_requests", "Requests inside the engine", "state"),
        store_up=gauge("store_up", "1 while the ad store answers, 0 while its breaker is open"),
        loop_lag_seconds=seconds(
            "loop_lag", "How late the event loop comes to what is due", buckets=_STAGE_SECONDS
        ),
    )
