"""Answers that were given and recorded, without a model: what clicks and receipts start from."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import httpx
from fastapi import FastAPI

from models.contract.prompt import Turn
from models.contract.reading import Segment, SegmentKind
from models.engine.interface import ModelIdentity, Usage
from service.answer import AdPart, Answer, Ask, Offers, Stages, TextPart
from service.api import clicks, problems
from service.auction.ad import Ad
from service.auction.charge import first_price
from service.auction.click_token import ClickTerms, sign
from service.auction.eligibility import Bid, EligibleAd, Excluded, Exclusion
from service.auction.signing_key import SigningKey, SigningKeys
from service.metrics import Metrics, create_metrics
from service.receipt import build_receipt, pseudonym, sign_receipt
from service.record import charges
from service.services import Services
from service.settings import Settings
from service.store.catalog import Catalog
from service.store.click_targets import ClickTargets
from service.store.connection import Store
from service.store.ledger import Ledger
from service.store.receipts import Receipts
from service.store.showings import Showings

KEY = SigningKey("k1", b"1" * 32)
BROWSER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"}


class ClickMetrics(Metrics):
    """The service's collectors, and what they say of clicks."""

    def seen(self) -> dict[str, int]:
        """How many clicks had which outcome."""
        samples = [sample for metric in self.clicks.collect() for sample in metric.samples]
        return {
            sample.labels["outcome"]: int(sample.value)
            for sample in samples
            if sample.name.endswith("_total")
        }

    def spent_micros(self, event: str) -> float:
        """What was charged for events of this kind."""
        labels = {"event": event}
        return self.registry.get_sample_value("llm_auction_spend_micros_total", labels) or 0


@dataclass
class Accounts:
    """The parts of the service that clicks and receipts use."""

    settings: Settings
    catalog: Catalog
    ledger: Ledger
    receipts: Receipts
    click_targets: ClickTargets
    showings: Showings
    signing: SigningKeys
    metrics: ClickMetrics
    secret: bytes = b"s" * 32
    latest: Answer | None = None
    """The answer that was given last."""

    async def answer(
        self,
        *ads: Ad,
        bid_micros: int = 250_000,
        user_id: str | None = None,
        given_at: datetime | None = None,
        is_recorded: bool = True,
    ) -> tuple[str, list[str]]:
        """Give an answer that shows `ads`; its id, and the click token of each ad."""
        now = given_at or datetime.now(UTC)
        expires_at = now + timedelta(seconds=self.settings.auction.charge_ttl_s)
        response_id = f"resp_{uuid.uuid4().hex}"
        answer = _answer(response_id, ads, bid_micros, expires_at, self.settings.auction.pctr)
        self.latest = answer
        if is_recorded:
            await self.record(answer, now, user_id)
        terms = [
            ClickTerms(
                response_id=response_id,
                ad_id=part.offer.ad.ad_id,
                position=position,
                event="click",
                price_micros=part.charge.price_micros,
                currency=part.charge.currency,
                issued_at=int(now.timestamp()),
                expires_at=int(expires_at.timestamp()),
            )
            for position, part in enumerate(answer.ads, 1)
        ]
        return response_id, [sign(term, self.signing.current) for term in terms]

    async def record(self, answer: Answer, now: datetime, user_id: str | None = None) -> None:
        """Keep what `answer` leaves behind, and charge the clicks that came before."""
        user = None if user_id is None else pseudonym(user_id, self.secret)
        with_text = self.settings.receipts.with_text
        ask = _ask(answer, now, user_id)
        receipt = build_receipt(ask, answer, "chat", self.secret, with_text)
        ads = [part.offer.ad for part in answer.ads]
        requests = charges(answer, now, cast(Services, self))
        is_parked = self.settings.auction.event == "click"
        parked_key = self.click_targets.parked_key(answer.response_id) if is_parked else None

        def also(redis: Any) -> None:
            self.ledger.charge_all(redis, requests, parked_key)
            self.click_targets.write(redis, answer.response_id, ads)
            if user is not None:
                ad_ids = [ad.ad_id for ad in ads]
                self.showings.command(redis, user, answer.response_id, ad_ids, now)

        signed = sign_receipt(receipt, self.signing.current)
        await self.receipts.save(answer.response_id, signed, user, now, also)


def click_client(parts: Accounts) -> httpx.AsyncClient:
    """A browser that follows no redirects, before the routes of clicks."""
    app = FastAPI()
    app.include_router(clicks.router())
    problems.install(app)
    app.state.services = parts
    transport = httpx.ASGITransport(app)
    return httpx.AsyncClient(transport=transport, base_url="http://test", headers=BROWSER)


async def charged(parts: Accounts) -> list[int]:
    """The amounts in the ledger, in order."""
    return [entry.price_micros async for entry in parts.ledger.entries()]


def accounts(store: Store, namespace: str, **settings: Any) -> Accounts:
    """Accounts under `namespace` of `store`."""
    read = Settings(**settings)
    return Accounts(
        settings=read,
        catalog=Catalog(store, namespace),
        ledger=Ledger(store, namespace),
        receipts=Receipts(store, namespace, read.receipts.retention_s),
        click_targets=ClickTargets(store, namespace, read.auction.charge_ttl_s),
        showings=Showings(store, namespace, read.auction.frequency_window_s),
        signing=SigningKeys(KEY, (KEY,)),
        metrics=ClickMetrics(**vars(create_metrics())),
    )


def _ask(answer: Answer, now: datetime, user_id: str | None) -> Ask:
    bids = [Bid(offer.ad.ad_id, offer.bid_micros) for offer in answer.offers.eligible]
    return Ask(
        response_id=answer.response_id,
        query="Which boots?",
        bids=(*bids, Bid("Ad-0", 1)),
        conversation=(Turn("user", "Hello"),),
        profile=None,
        user_id=user_id,
        max_ads=3,
        temperature=0.7,
        top_p=0.8,
        top_k=20,
        max_tokens=64,
        seed=None,
        received_at=0.0,
        deadline_at=60.0,
        now=now,
    )


def _answer(
    response_id: str,
    ads: tuple[Ad, ...],
    bid_micros: int,
    expires_at: datetime,
    pctr: float | None,
) -> Answer:
    offers = [EligibleAd(ad, bid_micros) for ad in ads]
    parts = []
    for at, offer in enumerate(offers):
        segment = Segment(SegmentKind.AD, offer.ad.title, at * 10, at * 10 + 9, offer.ad.ad_id)
        parts.append(AdPart(offer, segment, first_price(offer, "USD", expires_at, pctr)))
    return Answer(
        response_id=response_id,
        text="Try these.",
        parts=(TextPart("Try "), *parts),
        offers=Offers(tuple(offers), (Excluded("Ad-0", Exclusion.UNKNOWN),)),
        faults=(),
        model=ModelIdentity("some/model", "abc123"),
        contract="3-inline",
        usage=Usage(10, 0, 5),
        finish_reason="stop",
        stages=Stages(0.0),
        trace_headers={},
    )
