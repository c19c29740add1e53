"""Traffic like that of a chat product: who asks what, when, and what they do with the answer.

Few questions and few ads are asked for most of the time (Zipf's law), a visitor thinks before each
turn, and goes on with the conversation; some answers are streamed, some visitors leave in the
middle of one, and some click on an ad a while after it was shown. No I/O and no clock: `chat.py`
and `soak.py` act it out.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from loadtest.ask import QUERIES

Json = dict[str, Any]
_TURNS_KEPT = 4
_TOPICS = (
    "running shoes", "a tent", "a laptop", "coffee", "a bicycle", "insurance", "a phone",
    "headphones", "a language course", "a rain jacket", "plants", "a holiday",
)  # fmt: skip
_FRAMES = (
    "How do I choose {}?",
    "Is it worth paying more for {}?",
    "What should I know about {}?",
    "I need {} by tomorrow. What now?",
    "Compare cheap and expensive options for {}.",
)
GOOD_CLICKS = frozenset({"charged", "duplicate", "budget_exhausted"})
"""What may become of a click on an ad that was just shown."""
QUESTIONS = (*QUERIES, *(frame.format(topic) for frame in _FRAMES for topic in _TOPICS))


@dataclass(frozen=True, slots=True)
class Habits:
    """What visitors do. Times are medians of log-normal ones, in seconds; shares are 0 to 1.

    zipf: the exponent; 0 asks for all alike. click_rate: clicks per ad that was shown.
    by_browser: of the clicks, those that follow `click_url`; the others are posted by a server.
    """

    candidates: int = 10
    max_tokens: int = 64
    zipf: float = 1.1
    think_s: float = 3.0
    streamed: float = 0.7
    hang_up: float = 0.05
    click_rate: float = 0.2
    click_after_s: float = 4.0
    by_browser: float = 0.7
    goes_on: float = 0.6


class Zipf:
    """Draws from a list: the item at rank r in proportion to 1 / r ** exponent."""

    def __init__(self, items: Sequence[Any], exponent: float) -> None:
        self._items = items
        self._weights = list(accumulate(1 / rank**exponent for rank in range(1, len(items) + 1)))

    def one(self, rng: random.Random) -> Any:
        return rng.choices(self._items, cum_weights=self._weights)[0]

    def several(self, rng: random.Random, count: int) -> list[Any]:
        """Up to `count` different items, in the order in which they were first drawn."""
        drawn: dict[int, Any] = {}
        while len(drawn) < min(count, len(self._items)):
            places = rng.choices(range(len(self._items)), cum_weights=self._weights, k=count)
            drawn |= {place: self._items[place] for place in places if place not in drawn}
        return list(drawn.values())[:count]


@dataclass(frozen=True, slots=True)
class Click:
    """What a visitor does with an ad, `after_s` seconds later."""

    after_s: float
    url: str
    is_browser: bool

    @property
    def token(self) -> str:
        """What identifies the ad and its price; the end of its address."""
        return self.url.rpartition("/")[2]


class Visitor:
    """One person in front of the chat. `ads`: the catalogue, the most popular first."""

    def __init__(self, rng: random.Random, ads: Sequence[Json], habits: Habits) -> None:
        self.habits = habits
        self._rng = rng
        self._ads = Zipf(ads, habits.zipf)
        self._questions = Zipf(QUESTIONS, habits.zipf)
        self._user_id = f"visitor-{rng.randrange(10**6)}"
        self._conversation: list[Json] = []

    def think_s(self) -> float:
        """How long until the next question."""
        return self._around(self.habits.think_s)

    def ask(self) -> Json:
        """The next request's body."""
        rng, habits = self._rng, self.habits
        if rng.random() >= habits.goes_on:
            self._conversation = []
        return {
            "query": self._questions.one(rng),
            "conversation": self._conversation[-_TURNS_KEPT:],
            "candidates": [
                {"ad_id": ad["ad_id"], "bid": round(rng.lognormvariate(0, 0.7) + 0.01, 2)}
                for ad in self._ads.several(rng, habits.candidates)
            ],
            "user_id": self._user_id,
            "max_tokens": rng.randint(max(1, habits.max_tokens // 2), habits.max_tokens * 3 // 2),
            "stream": rng.random() < habits.streamed,
        }

    def hangs_up(self) -> bool:
        """Whether they leave in the middle of this answer."""
        return self._rng.random() < self.habits.hang_up

    def read(self, asked: Json, answer: Json) -> list[Click]:
        """Take in the answer; the clicks that will follow."""
        self._conversation += [
            {"role": "user", "content": asked["query"]},
            {"role": "assistant", "content": answer["answer"] or "…"},
        ]
        return [
            Click(
                self._around(self.habits.click_after_s),
                ad["click_url"],
                self._rng.random() < self.habits.by_browser,
            )
            for ad in answer["ads"]
            if ad["click_url"] and self._rng.random() < self.habits.click_rate
        ]

    def _around(self, median_s: float) -> float:
        return median_s * self._rng.lognormvariate(0, 0.6)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a run must keep. failures: a share of all requests; times in milliseconds."""

    failures: float
    ttft_p95_ms: float
    clicks_p99_ms: float

    def broken(self, failures: float, ttft_p95_ms: float, clicks_p99_ms: float) -> list[str]:
        """What a run did not keep, a sentence each."""
        return [
            f"{name} is {value:g}, at most {limit:g} is allowed"
            for name, value, limit in (
                ("the share of failures", failures, self.failures),
                ("p95 of the time to the first text, ms,", ttft_p95_ms, self.ttft_p95_ms),
                ("p99 of a click, ms,", clicks_p99_ms, self.clicks_p99_ms),
            )
            if value > limit
        ]
