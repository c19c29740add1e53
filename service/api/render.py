"""From an Answer to what is sent: the response object and its server-sent events."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json

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
    assert answer.finish_reason != "error"  # that caller got a problem instead
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
            return _event(b"text", _text_json(part.text).encode())
        case AdPart():
            return _event(b"ad", to_json(_shown(part, link)))
        case _:
            return _event(b"done", to_json(part))


def replayed(response: RespondResponse) -> Iterable[bytes]:
    """The events of a stored response, as they would have been streamed."""
    ads = iter(response["ads"])
    for segment in response["segments"]:
        if segment["type"] == "ad":
            yield _event(b"ad", to_json(next(ads)))
        else:
            yield _event(b"text", to_json(segment))
    yield _event(b"done", to_json(response))


def error_event(problem: Mapping[str, Any]) -> bytes:
    """A problem that arose after the stream had begun."""
    return _event(b"error", json.dumps(problem).encode())


def _event(name: bytes, data: bytes) -> bytes:
    """`data` is JSON, which holds no line break."""
    return b"event: %b\ndata: %b\n\n" % (name, data)


def _text_json(text: str) -> str:
    """As `TextSegment` writes it, at a third of its cost: there is one for every token."""
    return f'{{"type":"text","text":{json.dumps(text, ensure_ascii=False)}}}'


def _segments(parts: Iterable[TextPart | AdPart]) -> list[TextSegment | AdSegment]:
    segments: list[TextSegment | AdSegment] = []
    for part in parts:
        if isinstance(part, AdPart):
            text, ad_id = part.segment.text, part.offer.ad.ad_id
            segments.append(AdSegment(type="ad", text=text, ad_id=ad_id, disclosure=DISCLOSURE))
        elif segments and segments[-1]["type"] == "text":
            segments[-1]["text"] += part.text
        else:
            segments.append(TextSegment(type="text", text=part.text))
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
    stages, seconds = answer.stages, answer.stages.seconds
    return LatencyMs(
        total=_ms(stages.total_s),
        eligible=_ms(seconds["eligible"]),
        prompt=_ms(seconds["prompt"]),
        queue=_ms(seconds["queue"]),
        ttft=None if stages.ttft_s is None else _ms(stages.ttft_s),
        prefill=_ms(seconds["prefill"]),
        decode=_ms(seconds["decode"]),
        insertions=_ms(seconds["insertions"]),
        record=_ms(seconds["record"]),
    )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
