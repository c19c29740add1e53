"""One request, from ask to answer, a stage a line.

    eligible ads → prompt → ONE generation → insertions → charges → record → answer

Streamed and unstreamed answers come from the same generator. It knows nothing of HTTP. Ads that
fail never fail an answer, and nothing is charged that was not read back without fault.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import timedelta
from decimal import Decimal
from functools import lru_cache, partial
from time import monotonic

from models.contract.grammar import grammar
from models.contract.order import listing_order
from models.contract.prompt import Candidate, Prompt, build_prompt
from models.engine.interface import (
    EngineDead,
    EngineError,
    EngineOverloaded,
    Generation,
    PromptRefused,
    PromptTooLong,
    Sampling,
    Usage,
)
from service.answer import AdPart, Answer, Ask, Offers, Stages, TextPart
from service.auction.charge import Charge
from service.auction.click_token import ClickTerms, sign
from service.auction.eligibility import EligibleAd, decide
from service.errors import (
    FieldError,
    InvalidRequest,
    ModelUnavailable,
    Overloaded,
    ProblemError,
    PromptTooLarge,
)
from service.receipt import pseudonym
from service.record import record
from service.services import Services
from service.store.connection import StoreUnavailable
from service.store.showings import Viewer
from service.writing import Billing, Writing

Keep = Callable[[Answer], Awaitable[None]]


async def respond(
    ask: Ask, services: Services, *, can_charge: bool = True, keep: Keep | None = None
) -> AsyncGenerator[TextPart | AdPart | Answer]:
    """Yield the parts of the answer as they are written, then the whole Answer, once.

    Closing the generator aborts the generation; what was shown by then is still recorded. Of an
    unstreamed answer nothing is shown before it is whole.
    can_charge: False gives the answer that the store's absence gives, without ads.
    keep: called with the whole answer before it is recorded, for what to await right after; neither
    is cut short by a client that leaves.

    Raises PromptTooLarge, InvalidRequest where the model takes no such conversation, Overloaded,
    ModelUnavailable (service.errors).
    """
    stages = Stages(ask.received_at)
    offers = await find_eligible(ask, services, stages, can_charge)
    prompt, offers = write_prompt(ask, offers, services, stages)
    writing = begin_writing(ask, offers, services)
    shown_count, is_whole = 0, False
    try:
        async for part in generate(ask, prompt, writing, services, stages):
            shown_count += 1 if ask.is_streamed else 0
            yield part
        shown_count, is_whole = len(writing.parts), True
    finally:
        del writing.parts[shown_count:]  # nobody pays for an ad that nobody received
        answer = account(ask, offers, prompt, writing, services, stages)
        kept = keep(answer) if keep is not None and is_whole else None
        await services.life.complete(_leave_behind(ask, answer, services, kept))
    yield answer


async def _leave_behind(
    ask: Ask, answer: Answer, services: Services, kept: Awaitable[None] | None
) -> None:
    await record(ask, answer, services)
    if kept is not None:
        await kept


async def find_eligible(ask: Ask, services: Services, stages: Stages, can_charge: bool) -> Offers:
    """Which candidates may stand in the answer: mostly one round trip to the ad store.

    With the store away, or where nothing can be charged, there are none, and the answer is written
    without ads.
    """
    if services.is_held_out(ask.user_id):
        return Offers((), (), is_held_out=True)
    if not ask.bids or ask.max_ads == 0:
        return Offers((), ())
    if not can_charge:
        services.metrics.ads_unavailable.inc()
        return Offers((), (), is_unavailable=True)
    with stages.timed("eligible"):
        day = services.local_time(ask.now).date()
        ad_ids = [bid.ad_id for bid in ask.bids]
        try:
            records = await services.catalog.fetch(ad_ids, day, _viewer(ask, services))
        except StoreUnavailable:
            services.metrics.ads_unavailable.inc()
            return Offers((), (), is_unavailable=True)
        terms = services.terms(ask.response_id, ask.now)
        eligible, excluded = decide(ask.bids, records, services.floor_micros, ask.query, terms)
        return Offers(tuple(eligible), tuple(excluded))


def write_prompt(
    ask: Ask, offers: Offers, services: Services, stages: Stages
) -> tuple[Prompt, Offers]:
    """The prompt, with as many candidates as the model's context has room for.

    Where there is not room for all, those that promise least go first. Raises PromptTooLarge where
    not even the conversation fits, InvalidRequest where the model takes no such turns.
    """
    with stages.timed("prompt"):
        try:
            return _prompt_with_room(ask, offers, services)
        except EngineError as error:
            raise _as_problem(error, services) from error


def begin_writing(ask: Ask, offers: Offers, services: Services) -> Writing:
    """A reader for the markers of this answer's eligible ads, with the terms of their charges."""
    auction = services.settings.auction
    expires_at = ask.now + timedelta(seconds=auction.charge_ttl_s)
    token = partial(_click_token, ask, services)
    billing = Billing(auction.currency, expires_at, services.pctr, token)
    return Writing(offers.eligible, ask.max_ads, billing)


