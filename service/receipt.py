"""Receipts: for each answer, enough to audit why an ad was shown and what it cost; signed.

A receipt is a JSON object, and its signature is an HMAC-SHA256 of its canonical form: keys sorted,
no spaces, ASCII. It holds no number but integers below 2**53 (others stand as decimal text), so
that any JSON tool may read and write it and the signature still holds.

What users write appears as keyed hashes: whoever has the text and the deployment's secret can tell
that it is the same, and nobody else can guess at it. The text itself is in only where the
deployment says so. Pure, but for its size: no clock, no store.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any, Final

from service.answer import AdPart, Answer, Ask
from service.auction.eligibility import Exclusion, standing_bids
from service.auction.signing_key import SigningKey, SigningKeys

VERSION: Final = 1
ALGORITHM: Final = "HMAC-SHA256"
_PURPOSE = "receipt"
_UNAVAILABLE = "ads_unavailable"
_NOT_CONSIDERED = "not_considered"

Json = dict[str, Any]


def pseudonym(user_id: str, secret: bytes) -> str:
    """Stands for a user wherever the service keeps something about one: 32 hex digits.

    secret: the deployment's; without it a pseudonym leads to no user.
    """
    return _hash("user", user_id, secret)[:32]


def text_hash(text: str, secret: bytes) -> str:
    """The keyed hash, 64 hex digits, under which `text` stands in receipts."""
    return _hash("text", text, secret)


def build_receipt(ask: Ask, answer: Answer, caller: str, secret: bytes, with_text: bool) -> Json:
    """The receipt of `answer`. caller: the API key's name. secret: the deployment's.

    with_text: whether query, conversation, profile and answer themselves are in, too.
    """
    conversation = [{"role": turn.role, "content": turn.content} for turn in ask.conversation]
    profile = ask.profile and {
        "info": ask.profile.info,
        "interests": list(ask.profile.interests),
    }
    receipt: Json = {
        "version": VERSION,
        "response_id": answer.response_id,
        "time": ask.now.isoformat(timespec="milliseconds"),
        "caller": caller,
        "user": None if ask.user_id is None else pseudonym(ask.user_id, secret),
        "query_hash": text_hash(ask.query, secret),
        "conversation_hash": text_hash(_canonical(conversation), secret) if conversation else None,
        "profile_hash": text_hash(_canonical(profile), secret) if profile else None,
        "answer_hash": text_hash(answer.text, secret),
        "candidates": _candidates(ask, answer),
        "ads_unavailable": answer.offers.is_unavailable,
        "contract": answer.contract,
        "model": {"name": answer.model.name, "revision": answer.model.revision},
        "sampling": {
            "temperature": str(ask.temperature),
            "top_p": str(ask.top_p),
            "top_k": ask.top_k,
            "max_tokens": ask.max_tokens,
            "seed": None if ask.seed is None else str(ask.seed),
        },
        "max_ads": ask.max_ads,
        "insertions": [_insertion(at, part) for at, part in enumerate(answer.ads, 1)],
        "faults": [
            {"kind": fault.kind, "start": fault.start, "end": fault.end, "ad_id": fault.ad_id}
            for fault in answer.faults
        ],
        "finish_reason": answer.finish_reason,
    }
    if with_text:
        receipt["text"] = {
            "query": ask.query,
            "conversation": conversation,
            "profile": profile,
            "answer": answer.text,
        }
    return receipt


def sign_receipt(receipt: Json, key: SigningKey) -> bytes:
    """`{"receipt": …, "signature": …}` as UTF-8 JSON: what is kept and handed out."""
    content = _canonical(receipt)
    value = key.mac(_PURPOSE, content.encode()).hex()
    signature = f'{{"algorithm":"{ALGORITHM}","key_id":"{key.key_id}","value":"{value}"}}'
    return f'{{"receipt":{content},"signature":{signature}}}'.encode()


def is_genuine(receipt: Json, signature: Mapping[str, str], keys: SigningKeys) -> bool:
    """Whether one of `keys` has signed exactly this receipt."""
    key = keys.find(signature.get("key_id", ""))
    if key is None or signature.get("algorithm") != ALGORITHM:
        return False
    try:
        content = _canonical(receipt)
    except RecursionError:  # nested as no receipt is
        return False
    return is_same_hash(key.mac(_PURPOSE, content.encode()).hex(), signature.get("value", ""))


def is_same_hash(expected: str, given: str) -> bool:
    """Whether they are the same, in a time that does not tell how much of them is.

    given: any text, as callers send it.
    """
    return hmac.compare_digest(expected.encode(), given.encode(errors="replace"))


def _candidates(ask: Ask, answer: Answer) -> list[Json]:
    """Every bid in the order given, with its place in the prompt (from 1) or why it has none."""
    offers, standing = answer.offers, standing_bids(ask.bids)
    places = {offer.ad.ad_id: place for place, offer in enumerate(offers.eligible, 1)}
    reasons: dict[str, str] = {
        excluded.ad_id: excluded.reason
        for excluded in offers.excluded
        if excluded.reason is not Exclusion.DUPLICATE
    }
    otherwise = _UNAVAILABLE if offers.is_unavailable else _NOT_CONSIDERED
    entries = []
    for position, (ad_id, bid_micros, pctr) in enumerate(ask.bids):
        entry: Json = {"ad_id": ad_id, "bid_micros": bid_micros}
        if pctr is not None:
            entry["pctr"] = str(pctr)
        if standing[ad_id] != position:
            entry["excluded"] = Exclusion.DUPLICATE
        elif ad_id in places:
            entry["place"] = places[ad_id]
        else:
            entry["excluded"] = reasons.get(ad_id, otherwise)
        entries.append(entry)
    return entries


def _insertion(position: int, part: AdPart) -> Json:
    ad, charge = part.offer.ad, part.charge
    return {
        "ad_id": ad.ad_id,
        "advertiser_id": ad.advertiser_id,
        "position": position,
        "start": part.segment.start,
        "end": part.segment.end,
        "landing_url": ad.landing_url,
        "bid_micros": part.offer.bid_micros,
        "charge": {
            "event": charge.event,
            "rule": charge.rule,
            "price_micros": charge.price_micros,
            "currency": charge.currency,
            "expires_at": charge.expires_at.isoformat(timespec="seconds"),
        },
    }


_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), check_circular=False).encode


def _hash(kind: str, text: str, secret: bytes) -> str:
    message = f"{kind}\0{text}".encode()
    return hmac.digest(secret, message, hashlib.sha256).hex()
