import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from service.auction.pacing import LEAD, Pace, draw, elapsed_share, participation

BUDGET = 1_000_000


@pytest.mark.parametrize(
    ("elapsed", "spent_share", "chance"),
    [
        (0.0, 0.0, 1.0),
        (0.5, 0.0, 1.0),
        (0.5, 0.5, 1.0),
        (0.5, 0.5 + LEAD / 2, 0.5),
        (0.5, 0.5 + LEAD, 0.0),
        (0.1, 1.0, 0.0),
        (0.99, 1.0, 0.8),
    ],
)
def test_the_further_ahead_of_the_day_the_rarer(
    elapsed: float, spent_share: float, chance: float
) -> None:
    assert participation(elapsed, int(spent_share * BUDGET), BUDGET) == pytest.approx(chance)


def test_no_budget_takes_no_part() -> None:
    assert participation(0.5, 0, 0) == 0.0


def test_a_draw_is_even_and_stays_what_it_was() -> None:
    draws = [draw(b"salt", f"resp_{number}", "Ad-1") for number in range(2_000)]
    assert draws == [draw(b"salt", f"resp_{number}", "Ad-1") for number in range(2_000)]
    assert all(0 <= number < 1 for number in draws)
    for tenth in range(10):
        share = sum(tenth / 10 <= number < (tenth + 1) / 10 for number in draws) / 2_000
        assert share == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("other", [("pepper", "r", "a"), ("salt", "s", "a"), ("salt", "r", "b")])
def test_a_draw_hangs_on_salt_answer_and_ad(other: tuple[str, str, str]) -> None:
    salt, response_id, ad_id = other
    assert draw(b"salt", "r", "a") != draw(salt.encode(), response_id, ad_id)


@pytest.mark.parametrize("demand", [0.5, 1.5, 10.0])
def test_a_days_spend_keeps_near_the_even_line(demand: float) -> None:
    """Answers that would spend `demand` times the budget, evenly over the day."""
    price, spent = BUDGET // 1_000, 0
    answers = int(1_000 * demand)
    for number in range(answers):
        elapsed = number / answers
        if Pace(elapsed, f"resp_{number}", b"").lets("Ad-1", spent, BUDGET):
            spent += price
        assert spent <= (elapsed + LEAD) * BUDGET + price
        if demand > 1 and elapsed > 0.2:
            assert spent >= (elapsed - 0.02) * BUDGET
    assert spent >= 0.95 * BUDGET if demand > 1 else spent == answers * price


@pytest.mark.parametrize(
    ("at", "zone", "share"),
    [
        ("2030-05-17T00:00:00+00:00", "UTC", 0.0),
        ("2030-05-17T18:00:00+00:00", "UTC", 0.75),
        ("2030-05-17T15:00:00+00:00", "Asia/Tokyo", 0.0),
        ("2030-05-17T03:00:00+00:00", "Asia/Tokyo", 0.5),
        ("2030-03-31T10:00:00+00:00", "Europe/Berlin", 11 / 23),  # the clock goes forward
        ("2030-10-27T11:00:00+00:00", "Europe/Berlin", 13 / 25),  # and back
    ],
)
def test_the_day_is_that_of_the_time_zone(at: str, zone: str, share: float) -> None:
    now = datetime.fromisoformat(at)
    assert elapsed_share(now, ZoneInfo(zone)) == pytest.approx(share)


def test_a_day_never_ends_before_the_next_begins() -> None:
    zone, rng = ZoneInfo("America/Sao_Paulo"), random.Random(1)
    for _ in range(500):
        now = datetime(2015, 1, 1, tzinfo=UTC) + timedelta(minutes=rng.randrange(5 * 525_600))
        assert 0 <= elapsed_share(now, zone) < 1
