"""The last stage: what an answer leaves behind. One round trip to the store, all or nothing.

Clicks that came while the answer was written are charged with it. Runs shielded: a client that goes
away cannot cancel it. Where the store is away the answer is given all the same; its clicks then
lead to their pages and cost nobody anything, as nothing says that the ads were shown.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from service import tracing
from service.answer import Answer, Ask
from service.click import known_for_s
from service.metrics import Metrics
from service.receipt import build_receipt, sign_receipt
from service.services import Services
from service.store.connection import StoreUnavailable
from service.store.counters import Served
from service.store.ledger import ChargeRequest, ChargeState

log = logging.getLogger(__name__)


async def record(ask: Ask, answer: Answer, services: Services) -> None:
    """Keep the receipt, where clicks lead, impressions and counts; measure; export spans."""
    stages = answer.stages
    if not ask.is_probe:
        with stages.timed("record"):
            await _keep(ask, answer, services)
        _measure(answer, services)  # this stage too, so once it has ended
    if services.tracer is not None:
        tracing.export_stages(services.tracer, answer.trace_headers, stages.total_s, stages.seconds)


async def _keep(ask: Ask, answer: Answer, services: Services) -> None:
    receipt = build_receipt(
        ask, answer, ask.caller, services.secret, services.settings.receipts.with_text
    )
    user: str | None = receipt["user"]
    try:
        given = await services.receipts.save(
            answer.response_id,
            sign_receipt(receipt, services.signing.current),
            user,
            ask.now,
            *_commands(ask, answer, user, services),
        )
        if answer.ads:
            _measure_charges(answer, services.ledger.states(given[-1]), services.metrics)
    except StoreUnavailable:
        services.metrics.unrecorded.inc()
        log.warning("an answer could not be recorded: the store is away")


def _commands(
    ask: Ask, answer: Answer, user: str | None, services: Services
) -> Iterator[Callable[[Any], Any]]:
    """What goes along with the receipt, each onto the same pipeline."""
    ads = [part.offer.ad for part in answer.ads]
    at = services.local_time(ask.now)
    served = Served(
        eligible=[offer.ad.ad_id for offer in answer.offers.eligible],
        shown={ad.ad_id: ad.advertiser_id for ad in ads},
        excluded=[(excluded.ad_id, excluded.reason) for excluded in answer.offers.excluded],
        is_held_out=answer.offers.is_held_out,
    )
    yield lambda pipeline: services.counters.count(pipeline, at.date(), served)
    if not ads:
        return
    if user is not None and services.settings.auction.frequency_cap is not None:
        ad_ids = [ad.ad_id for ad in ads]
        yield lambda pipeline: services.showings.command(
            pipeline, user, answer.response_id, ad_ids, ask.now
        )
    # nothing can come between the record and the charges for clicks that were waiting for it
    is_parked = answer.ads[0].charge.event == "click"
    parked_key = services.click_targets.parked_key(answer.response_id) if is_parked else None
    requests = charges(answer, at, services)
    yield lambda pipeline: services.click_targets.write(pipeline, answer.response_id, ads)
    yield lambda pipeline: services.ledger.charge_all(pipeline, requests, parked_key)


def charges(answer: Answer, at: datetime, services: Services) -> list[ChargeRequest]:
    """What each of the answer's ads costs for the event that it is paid for, should that happen."""
    return [
        ChargeRequest(
            response_id=answer.response_id,
            ad_id=part.offer.ad.ad_id,
            advertiser_id=part.offer.ad.advertiser_id,
            event=part.charge.event,
            price_micros=part.charge.price_micros,
            bid_micros=part.offer.bid_micros,
            position=position,
            at=at,
            dedupe_ttl_s=known_for_s(part.charge.expires_at.timestamp(), services.settings, at),
        )
        for position, part in enumerate(answer.ads, 1)
    ]


def _measure_charges(answer: Answer, states: Mapping[str, ChargeState], metrics: Metrics) -> None:
    for part in answer.ads:
        if (state := states.get(part.offer.ad.ad_id)) is not None:
            metrics.count_charge(part.charge.event, state, part.charge.price_micros)


def _measure(answer: Answer, services: Services) -> None:
    metrics, stages = services.metrics, answer.stages
    metrics.respond_seconds.labels(answer.finish_reason).observe(stages.total_s)
    for stage, seconds in stages.seconds.items():
        metrics.of_stage[stage].observe(seconds)
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
    metrics.of_tokens["prompt"].inc(answer.usage.prompt_tokens)
    metrics.of_tokens["cached"].inc(answer.usage.cached_tokens)
    metrics.of_tokens["completion"].inc(answer.usage.completion_tokens)
