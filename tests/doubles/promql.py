"""Which metrics and labels a PromQL query names. Enough for the queries that ship; no parser."""

import json
import re
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any

import yaml

from service.metrics import create_metrics

DEPLOY = Path(__file__).parents[2] / "deploy"
TARGET_LABELS = frozenset({"instance", "job"})
"""Prometheus itself puts them on every sample."""

_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*(?:\{([^}]*)\})?")
_MATCHER = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_DURATION = re.compile(r"\[[^\]]*\]")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_WORDS = frozenset({"and", "or", "unless", "bool", "offset", "sum", "min", "max", "avg"})


class Unknown(Exception):
    """A query asks for what is not measured; the message says for what."""


def check(query: str, measured: Mapping[str, Set[str]]) -> None:
    """Raise Unknown unless every metric of `query` is in `measured`, which has its labels.

    Of a metric without labels in `measured` any may be asked.
    """
    known: set[str] = set(TARGET_LABELS)
    for name, labels in named(query).items():
        if name not in measured:
            raise Unknown(f"the metric {name}")
        known |= measured[name] or labels | groupings(query)
        if measured[name] and (unknown := labels - measured[name] - TARGET_LABELS):
            raise Unknown(f"the label {unknown} of {name}")
    if unknown := groupings(query) - known:
        raise Unknown(f"the label {unknown} of any of its metrics")


def own_series() -> dict[str, frozenset[str]]:
    """The labels of every series that the service's own collectors make, by its name."""
    series: dict[str, frozenset[str]] = {}
    for collector in vars(create_metrics()).values():
        if not hasattr(collector, "_labelnames"):
            continue
        name, labels = collector._name, frozenset(collector._labelnames)
        if collector._type == "counter":
            series[f"{name}_total"] = labels
        elif collector._type == "histogram":
            series |= {f"{name}_sum": labels, f"{name}_count": labels}
            series[f"{name}_bucket"] = labels | {"le"}
        else:
            series[name] = labels
    return series


def groupings(query: str) -> set[str]:
    """The labels by which `query` groups."""
    found = _GROUPING.findall(_STRING.sub('""', query))
    return {label.strip() for labels in found for label in labels.split(",")} - {""}


def named(query: str) -> dict[str, set[str]]:
    """The labels that `query` selects by, by metric."""
    bare = _GROUPING.sub(" ", _STRING.sub('""', _DURATION.sub("", query)))
    metrics: dict[str, set[str]] = {}
    for found in _SELECTOR.finditer(bare):
        name, matchers = found.groups()
        is_call = bare[found.end() :].lstrip().startswith("(")
        is_number = bare[: found.start()][-1:].isdigit()  # the e of 1e6
        if is_call or is_number or name in _WORDS:
            continue
        metrics.setdefault(name, set()).update(_MATCHER.findall(matchers or ""))
    return metrics


def alert_queries() -> dict[str, str]:
    """The expression of every alert that ships, by its name."""
    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())
    return {rule["alert"]: rule["expr"] for group in rules["groups"] for rule in group["rules"]}


def dashboards() -> dict[str, Any]:
    """Every dashboard that ships, by its file's name."""
    folder = DEPLOY / "grafana" / "dashboards"
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def panel_queries() -> dict[str, str]:
    """The query of every panel that ships, by dashboard, title and letter."""
    return dict(_panel_queries())


def _panel_queries() -> Iterator[tuple[str, str]]:
    for name, dashboard in dashboards().items():
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                yield f"{name}/{panel['title']}/{target['refId']}", target["expr"]
