import pytest
from pydantic import ValidationError

from service.api.schemas import CandidateBid, RespondRequest


@pytest.mark.parametrize(
    ("bid", "micros"),
    [("0.000001", 1), ("1000000", 10**12), ("0012.50", 12_500_000), (1e-6, 1), (1_000_000, 10**12)],
)
def test_a_bid_is_a_decimal_amount(bid: object, micros: int) -> None:
    assert CandidateBid.model_validate({"ad_id": "Ad-1", "bid": bid}).bid == micros


@pytest.mark.parametrize(
    "bid", ["1." + "0" * 100_000, "1e-3", " 5 ", "1\n", "1_0", "+1", ".5", "1.", "٣", "NaN", ""]
)
def test_a_bid_that_is_not_written_as_documented_is_refused(bid: str) -> None:
    with pytest.raises(ValidationError, match="with at most 6 decimals; as text, written like"):
        CandidateBid.model_validate({"ad_id": "Ad-1", "bid": bid})


@pytest.mark.parametrize("bid", [0, "0", -1, 1_000_001, "1000001", 1e-7, float("inf")])
def test_a_bid_outside_the_range_is_refused(bid: object) -> None:
    with pytest.raises(ValidationError, match="must be over 0, at most 1000000"):
        CandidateBid.model_validate({"ad_id": "Ad-1", "bid": bid})


@pytest.mark.parametrize("bid", [True, None, [1], {"amount": 1}])
def test_a_bid_that_is_no_number_is_refused(bid: object) -> None:
    assert CandidateBid.model_validate({"ad_id": "Ad-1", "bid": 1}).bid == 1_000_000
    with pytest.raises(ValidationError, match="must be a decimal number"):
        CandidateBid.model_validate({"ad_id": "Ad-1", "bid": bid})


def test_a_seed_that_an_engine_would_ignore_is_refused() -> None:
    """vLLM reads -1 as no seed at all, and the receipt would state one."""
    assert RespondRequest.model_validate({"query": "Hi", "seed": 2**63 - 1}).seed == 2**63 - 1
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        RespondRequest.model_validate({"query": "Hi", "seed": -1})