async def generate(
    ask: Ask, prompt: Prompt, writing: Writing, services: Services, stages: Stages
) -> AsyncGenerator[TextPart | AdPart]:
    """Run the one generation and yield its parts; at the deadline it ends with what there is."""
    submitted_at = monotonic()
    stream = services.engine.generate(_generation(ask, prompt, writing))
    try:
        async with aclosing(stream):
            async for chunk in stream:
                with stages.timed("insertions"):
                    parts = writing.take(chunk)
                for part in parts:
                    yield part
    except EngineError as error:
        writing.finish_reason = "error"
        raise _as_problem(error, services) from error
    finally:
        stages.add_engine(submitted_at, writing.first_at, writing.last)
        with stages.timed("insertions"):
            parts = writing.close()
    for part in parts:
        yield part


def account(
    ask: Ask,
    offers: Offers,
    prompt: Prompt,
    writing: Writing,
    services: Services,
    stages: Stages,
) -> Answer:
    """The answer so far and all that it was made of."""
    usage = writing.last.usage if writing.last else None
    return Answer(
        response_id=ask.response_id,
        text=writing.answer,
        parts=tuple(writing.parts),
        offers=offers,
        faults=tuple(writing.reader.faults),
        model=services.engine.model,
        contract=prompt.contract,
        usage=usage or Usage(services.engine.count_tokens(prompt), 0, writing.token_count),
        finish_reason=writing.finish_reason,
        stages=stages,
        trace_headers=ask.trace_headers,
    )


def _viewer(ask: Ask, services: Services) -> Viewer | None:
    """Whose showings count against the frequency cap; None where there is no cap or no user."""
    if ask.user_id is None or services.settings.auction.frequency_cap is None:
        return None
    return services.showings.viewer(pseudonym(ask.user_id, services.secret), ask.now)


def _click_token(ask: Ask, services: Services, charge: Charge, position: int) -> str | None:
    if ask.is_probe or charge.event != "click":
        return None
    terms = ClickTerms(
        response_id=ask.response_id,
        ad_id=charge.ad_id,
        position=position,
        event="click",
        price_micros=charge.price_micros,
        currency=charge.currency,
        issued_at=int(ask.now.timestamp()),
        expires_at=int(charge.expires_at.timestamp()),
    )
    return sign(terms, services.signing.current)


def _generation(ask: Ask, prompt: Prompt, writing: Writing) -> Generation:
    return Generation(
        request_id=ask.response_id,
        prompt=prompt,
        sampling=Sampling(ask.temperature, ask.top_p, ask.top_k, ask.max_tokens, ask.seed),
        grammar=grammar(writing.marked, ask.max_ads),
        deadline_at=ask.deadline_at,
        is_streamed=ask.is_streamed,
        trace_headers=ask.trace_headers,
        insertions=[ad.marker for ad in writing.marked],
    )


