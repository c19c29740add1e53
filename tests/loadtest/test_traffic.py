"""Visitors as a chat product has them."""

import random
from collections import Counter
from dataclasses import replace

from loadtest.traffic import Habits, Limits, Visitor, Zipf
from service.api.schemas import RespondRequest

ADS = [{"ad_id": f"Ad-{number}", "title": f"Boots {number}"} for number in range(50)]
HABITS = Habits()


def visitor(habits: Habits = HABITS, seed: int = 1) -> Visitor:
    return Visitor(random.Random(seed), ADS, habits)


def answer(*tokens: str) -> dict[str, object]:
    return {
        "answer": "Try these.",
        "ads": [{"click_url": f"https://ads.example/c/{token}"} for token in tokens],
    }


class TestZipf:
    def test_the_first_is_drawn_most_and_the_last_now_and_then(self) -> None:
        rng = random.Random(1)
        drawn = Counter(Zipf("abcdefghij", 1.0).one(rng) for _ in range(3_000))
        assert drawn["a"] > 2 * drawn["c"] > 2 * drawn["i"] > 0

    def test_several_are_different(self) -> None:
        rng = random.Random(1)
        assert len(set(Zipf(range(10), 1.5).several(rng, 10))) == 10
        assert len(Zipf(range(3), 1.5).several(rng, 10)) == 3


class TestVisitor:
    def test_asks_what_the_service_takes(self) -> None:
        asking = visitor()
        for _ in range(50):
            asked = asking.ask()
            RespondRequest.model_validate(asked)
            asking.read(asked, answer())

    def test_goes_on_with_the_conversation_or_begins_anew(self) -> None:
        loyal, fickle = visitor(replace(HABITS, goes_on=1)), visitor(replace(HABITS, goes_on=0))
        for each in (loyal, fickle):
            first = each.ask()
            each.read(first, answer())
        assert [turn["role"] for turn in loyal.ask()["conversation"]] == ["user", "assistant"]
        assert fickle.ask()["conversation"] == []

    def test_clicks_later_and_at_the_rate_it_was_told(self) -> None:
        asking = visitor(replace(HABITS, click_rate=0.3, by_browser=0.5))
        asked = asking.ask()
        clicks = [click for _ in range(500) for click in asking.read(asked, answer("t1", "t2"))]
        assert 250 < len(clicks) < 350
        assert {click.token for click in clicks} == {"t1", "t2"}
        assert all(click.after_s > 0 for click in clicks)
        assert 0.4 < sum(click.is_browser for click in clicks) / len(clicks) < 0.6

    def test_an_ad_whose_clicks_cost_nothing_is_not_clicked(self) -> None:
        asking = visitor(replace(HABITS, click_rate=1))
        given = {"answer": "Try these.", "ads": [{"click_url": None}]}
        assert asking.read(asking.ask(), given) == []


class TestLimits:
    def test_names_what_was_not_kept(self) -> None:
        limits = Limits(failures=0.01, ttft_p95_ms=500, clicks_p99_ms=100)
        assert limits.broken(0.01, 500, 100) == []
        [first, second] = limits.broken(0.5, 100, 250)
        assert "failures is 0.5, at most 0.01" in first
        assert "click" in second
