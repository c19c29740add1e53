"""One click, from its signed terms to its charge. Knows nothing of HTTP.

A click is charged once, at the price that the answer promised, until the terms expire, and only
where the answer was recorded: what left no receipt is never billed. Pausing or changing the ad
since makes no difference; one that was deleted has no budget left to pay with. A browser's click on
an answer that is still being streamed is kept, and charged once the answer is recorded.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from zoneinfo import ZoneInfo

from service.answer import Answer
from service.auction.click_token import ClickTerms, read
from service.services import Services
from service.store.click_targets import ClickTarget
from service.store.ledger import ChargeRequest, ChargeState

_AFTERLIFE_S = 86_400
"""For how much longer a charge is known than it can be repeated or looked up."""


class ClickOutcome(StrEnum):
    """What became of a click. Doubles as a metric label, beside NoClick's."""

    CHARGED = "charged"
    DUPLICATE = "duplicate"
    EXPIRED = "expired"
    BUDGET_EXHAUSTED = "budget_exhausted"
    PARKED = "parked"
    """The answer is still being written: charged when it is recorded, or never."""
    UNRECORDED = "unrecorded"
    """The answer left no receipt: the store was away when it ended."""
    FORGED = "forged"
    STORE_UNAVAILABLE = "store_unavailable"


_WRITTEN_FOR_S = 600
"""No answer is written for longer."""

_OUTCOMES = {
    ChargeState.CHARGED: ClickOutcome.CHARGED,
    ChargeState.DUPLICATE: ClickOutcome.DUPLICATE,
    ChargeState.BUDGET_EXHAUSTED: ClickOutcome.BUDGET_EXHAUSTED,
}


@dataclass(frozen=True, slots=True)
class Settled:
    """What a click came to. Of a duplicate with the first one's `client_event_id`, `is_replayed`,
    and charge and amount are the first one's."""

    outcome: ClickOutcome
    charge_id: str | None = None
    amount_micros: int = 0
    is_replayed: bool = False


async def settle(
    terms: ClickTerms,
    target: ClickTarget,
    services: Services,
    now: datetime,
    client_event_id: str | None = None,
) -> Settled:
    """Charge a click on `terms`, which must be genuine. Raises StoreUnavailable.

    target: where the click leads, as the store said.
    """
    if now.timestamp() >= terms.expires_at:
        return Settled(ClickOutcome.EXPIRED)
    if target.advertiser_id is None:
        return Settled(ClickOutcome.UNRECORDED)
    settings = services.settings
    lives_s = max(terms.expires_at - int(now.timestamp()), settings.receipts.retention_s)
    charged = await services.ledger.charge(
        ChargeRequest(
            response_id=terms.response_id,
            ad_id=terms.ad_id,
            advertiser_id=target.advertiser_id,
            event=terms.event,
            price_micros=terms.price_micros,
            bid_micros=terms.price_micros,
            position=terms.position,
            at=now.astimezone(ZoneInfo(settings.auction.timezone)),
            dedupe_ttl_s=lives_s + _AFTERLIFE_S,
            client_event_id=client_event_id,
        )
    )
    services.metrics.count_charge(terms.event, charged.state, charged.amount_micros)
    return Settled(
        _OUTCOMES[charged.state], charged.charge_id, charged.amount_micros, charged.replayed
    )


async def settle_or_park(
    token: str, terms: ClickTerms, target: ClickTarget, services: Services, now: datetime
) -> Settled:
    """Charge a browser's click, or keep it where its answer may still be written.

    token: the one that holds `terms`. Raises StoreUnavailable.
    """
    settled = await settle(terms, target, services, now)
    is_fresh = now.timestamp() - terms.issued_at <= _WRITTEN_FOR_S
    if settled.outcome is not ClickOutcome.UNRECORDED or not is_fresh:
        return settled
    advertiser_id = await services.click_targets.park(terms.response_id, terms.ad_id, token)
    if advertiser_id is None:
        return Settled(ClickOutcome.PARKED)
    recorded = ClickTarget(target.landing_url, advertiser_id)  # between our two looks
    return await settle(terms, recorded, services, now)


async def settle_parked(
    tokens: Iterable[bytes], answer: Answer, services: Services, now: datetime
) -> list[Settled]:
    """Charge the clicks that were made while `answer`, recorded just now, was being written.

    tokens: what `ClickTargets.write` gave. Raises StoreUnavailable.
    """
    ads = {part.offer.ad.ad_id: part.offer.ad for part in answer.ads}
    settled = []
    for token in tokens:
        terms = read(token.decode(), services.signing)
        ad = ads[terms.ad_id]
        target = ClickTarget(ad.landing_url, ad.advertiser_id)
        settled.append(await settle(terms, target, services, now))
    return settled
