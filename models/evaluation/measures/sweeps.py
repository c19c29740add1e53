"""Sweeps of one bid as matrices: a row for each query and seed, a column for each bid."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.evaluation.measures.bootstrap import Array, resampled_means
from models.evaluation.record import Record

Units = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sweeps:
    """bids: rising, shape (bids,). queries: shape (rows,). The others have shape (rows, bids).

    exposures: 1 where the ad was shown. clicks: its click probability, 0 where it was not shown.
    payments: expected, in units of currency. queries: the number of each row's query, from 0.
    """

    bids: Array
    exposures: Array
    clicks: Array
    payments: Array
    queries: Units


@dataclass(frozen=True, slots=True)
class Curve:
    """Means by bid with a pointwise 95 % band; each of shape (bids,)."""

    bids: Array
    means: Array
    low: Array
    high: Array


def sweeps(records: Sequence[Record]) -> Sweeps:
    """Return the complete rows of one mechanism's sweep; of what is cut short nothing is kept."""
    rows: dict[str, dict[int, Record]] = {}
    for one in records:
        if one.sweep is not None:
            rows.setdefault(one.row, {})[one.sweep.bid] = one
    bids = sorted({bid for row in rows.values() for bid in row})
    complete = [rows[name] for name in sorted(rows) if len(rows[name]) == len(bids)]

    def matrix(value: str) -> Array:
        cells = [[_value(row[bid], value) for bid in bids] for row in complete]
        return np.array(cells, dtype=np.float64).reshape(len(complete), len(bids))

    return Sweeps(
        np.array(bids, dtype=np.float64),
        matrix("exposure"),
        matrix("click"),
        matrix("payment"),
        _numbered([row[bids[0]].query_id for row in complete]),
    )


def independent(queries: Units) -> Units:
    """Return for each row the number of what was drawn independently: its query, since repeats of
    one are alike; the row itself, where there is but one query."""
    is_one = len(np.unique(queries)) < 2
    return np.arange(len(queries), dtype=np.int64) if is_one else queries


def by_unit(values: Array, units: Units) -> Array:
    """Return the means of `values`' rows over each unit: shape (units, columns)."""
    return np.array([values[units == unit].mean(axis=0) for unit in np.unique(units)])


def curve(bids: Array, responses: Array, seed: int) -> Curve:
    """responses: shape (rows, bids), at least one row."""
    means = responses.mean(axis=0)
    if len(responses) < 2:
        return Curve(bids, means, np.full_like(means, np.nan), np.full_like(means, np.nan))
    low, high = np.percentile(resampled_means(responses, seed), (2.5, 97.5), axis=0)
    return Curve(bids, means, low, high)


def _numbered(queries: Sequence[str]) -> Units:
    different = sorted(set(queries))
    return np.array([different.index(query) for query in queries], dtype=np.int64)


def _value(one: Record, value: str) -> float:
    assert one.sweep is not None
    ad_id = one.sweep.ad_id
    match value:
        case "exposure":
            return float(one.shows(ad_id))
        case "click":
            return one.click_probability(ad_id)
        case _:
            return one.payment(ad_id)
