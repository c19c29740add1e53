"""Who is held out: a stable, fair and growing share of users."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.auction.holdout import is_held_out

SALT = b"salt"
HELD_OUT_OF_40 = [9, 12, 14, 16, 17, 19, 22, 24, 26, 28, 30, 31, 32, 35]
shares = st.floats(0, 1)
users = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


def test_a_user_keeps_its_place_between_processes_and_releases() -> None:
    # measured groups would mix if this hash ever changed
    held = [n for n in range(40) if is_held_out(f"user-{n}", 0.25, SALT)]
    assert held == HELD_OUT_OF_40


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_the_share_is_about_what_was_asked_for(share: float) -> None:
    held = sum(is_held_out(f"user-{n}", share, SALT) for n in range(20_000))
    four_deviations = 4 * (20_000 * share * (1 - share)) ** 0.5
    assert abs(held - 20_000 * share) < four_deviations


@given(users)
def test_nobody_at_zero_and_everybody_at_one(user: str) -> None:
    assert not is_held_out(user, 0, SALT)
    assert is_held_out(user, 1, SALT)


@given(users, shares, shares)
def test_a_growing_share_keeps_who_was_held_out(user: str, one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert not is_held_out(user, small, SALT) or is_held_out(user, large, SALT)


def test_another_salt_draws_other_users() -> None:
    users = [f"user-{n}" for n in range(2_000)]
    both = sum(is_held_out(u, 0.5, b"one") and is_held_out(u, 0.5, b"two") for u in users)
    assert 400 < both < 600


def test_nobody_in_particular_is_never_held_out() -> None:
    assert not is_held_out(None, 1, SALT)
