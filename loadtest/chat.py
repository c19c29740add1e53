"""Locust scenarios: chat traffic against a running service, with limits that fail the run.

    locust -f loadtest/chat.py --host http://127.0.0.1:8000 --headless -u 20 -r 5 -t 5m \
        --html load.html

Needs the extra `load`. Visitors behave as in `traffic.py`; their number doubles in bursts. Every
answer is checked against the contract (markers, prices, stages), and one that breaks it counts as
a failure, as does a refusal. Exits with 1 when a limit of `--max-…` is not kept.
"""

import json
import random
import time
from typing import Any

import gevent
import requests
from locust import HttpUser, LoadTestShape, events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from loadtest.ask import contract_breaks
from loadtest.traffic import GOOD_CLICKS, Click, Habits, Json, Limits, Visitor

HEADERS, TTFT, DONE = "/respond headers", "/respond first text", "/respond streamed"
WHOLE = "/respond whole"
BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"


@events.init_command_line_parser.add_listener
def _(parser: LocustArgumentParser) -> None:
    habits = Habits()
    parser.add_argument("--candidates", type=int, default=habits.candidates, help="in each request")
    parser.add_argument("--max-tokens", type=int, default=habits.max_tokens, help="mean limit")
    parser.add_argument("--think-s", type=float, default=habits.think_s, help="median, in seconds")
    parser.add_argument("--api-key", default="", help="with the scopes respond and admin")
    parser.add_argument("--burst-every-s", type=float, default=60, help="seconds between bursts")
    parser.add_argument("--burst-s", type=float, default=10, help="how long one lasts")
    parser.add_argument("--burst-factor", type=float, default=2, help="times the visitors in one")
    parser.add_argument(
        "--max-failures", type=float, default=0.01, help="share of answers and clicks"
    )
    parser.add_argument("--max-ttft-ms", type=float, default=10_000, help="p95 to the first text")
    parser.add_argument("--max-click-ms", type=float, default=500, help="p99 of a click")


class ChatVisitor(HttpUser):
    """Asks, reads, perhaps clicks, thinks, asks again."""

    ads_shown = 0
    """To all visitors of this process."""
    _ads: list[Json] | None = None

    def on_start(self) -> None:
        options = self.environment.parsed_options
        if options.api_key:
            self.client.headers["Authorization"] = f"Bearer {options.api_key}"
        if ChatVisitor._ads is None:
            ChatVisitor._ads = self._catalogue()
        habits = Habits(options.candidates, options.max_tokens, think_s=options.think_s)
        self.visitor = Visitor(random.Random(), ChatVisitor._ads, habits)
        self.titles = {ad["ad_id"]: ad["title"] for ad in ChatVisitor._ads}

    def wait_time(self) -> float:
        return self.visitor.think_s()

    def chat(self) -> None:
        """One turn."""
        asked = self.visitor.ask()
        answer = self._streamed(asked) if asked["stream"] else self._whole(asked)
        for click in self.visitor.read(asked, answer) if answer else ():
            gevent.spawn_later(click.after_s, self._click, click)

    tasks = [chat]  # noqa: RUF012

    def _whole(self, asked: Json) -> Json | None:
        with self.client.post("/respond", json=asked, name=WHOLE, catch_response=True) as response:
            return self._checked(asked, response, response)

    def _streamed(self, asked: Json) -> Json | None:
        """Read the events up to `done`, or leave after the first text."""
        begun, hangs_up, event, is_first = time.perf_counter(), self.visitor.hangs_up(), b"", True
        with self.client.post(
            "/respond", json=asked, stream=True, name=HEADERS, catch_response=True
        ) as response:
            for line in response.iter_lines() if response.status_code == 200 else ():
                if line.startswith(b"event: "):
                    event = line[7:]
                if is_first and event in {b"text", b"ad", b"done"}:
                    is_first = False
                    self._note(TTFT, begun)
                    if hangs_up:
                        response.close()
                        response.success()
                        return None
                if line.startswith(b"data: ") and event == b"done":
                    self._note(DONE, begun)
                    return self._checked(asked, response, json.loads(line[6:]))
            response.failure(f"status {response.status_code}, no `done`")
        return None

    def _checked(self, asked: Json, response: Any, answer: Any) -> Json | None:
        if response.status_code != 200:
            response.failure(f"status {response.status_code}")
            return None
        body: Json = answer if isinstance(answer, dict) else answer.json()
        if wrong := set(contract_breaks(asked, body, self.titles)):
            response.failure(", ".join(sorted(wrong)))
        ChatVisitor.ads_shown += len(body["ads"])
        return body

    def _click(self, click: Click) -> None:
        if click.is_browser:
            self.client.get(
                f"/c/{click.token}", name="/c/[token]", allow_redirects=False,
                headers={"User-Agent": BROWSER},
            )  # fmt: skip
            return
        event = {"token": click.token, "client_event_id": f"load-{random.randrange(1 << 62)}"}
        with self.client.post("/v1/clicks", json=event, catch_response=True) as response:
            if response.status_code == 200 and response.json()["state"] not in GOOD_CLICKS:
                response.failure(f"a good token was answered {response.json()['state']}")

    def _note(self, name: str, begun: float) -> None:
        self.environment.events.request.fire(
            request_type="POST", name=name, response_time=(time.perf_counter() - begun) * 1e3,
            response_length=0, exception=None, context={},
        )  # fmt: skip

    def _catalogue(self) -> list[Json]:
        """All active ads; in the catalogue's order, which stands for their popularity."""
        ads, cursor = list[Json](), None
        while True:
            page = requests.get(
                f"{self.host}/ads", headers=self.client.headers, timeout=30,
                params={"limit": 1000} | ({"cursor": cursor} if cursor else {}),
            )  # fmt: skip
            page.raise_for_status()
            ads += page.json()["ads"]
            if (cursor := page.json()["cursor"]) is None:
                return [ad for ad in ads if ad["status"] == "active"]


class Bursts(LoadTestShape):
    """The visitors of `-u`, and every so often more of them for a while."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        options = self.runner.environment.parsed_options
        now_s = self.get_run_time()
        if options.run_time and now_s >= options.run_time:
            return None
        is_burst = (
            options.burst_every_s <= now_s and now_s % options.burst_every_s < options.burst_s
        )
        users = (options.num_users or 1) * (options.burst_factor if is_burst else 1)
        return round(users), options.spawn_rate or 1


@events.quitting.add_listener
def _(environment: Environment, **_: object) -> None:
    options, stats = environment.parsed_options, environment.stats
    limits = Limits(options.max_failures, options.max_ttft_ms, options.max_click_ms)
    clicks = [stats.get("/c/[token]", "GET"), stats.get("/v1/clicks", "POST")]
    # A stream's first text and its end have entries of their own, which are no requests.
    sent = [stats.get(HEADERS, "POST"), stats.get(WHOLE, "POST"), *clicks]
    broken = limits.broken(
        sum(entry.num_failures for entry in sent) / max(1, sum(e.num_requests for e in sent)),
        stats.get(TTFT, "POST").get_response_time_percentile(0.95),
        max(entry.get_response_time_percentile(0.99) for entry in clicks),
    )
    if stats.get(TTFT, "POST").num_requests == 0:
        broken.append("nothing was streamed")
    if not ChatVisitor.ads_shown:
        broken.append("no ad was shown: does the catalogue hold any?")
    for sentence in broken:
        print(f"limit not kept: {sentence}")
    environment.process_exit_code = 1 if broken else 0
