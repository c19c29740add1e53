"""What a request needs, made once at start and handed down: the composition root's result."""

import hashlib
import hmac
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from models.engine.interface import Engine
from service.auction.money import to_micros
from service.life import Life
from service.metrics import Metrics
from service.settings import Settings
from service.store.catalog import Catalog
from service.store.idempotency import IdempotencyStore

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer


@dataclass(frozen=True, slots=True)
class Services:
    """`secret`: 32 random bytes of this deployment, kept in the state directory."""

    settings: Settings
    engine: Engine
    catalog: Catalog
    idempotency: IdempotencyStore
    metrics: Metrics
    life: Life
    secret: bytes
    tracer: "Tracer | None" = None

    def order_salt(self, day: date) -> bytes:
        """The key that orders candidates in the prompt; another one every day."""
        return hmac.digest(self.secret, f"candidate order {day}".encode(), hashlib.sha256)

    @property
    def floor_micros(self) -> int:
        """The lowest bid that this deployment takes."""
        return to_micros(self.settings.auction.floor)
