"""One click, from its signed terms to its charge. Knows nothing of HTTP.

A click is charged once, at the price that the answer promised, until the terms expire, and only
where the answer was recorded: what left no receipt is never billed. Pausing or changing the ad
since makes no difference; one that was deleted has no budget left to pay with. A browser's click on
an answer that is still being streamed is kept, and charged by the very transaction that records the
answer (`service/record.py`).
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from zoneinfo import ZoneInfo

from service.auction.click_token import ClickTerms
from service.services import Services
from service.settings import Settings
from service.store.click_targets import ClickTarget
from service.store.ledger import ChargeRequest, ChargeState

_AFTERLIFE_S = 86_400


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
            dedupe_ttl_s=known_for_s(terms.expires_at, settings, now),
            client_event_id=client_event_id,
        )
    )
    services.metrics.count_charge(terms.event, charged.state, charged.amount_micros)
    return Settled(
        _OUTCOMES[charged.state], charged.charge_id, charged.amount_micros, charged.replayed
    )


def known_for_s(expires_at: float, settings: Settings, now: datetime) -> int:
    """How long a charge that is made `now` is known.

    That is longer than it can be repeated, until `expires_at` (epoch seconds), whatever tokens live
    for by now, and longer than its receipt shows it.
    """
    left_s = int(expires_at - now.timestamp())
    return max(left_s, settings.receipts.retention_s) + _AFTERLIFE_S


async def settle_or_park(
    terms: ClickTerms, target: ClickTarget, services: Services, now: datetime
) -> Settled:
    """Charge a browser's click, or keep it where its answer may still be written.

    Raises StoreUnavailable.
    """
    settled = await settle(terms, target, services, now)
    is_fresh = now.timestamp() - terms.issued_at <= _WRITTEN_FOR_S
    if settled.outcome is not ClickOutcome.UNRECORDED or not is_fresh:
        return settled
    advertiser_id = await services.click_targets.park(terms.response_id, terms.ad_id)
    if advertiser_id is None:
        return Settled(ClickOutcome.PARKED)
    recorded = ClickTarget(target.landing_url, advertiser_id)  # between our two looks
    return await settle(terms, recorded, services, now)
