"""Alerts and dashboards: they ask only for what is measured, and Prometheus understands them."""

import shutil
import subprocess
from collections import Counter

import pytest
from promql import (
    DEPLOY,
    Unknown,
    alert_queries,
    check,
    dashboards,
    named,
    own_series,
    panel_queries,
)

from service.metrics import create_metrics

QUERIES = alert_queries() | panel_queries()
_OF_OTHERS = ("vllm:", "process_", "up")
"""Held against a running service in tests/end_to_end/test_monitoring.py."""


class TestReader:
    @pytest.mark.parametrize(
        ("query", "metrics"),
        [
            ("up == 0", {"up": set()}),
            ('rate(a_total{x="by (no)", y!~"b|c"}[5m])', {"a_total": {"x", "y"}}),
            ("sum by (le, s) (rate(a_bucket[1m])) / 1e6", {"a_bucket": set()}),
            ("sum by (k) (a) / scalar(sum(vllm:b))", {"a": set(), "vllm:b": set()}),
            ("(sum(a) or vector(0)) > 1 and b{c='1'}", {"a": set(), "b": {"c"}}),
        ],
    )
    def test_finds_metrics_and_labels(self, query: str, metrics: dict[str, set[str]]) -> None:
        assert named(query) == metrics

    @pytest.mark.parametrize(
        "query", ["b", 'a{z="1"}', "sum by (z) (a)", "sum by (x, z) (rate(a[5m])) / scalar(a)"]
    )
    def test_notices_what_is_not_measured(self, query: str) -> None:
        with pytest.raises(Unknown):
            check(query, {"a": frozenset({"x"})})


class TestQueries:
    @pytest.mark.parametrize("place", QUERIES)
    def test_name_only_what_is_measured(self, place: str) -> None:
        metrics = named(QUERIES[place])
        assert metrics
        others: dict[str, frozenset[str]] = {
            name: frozenset() for name in metrics if name.startswith(_OF_OTHERS)
        }
        check(QUERIES[place], own_series() | others)

    def test_every_collector_is_shown_or_watched(self) -> None:
        asked = {name for query in QUERIES.values() for name in named(query)}
        known_elsewhere = {"llm_auction_http_request_seconds"}  # per route: for those who look
        for collector in vars(create_metrics()).values():
            if hasattr(collector, "_name") and collector._name not in known_elsewhere:
                assert any(name.startswith(collector._name) for name in asked), collector._name


class TestDashboards:
    def test_panels_have_numbers_and_places_of_their_own(self) -> None:
        for name, dashboard in dashboards().items():
            ids = Counter(panel["id"] for panel in dashboard["panels"])
            cells = Counter(
                (panel["gridPos"]["x"] + dx, panel["gridPos"]["y"] + dy)
                for panel in dashboard["panels"]
                for dx in range(panel["gridPos"]["w"])
                for dy in range(panel["gridPos"]["h"])
            )
            assert max(ids.values()) == 1, name
            assert max(cells.values()) == 1, name
            assert all(0 <= x < 24 for x, _ in cells), name

    def test_uids_are_stable_and_differ(self) -> None:
        uids = [dashboard["uid"] for dashboard in dashboards().values()]
        assert sorted(uids) == ["llm-auction-money", "llm-auction-serving"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
class TestPromtool:
    @pytest.mark.parametrize(
        "arguments",
        [
            ("check", "rules", "rules.yml"),
            ("test", "rules", "rules_test.yml"),
            ("check", "config", "--syntax-only", "prometheus.yml"),
        ],
        ids=" ".join,
    )
    def test_agrees(self, arguments: tuple[str, ...]) -> None:
        run = subprocess.run(
            ["promtool", *arguments],
            cwd=DEPLOY / "prometheus",
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert run.returncode == 0, run.stdout + run.stderr