def _prompt(ask: Ask, offers: Sequence[EligibleAd], services: Services) -> Prompt:
    candidates = [
        Candidate(ad.ad_id, ad.title, ad.category, ad.description, _units(bid_micros))
        for ad, bid_micros, _ in offers
    ]
    layout = services.settings.generation.layout
    return build_prompt(layout, candidates, ask.query, ask.conversation, ask.profile)


def _listed(ask: Ask, offers: Sequence[EligibleAd], services: Services) -> list[EligibleAd]:
    """`offers` in the order that the prompt lists them in."""
    ids, bids = [o.ad.ad_id for o in offers], [o.bid_micros / 1e6 for o in offers]
    salt = services.order_salt(ask.now.date())
    layout = services.settings.generation.layout
    return [offers[i] for i in listing_order(layout, ids, bids, salt, _pctrs(offers))]


def _pctrs(offers: Sequence[EligibleAd]) -> list[float] | None:
    """One for each offer, where the caller has given them."""
    given = [offer.pctr for offer in offers if offer.pctr is not None]
    return given if len(given) == len(offers) else None


@lru_cache(maxsize=16_384)
def _units(micros: int) -> Decimal:
    return Decimal(micros).scaleb(-6)


def _prompt_with_room(ask: Ask, offers: Offers, services: Services) -> tuple[Prompt, Offers]:
    limit = _prompt_limit(ask, services)
    if _characters(ask) > limit:  # the loop must not stand still for a megabyte of them
        _bare_tokens(ask, services, limit)
    kept = _listed(ask, offers.eligible, services)
    prompt = _prompt(ask, kept, services)
    tokens = services.engine.count_tokens(prompt)
    if tokens <= limit:
        return prompt, offers.keep(kept)
    bare = _bare_tokens(ask, services, limit)
    while tokens > limit:
        fitting = int(len(kept) * (limit - bare) / (tokens - bare))
        kept = _most_promising(kept, min(fitting, len(kept) - 1))
        prompt = _prompt(ask, kept, services)
        tokens = services.engine.count_tokens(prompt)
    return prompt, offers.keep(kept)


def _prompt_limit(ask: Ask, services: Services) -> int:
    """Tokens that a prompt may take: the context less the answer, which gets a quarter at most."""
    context = services.engine.max_model_len
    return context - min(ask.max_tokens, context // 4)


def _bare_tokens(ask: Ask, services: Services, limit: int) -> int:
    """Tokens of the prompt without an ad. Raises PromptTooLarge where they are more than `limit`,
    having counted hardly further."""
    bare = services.engine.count_tokens(_prompt(ask, (), services), limit)
    if bare > limit:
        raise PromptTooLarge(f"They take more than the {limit} tokens that the answer leaves")
    return bare


def _characters(ask: Ask) -> int:
    """Of all that the prompt takes from the request but its candidates."""
    texts = [ask.query, *(turn.content for turn in ask.conversation)]
    if ask.profile is not None:
        texts += [ask.profile.info, *ask.profile.interests]
    return sum(map(len, texts))


def _most_promising(offers: Sequence[EligibleAd], count: int) -> list[EligibleAd]:
    """The `count` highest bids, each times its pctr where that is known, in the order given; of
    equal ones the earlier."""
    ranked = sorted(range(len(offers)), key=lambda i: -offers[i].bid_micros * (offers[i].pctr or 1))
    return [offers[i] for i in sorted(ranked[:count])]


def _as_problem(error: EngineError, services: Services) -> ProblemError:
    retry_after_ms = services.settings.limits.retry_after_ms
    if isinstance(error, PromptTooLong):
        return PromptTooLarge(str(error))
    if isinstance(error, PromptRefused):
        return InvalidRequest(errors=[FieldError("/conversation", str(error))])
    if isinstance(error, EngineOverloaded):
        services.metrics.refused.labels(Overloaded.code).inc()
        return Overloaded("The model's queue is full", retry_after_ms=retry_after_ms)
    if isinstance(error, EngineDead):
        services.life.engine_died()
    return ModelUnavailable(retry_after_ms=retry_after_ms)
