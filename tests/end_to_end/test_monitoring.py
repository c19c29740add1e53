"""What alerts and dashboards ask for is what a running service, with its engine, exposes."""

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from promql import alert_queries, check, panel_queries

QUERIES = alert_queries() | panel_queries()


@pytest.fixture(scope="module")
def exposed(service: Any) -> dict[str, set[str]]:
    """The labels of each series, by its name; none of those that had nothing to count yet."""
    service.client.post("/respond", json={"query": "Hello", "max_tokens": 4})
    text = service.client.get("/metrics").text
    series: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            series.setdefault(sample.name, set()).update(sample.labels)
        if not family.samples:
            series[f"{family.name}_total" if family.type == "counter" else family.name] = set()
    return series


@pytest.mark.parametrize("place", QUERIES)
def test_is_exposed(exposed: dict[str, set[str]], place: str) -> None:
    check(QUERIES[place], exposed | {"up": {"job", "instance"}})  # Prometheus makes this one
