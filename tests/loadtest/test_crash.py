"""What the crash script would call wrong, fault by fault."""

from typing import Any

import pytest

from loadtest.crash import Click, Journal

PLACE = ("resp_1", "Ad-1")
CHARGED = {"state": "charged", "charge_id": "c-1", "amount_micros": 5, "replayed": False}
REPLAYED = {**CHARGED, "state": "duplicate", "replayed": True}
ENTRY = {"response_id": "resp_1", "ad_id": "Ad-1", "charge_id": "c-1", "price": 5}


@pytest.fixture
def journal() -> Journal:
    journal = Journal()
    journal.clicks[PLACE] = Click("token", 5, is_sent=True)
    return journal


class TestTake:
    def test_a_charge_and_its_repetitions_are_right(self, journal: Journal) -> None:
        for answer in (CHARGED, REPLAYED, {"state": "duplicate", "replayed": False}):
            journal.take(PLACE, answer)
        assert journal.wrong == []
        assert journal.clicks[PLACE].told == {"charge_id": "c-1", "price": 5}

    def test_a_click_in_doubt_is_settled_by_its_repetition(self, journal: Journal) -> None:
        journal.take(PLACE, REPLAYED)
        assert journal.clicks[PLACE].told == {"charge_id": "c-1", "price": 5}

    def test_an_answer_that_left_no_record_is_not_billed(self, journal: Journal) -> None:
        journal.take(PLACE, {"state": "invalid", "replayed": False})
        assert journal.wrong == []

    @pytest.mark.parametrize(
        "second",
        [
            CHARGED,
            {**CHARGED, "charge_id": "c-2"},
            {**REPLAYED, "charge_id": "c-2"},
            {**REPLAYED, "amount_micros": 6},
            {"state": "invalid", "replayed": False},
            {"state": "expired", "replayed": False},
        ],
    )
    def test_anything_else_is_wrong(self, journal: Journal, second: dict[str, Any]) -> None:
        journal.take(PLACE, CHARGED)
        journal.take(PLACE, second)
        assert journal.wrong

    def test_another_price_than_the_bid_is_wrong(self, journal: Journal) -> None:
        journal.take(PLACE, {**CHARGED, "amount_micros": 4})
        assert journal.wrong


class TestCompare:
    def test_a_ledger_that_holds_what_was_told_is_right(self, journal: Journal) -> None:
        journal.take(PLACE, CHARGED)
        journal.compare([ENTRY], {"Ad-1": 5})
        assert journal.wrong == []

    def test_a_charge_whose_answer_was_lost_is_right(self, journal: Journal) -> None:
        journal.compare([ENTRY], {"Ad-1": 5})
        assert journal.wrong == []

    @pytest.mark.parametrize(
        ("ledger", "spent"),
        [
            ([], {}),
            ([ENTRY, ENTRY], {"Ad-1": 10}),
            ([{**ENTRY, "price": 4}], {"Ad-1": 4}),
            ([{**ENTRY, "charge_id": "c-2"}], {"Ad-1": 5}),
            ([ENTRY, {**ENTRY, "ad_id": "Ad-2"}], {"Ad-1": 5, "Ad-2": 5}),
            ([ENTRY], {"Ad-1": 6}),
            ([ENTRY], {}),
        ],
        ids=["lost", "doubled", "price", "id", "nobody clicked", "overtaken", "not taken"],
    )
    def test_faults_are_found(
        self, journal: Journal, ledger: list[dict[str, Any]], spent: dict[str, int]
    ) -> None:
        journal.take(PLACE, CHARGED)
        journal.compare(ledger, spent)
        assert journal.wrong

    def test_an_overspent_budget_is_wrong(self, journal: Journal) -> None:
        place = ("resp_2", "Ad-0")
        journal.clicks[place] = Click("token", 20_000_001, is_sent=True)
        entry = {"response_id": "resp_2", "ad_id": "Ad-0", "charge_id": "c-2", "price": 20_000_001}
        journal.compare([entry], {"Ad-0": 20_000_001})
        assert journal.wrong

    def test_a_charge_before_any_click_is_wrong(self, journal: Journal) -> None:
        journal.clicks[PLACE].is_sent = False
        journal.compare([ENTRY], {"Ad-1": 5})
        assert journal.wrong
