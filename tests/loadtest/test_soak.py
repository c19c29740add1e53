"""What a soak calls growth."""

from dataclasses import replace

import pytest

from loadtest.soak import Sample, judge

STEADY = [
    Sample(at_s=5.0 * n, memory_mib=100 + n % 3, descriptors=40 + n % 5, lag_ms=1.0,
           store_mib=10 + 0.5 * n, answers=100 * n)
    for n in range(60)
]  # fmt: skip


def broken(samples: list[Sample]) -> set[str]:
    return {finding.name for finding in judge(samples) if not finding.is_kept}


def test_a_steady_service_whose_store_keeps_receipts_passes() -> None:
    assert broken(STEADY) == set()


def test_what_grows_during_the_warm_up_is_no_leak() -> None:
    warming = [replace(s, memory_mib=50.0) if s.at_s < 50 else s for s in STEADY]
    assert broken(warming) == set()


@pytest.mark.parametrize(
    ("name", "slope", "quantity"),
    [
        ("memory_mib", 1.0, "memory of the service, MiB"),
        ("descriptors", 1, "file descriptors"),
        ("lag_ms", 0.5, "event loop's lag, ms"),
    ],
)
def test_what_grows_is_named(name: str, slope: float, quantity: str) -> None:
    growing = [replace(s, **{name: getattr(s, name) + slope * n}) for n, s in enumerate(STEADY)]
    assert broken(growing) == {quantity}


def test_an_answer_that_takes_ever_more_of_the_store_is_named() -> None:
    growing = [replace(s, store_mib=10 + 0.01 * n * n) for n, s in enumerate(STEADY)]
    assert broken(growing) == {"store, KiB an answer"}


def test_too_short_a_run_is_no_verdict() -> None:
    with pytest.raises(ValueError, match="at least 6"):
        judge(STEADY[:5])
