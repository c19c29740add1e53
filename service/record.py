"""The last stage: what an answer leaves behind.

Runs shielded: a client that goes away cannot cancel it.
"""

from service import tracing
from service.answer import Answer
from service.services import Services


async def record(answer: Answer, services: Services) -> None:
    """Count the answer in the metrics, and export its spans where traces are wanted."""
    with answer.stages.timed("record"):
        _count(answer, services)
        if services.tracer is not None:
            stages = answer.stages
            tracing.export_spans(
                services.tracer, answer.trace_headers, stages.total_s, stages.seconds
            )


def _count(answer: Answer, services: Services) -> None:
    metrics, stages = services.metrics, answer.stages
    metrics.respond_seconds.labels(answer.finish_reason).observe(stages.total_s)
    for stage, seconds in stages.seconds.items():
        metrics.stage_seconds.labels(stage).observe(seconds)
    if stages.ttft_s is not None:
        metrics.ttft_seconds.observe(stages.ttft_s)
    if answer.usage.completion_tokens > 1:
        metrics.tpot_seconds.observe(
            stages.seconds["decode"] / (answer.usage.completion_tokens - 1)
        )
    if answer.finish_reason == "abort":
        metrics.aborted.inc()
    metrics.answer_ads.observe(len(answer.ads))
    for excluded in answer.offers.excluded:
        metrics.excluded.labels(excluded.reason).inc()
    for fault in answer.faults:
        metrics.faults.labels(fault.kind).inc()
    metrics.tokens.labels("prompt").inc(answer.usage.prompt_tokens)
    metrics.tokens.labels("cached").inc(answer.usage.cached_tokens)
    metrics.tokens.labels("completion").inc(answer.usage.completion_tokens)
