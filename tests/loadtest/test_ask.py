"""Which answers the load tools call broken."""

from typing import Any

from loadtest.ask import contract_breaks

ASK = {"candidates": [{"ad_id": "Ad-1", "bid": 1.25}]}
TITLES = {"Ad-1": "Trail Boots"}
LATENCY = {"total": 10.0, "ttft": 9.0, "prefill": 4.0, "decode": 5.0}


def body(price_micros: int = 1_250_000, **changed: Any) -> dict[str, Any]:
    answer = "Try @Trail Boots@[Ad-1]."
    ad = {
        "ad_id": "Ad-1",
        "span": {"start": 4, "end": 23},
        "charge": {"price_micros": price_micros},
    }
    return {
        "answer": answer, "ads": [ad], "faults": [], "latency_ms": LATENCY, "finish_reason": "stop",
        **changed,
    }  # fmt: skip


def test_an_answer_that_keeps_its_contract_is_not_broken() -> None:
    assert contract_breaks(ASK, body(), TITLES) == []


def test_what_is_not_as_promised_is_named() -> None:
    assert contract_breaks(ASK, body(price_micros=1), TITLES) == ["price is not the bid"]
    assert contract_breaks(ASK, body(), {"Ad-1": "Boots"}) == ["marker is not title and id"]
    late = body(latency_ms=LATENCY | {"decode": 50.0})
    assert contract_breaks(ASK, late, TITLES) == ["stages exceed the total"]


def test_half_a_marker_is_broken_but_where_the_answer_was_cut() -> None:
    faults = [{"kind": "truncated"}]
    for reason, breaks in (("length", []), ("deadline", []), ("stop", ["fault truncated"])):
        assert contract_breaks(ASK, body(faults=faults, finish_reason=reason), TITLES) == breaks
