"""From an Answer to what is sent: the response object and its server-sent events."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from models.contract.markers import Fault
from service.answer import DISCLOSURE, AdPart, Answer, TextPart
from service.api.schemas import (
    AdSegment,
    ChargeTerms,
    ExcludedCandidate,
    InsertionFault,
    LatencyMs,
    ModelUsed,
    RespondResponse,
    ShownAd,
    Span,
    TextSegment,
    TokenUsage,
)
from service.auction.money import to_text

_MARKDOWN_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#|!~])")


@dataclass(frozen=True, slots=True)
class ClickLink:
    """Makes the addresses that count clicks. base_url: where browsers reach this service."""

    base_url: str

    def to(self, part: AdPart) -> str | None:
        """The address for an ad in an answer; None where its clicks cost nothing."""
        return f"{self.base_url.rstrip('/')}/c/{part.token}" if part.token else None


def as_response(answer: Answer, link: ClickLink) -> RespondResponse:
    """The full response of `POST /respond`."""
    return RespondResponse(
        response_id=answer.response_id,
        answer=answer.text,
        segments=_segments(answer.parts),
        markdown="".join(_markdown(part, link) for part in answer.parts),
        ads=[_shown(part, link) for part in answer.ads],
        ads_unavailable=answer.offers.is_unavailable,
        holdout=answer.offers.is_held_out,
        excluded=[
            ExcludedCandidate(ad_id=e.ad_id, reason=e.reason) for e in answer.offers.excluded
        ],
        faults=[_fault(fault) for fault in answer.faults],
        model=ModelUsed(
            name=answer.model.name, revision=answer.model.revision, contract=answer.contract
        ),
        latency_ms=_latency(answer),
        usage=TokenUsage(
            prompt_tokens=answer.usage.prompt_tokens,
            cached_tokens=answer.usage.cached_tokens,
            completion_tokens=answer.usage.completion_tokens,
        ),
        finish_reason=answer.finish_reason,
    )


def as_event(part: TextPart | AdPart | RespondResponse, link: ClickLink) -> bytes:
    """One part of a stream as a server-sent event: `text`, `ad`, or `done` for the whole."""
    match part:
        case TextPart():
            return _event("text", _text_json(part.text))
        case AdPart():
            return _event("ad", _shown(part, link).model_dump_json())
        case RespondResponse():
            return _event("done", part.model_dump_json())


def replayed(response: RespondResponse) -> Iterable[bytes]:
    """The events of a stored response, as they would have been streamed."""
    ads = iter(response.ads)
    for segment in response.segments:
        if isinstance(segment, AdSegment):
            yield _event("ad", next(ads).model_dump_json())
        else:
            yield _event("text", segment.model_dump_json())
    yield _event("done", response.model_dump_json())


def error_event(problem: str) -> bytes:
    """A problem (its JSON) that arose after the stream had begun."""
    return _event("error", problem)


def _event(name: str, data: str) -> bytes:
    """`data` is JSON, which holds no line break."""
    return f"event: {name}\ndata: {data}\n\n".encode()


def _text_json(text: str) -> str:
    """As `TextSegment` writes it, at a third of its cost: there is one for every token."""
    return f'{{"type":"text","text":{json.dumps(text, ensure_ascii=False)}}}'


def _segments(parts: Iterable[TextPart | AdPart]) -> list[TextSegment | AdSegment]:
    segments: list[TextSegment | AdSegment] = []
    for part in parts:
        if isinstance(part, AdPart):
            segments.append(
                AdSegment(text=part.segment.text, ad_id=part.offer.ad.ad_id, disclosure=DISCLOSURE)
            )
        elif segments and isinstance(segments[-1], TextSegment):
            segments[-1].text += part.text
        else:
            segments.append(TextSegment(text=part.text))
    return segments


def _shown(part: AdPart, link: ClickLink) -> ShownAd:
    charge = part.charge
    return ShownAd(
        ad_id=part.offer.ad.ad_id,
        title=part.offer.ad.title,
        landing_url=part.offer.ad.landing_url,
        span=Span(start=part.segment.start, end=part.segment.end),
        disclosure=DISCLOSURE,
        charge=ChargeTerms(
            event=charge.event,
            rule=charge.rule,
            price_micros=charge.price_micros,
            price=to_text(charge.price_micros),
            currency=charge.currency,
            expires_at=charge.expires_at.isoformat(timespec="seconds"),
        ),
        click_url=link.to(part),
    )


def _markdown(part: TextPart | AdPart, link: ClickLink) -> str:
    if isinstance(part, TextPart):
        return part.text
    title = _MARKDOWN_SPECIAL.sub(r"\\\1", part.segment.text)
    url = link.to(part) or part.offer.ad.landing_url
    return f"[{title}](<{url}>) ({DISCLOSURE})"


def _fault(fault: Fault) -> InsertionFault:
    return InsertionFault(
        kind=fault.kind, span=Span(start=fault.start, end=fault.end), ad_id=fault.ad_id
    )


def _latency(answer: Answer) -> LatencyMs:
    stages = answer.stages
    ttft_ms = None if stages.ttft_s is None else _ms(stages.ttft_s)
    stage_ms = {name: _ms(seconds) for name, seconds in stages.seconds.items()}
    return LatencyMs(total=_ms(stages.total_s), ttft=ttft_ms, **stage_ms)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
