"""Click tokens: what was signed is read back; whatever else comes is forged."""

import re
import string
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.auction.click_token import MAX_CHARACTERS, ClickTerms, ForgedToken, read, sign
from service.auction.signing_key import SigningKey, SigningKeys

KEY = SigningKey("k1", b"1" * 32)
OTHER = SigningKey("k2", b"2" * 32)
KEYS = SigningKeys(KEY, (KEY, OTHER))
TERMS = ClickTerms(
    response_id="resp_" + "0123456789abcdef" * 2,
    ad_id="Ad-1001",
    position=1,
    event="click",
    price_micros=1_250_000,
    currency="USD",
    issued_at=1_900_000_000,
    expires_at=1_900_086_400,
)
LETTERS = string.ascii_letters + string.digits + "-_"
terms = st.builds(
    ClickTerms,
    response_id=st.binary(min_size=16, max_size=16).map(lambda raw: f"resp_{raw.hex()}"),
    ad_id=st.from_regex(r"[A-Za-z0-9._:-]{1,64}", fullmatch=True),
    position=st.integers(1, 255),
    event=st.just("click"),
    price_micros=st.integers(1, 10**12),
    currency=st.from_regex(r"[A-Z]{3}", fullmatch=True),
    issued_at=st.integers(0, 2**40 - 1),
    expires_at=st.integers(0, 2**40 - 1),
)
keys = st.builds(
    SigningKey,
    st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True),
    st.binary(min_size=16, max_size=64),
)


@given(terms, keys)
def test_what_is_signed_is_read_back_from_a_url(signed: ClickTerms, key: SigningKey) -> None:
    token = sign(signed, key)
    assert read(token, SigningKeys(key, (key,))) == signed
    assert re.fullmatch(r"[A-Za-z0-9_-]+", token)
    assert len(token) <= MAX_CHARACTERS


def test_a_usual_token_is_short() -> None:
    key = SigningKey("abcdef", b"k" * 32)
    assert len(sign(replace(TERMS, ad_id="Ad-33561234"), key)) <= 100
    assert len(sign(replace(TERMS, ad_id="campaign:2030-summer.boots"), key)) <= 120


@given(terms, st.integers(0), st.sampled_from(LETTERS))
def test_one_changed_character_is_a_forgery(signed: ClickTerms, place: int, letter: str) -> None:
    token = sign(signed, KEY)
    place %= len(token)
    changed = token[:place] + letter + token[place + 1 :]
    if changed != token:
        with pytest.raises(ForgedToken):
            read(changed, KEYS)


@given(terms, st.integers(0), st.integers(1, 255))
def test_one_changed_byte_is_a_forgery(signed: ClickTerms, place: int, difference: int) -> None:
    token = sign(signed, KEY)
    raw = bytearray(urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    raw[place % len(raw)] ^= difference
    with pytest.raises(ForgedToken):
        read(urlsafe_b64encode(raw).rstrip(b"=").decode(), KEYS)


@given(
    st.one_of(st.text(), st.binary(max_size=160).map(lambda raw: urlsafe_b64encode(raw).decode()))
)
def test_anything_else_is_a_forgery(token: str) -> None:
    with pytest.raises(ForgedToken):
        read(token, KEYS)


@given(st.sampled_from(["=", "==", " ", "\n", "A", "!"]))
def test_a_token_has_one_spelling(tail: str) -> None:
    with pytest.raises(ForgedToken):
        read(sign(TERMS, KEY) + tail, KEYS)


def test_a_cut_token_is_a_forgery() -> None:
    token = sign(TERMS, KEY)
    for end in range(len(token)):
        with pytest.raises(ForgedToken):
            read(token[:end], KEYS)


@pytest.mark.parametrize("size", range(20))
def test_a_version_and_little_else_is_a_forgery(size: int) -> None:
    with pytest.raises(ForgedToken):
        read(urlsafe_b64encode(b"\x01" * size).rstrip(b"=").decode(), KEYS)


def test_every_valid_key_is_believed_and_no_other() -> None:
    assert read(sign(TERMS, OTHER), KEYS) == TERMS
    with pytest.raises(ForgedToken):
        read(sign(TERMS, OTHER), SigningKeys(KEY, (KEY,)))


def test_a_key_of_the_same_id_with_another_secret_is_foreign() -> None:
    with pytest.raises(ForgedToken):
        read(sign(TERMS, SigningKey("k1", b"x" * 32)), KEYS)


def test_what_was_signed_for_another_purpose_is_no_token() -> None:
    token = sign(TERMS, KEY)
    raw = urlsafe_b64decode(token + "=" * (-len(token) % 4))
    forged = raw[:-16] + KEY.mac("receipt", raw[:-16])[:16]
    with pytest.raises(ForgedToken):
        read(urlsafe_b64encode(forged).rstrip(b"=").decode(), KEYS)


@pytest.mark.parametrize(
    ("key_id", "secret"),
    [("", b"1" * 32), ("K1", b"1" * 32), ("k" * 9, b"1" * 32), ("k", b"short")],
)
def test_a_weak_or_misnamed_key_is_refused(key_id: str, secret: bytes) -> None:
    with pytest.raises(ValueError, match="must"):
        SigningKey(key_id, secret)


def test_a_secret_is_not_shown() -> None:
    assert "111" not in repr(KEYS)
