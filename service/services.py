"""What a request needs, made once at start and handed down: the composition root's result."""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from models.engine.interface import Engine
from service.auction.eligibility import Terms
from service.auction.holdout import is_held_out
from service.auction.money import to_micros
from service.auction.pacing import Pace, elapsed_share
from service.auction.signing_key import SigningKeys
from service.life import Life
from service.metrics import Metrics
from service.settings import Settings
from service.store.advertisers import Advertisers
from service.store.catalog import Catalog
from service.store.click_targets import ClickTargets
from service.store.connection import Store
from service.store.counters import Counters
from service.store.idempotency import IdempotencyStore
from service.store.ledger import Ledger
from service.store.receipts import Receipts
from service.store.showings import Showings

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer


@dataclass(frozen=True)
class Services:
    """`secret`: 32 random bytes of this deployment, kept in the state directory."""

    settings: Settings
    engine: Engine
    catalog: Catalog
    advertisers: Advertisers
    idempotency: IdempotencyStore
    ledger: Ledger
    receipts: Receipts
    click_targets: ClickTargets
    showings: Showings
    counters: Counters
    signing: SigningKeys
    metrics: Metrics
    life: Life
    secret: bytes
    tracer: "Tracer | None" = None

    def order_salt(self, day: date) -> bytes:
        """What the order of candidates in the prompt is drawn from; another one every day."""
        return self._derived(f"candidate order {day}")

    def is_held_out(self, user_id: str | None) -> bool:
        """Whether this user gets answers without ads, for comparison."""
        share = self.settings.auction.holdout_share
        return share > 0 and is_held_out(user_id, share, self._derived("holdout"))

    def local_time(self, now: datetime) -> datetime:
        """`now` in the time zone whose days budgets and reports count."""
        return now.astimezone(self._zone)

    def terms(self, response_id: str, now: datetime) -> Terms:
        """What every candidate for this answer has to meet."""
        auction = self.settings.auction
        pace = None
        if auction.pacing == "even":
            share = elapsed_share(now, self._zone)
            pace = Pace(share, response_id, self._derived("pacing"))
        return Terms(auction.frequency_cap, pace, self.pctr)

    @cached_property
    def floor_micros(self) -> int:
        """The lowest bid that this deployment takes."""
        return to_micros(self.settings.auction.floor)

    @property
    def pctr(self) -> float | None:
        """The click rate at which impressions are priced; None where clicks are paid for."""
        auction = self.settings.auction
        return auction.pctr if auction.event == "impression" else None

    @cached_property
    def _zone(self) -> ZoneInfo:
        return ZoneInfo(self.settings.auction.timezone)

    @cached_property
    def _derived(self) -> Callable[[str], bytes]:
        """A secret of its own for each purpose; they are few at a time."""

        @lru_cache(maxsize=8)
        def derived(purpose: str) -> bytes:
            return hmac.digest(self.secret, purpose.encode(), hashlib.sha256)

        return derived


def open_stores(store: Store, settings: Settings) -> dict[str, Any]:
    """All that the service keeps in `store`, by the names that Services has for it."""
    namespace, auction = settings.store.namespace, settings.auction
    return {
        "catalog": Catalog(store, namespace),
        "advertisers": Advertisers(store, namespace),
        "idempotency": IdempotencyStore(store, namespace, auction.idempotency_ttl_s),
        "ledger": Ledger(store, namespace),
        "receipts": Receipts(store, namespace, settings.receipts.retention_s),
        "click_targets": ClickTargets(store, namespace, auction.charge_ttl_s),
        "showings": Showings(store, namespace, auction.frequency_window_s),
        "counters": Counters(store, namespace),
    }
