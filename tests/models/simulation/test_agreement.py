from pathlib import Path
from random import Random

import pytest

from models.simulation.agreement import Key, agreement, read_labels, read_verdicts


def user(seed: int, noise: float) -> dict[Key, float]:
    """Says of 300 ads how it likes them: the truth, blurred."""
    truth, blur = Random(0), Random(seed)
    return {
        (f"a{n // 2}", f"Ad-{n % 2}"): min(1, max(0, truth.random() + noise * blur.gauss(0, 1)))
        for n in range(300)
    }


class TestAgreement:
    def test_a_user_agrees_with_itself(self) -> None:
        found = agreement(user(1, 0.1), user(1, 0.1))

        assert found.spearman == pytest.approx(1.0)
        assert (found.ads, found.auctions) == (300, 150)

    def test_less_noise_is_more_agreement(self) -> None:
        close, far = (agreement(user(1, noise), user(2, noise)) for noise in (0.1, 0.5))

        assert close.spearman > far.spearman > 0
        assert far.low < far.spearman < far.high
        assert close.low > far.high

    def test_users_with_nothing_in_common_do_not_agree(self) -> None:
        rolls = Random(9)
        found = agreement(user(1, 0.1), {key: rolls.random() for key in user(1, 0.1)})

        assert found.low < 0 < found.high

    def test_only_ads_that_both_judged_count(self) -> None:
        first = user(1, 0.1)
        second = {key: value for key, value in user(2, 0.1).items() if key[1] == "Ad-0"}

        assert agreement(first, second).ads == 150

    def test_the_interval_is_the_same_again(self) -> None:
        assert agreement(user(1, 0.3), user(2, 0.3)) == agreement(user(1, 0.3), user(2, 0.3))

    def test_too_few_ads_are_refused(self) -> None:
        with pytest.raises(ValueError, match="Only 0 ads"):
            agreement(user(1, 0.1), {("b", "Ad-0"): 1.0})

    def test_a_user_without_opinion_cannot_be_ranked(self) -> None:
        with pytest.raises(ValueError, match="second user says 0 of every ad"):
            agreement(user(1, 0.1), dict.fromkeys(user(1, 0.1), 0.0))


class TestLabels:
    def test_labels_of_several_people_are_averaged(self, tmp_path: Path) -> None:
        path = tmp_path / "labels.jsonl"
        path.write_text(
            '{"auction_id": "a", "ad_id": "Ad-1", "clicked": true}\n\n'
            '{"auction_id": "a", "ad_id": "Ad-1", "clicked": false}\n'
            '{"auction_id": "a", "ad_id": "Ad-2", "probability": 0.2}\n'
        )

        assert read_labels(path) == {("a", "", "Ad-1"): 0.5, ("a", "", "Ad-2"): 0.2}

    @pytest.mark.parametrize(
        "line", ["{", '{"ad_id": "Ad-1"}', '{"auction_id": "a", "ad_id": "b", "probability": 7}']
    )
    def test_a_bad_line_is_named(self, tmp_path: Path, line: str) -> None:
        path = tmp_path / "labels.jsonl"
        path.write_text(f'{{"auction_id": "a", "ad_id": "Ad-1", "clicked": true}}\n{line}\n')

        with pytest.raises(ValueError, match="line 2"):
            read_labels(path)


class TestOutcomes:
    @staticmethod
    def run(directory: Path, answer: str, *showings: str, study: str = "efficiency") -> Path:
        directory.mkdir(exist_ok=True)
        row = (
            f'{{"study": "{study}", "auction_id": "a", "mechanism": "m", "answer": "{answer}", '
            f'"showings": [{", ".join(showings)}]}}\n'
        )
        with (directory / "outcomes.jsonl").open("a") as lines:
            lines.write(row)
        return directory

    def test_two_runs_are_matched_where_their_answers_are_the_same(self, tmp_path: Path) -> None:
        first = self.run(tmp_path / "one", "Same.", '{"ad_id": "Ad-1", "probability": 0.2}')
        second = self.run(tmp_path / "two", "Same.", '{"ad_id": "Ad-1", "probability": 0.7}')
        third = self.run(tmp_path / "three", "Other.", '{"ad_id": "Ad-1", "probability": 0.7}')

        one, two = read_verdicts(first, second)
        assert list(one) == list(two)
        assert (*one.values(), *two.values()) == (0.2, 0.7)
        one, three = read_verdicts(first, third)
        assert not set(one) & set(three)

    def test_a_line_that_a_killed_run_did_not_end_is_left_out(self, tmp_path: Path) -> None:
        run = self.run(tmp_path / "one", "Same.", '{"ad_id": "Ad-1", "probability": 0.2}')
        with (run / "outcomes.jsonl").open("a") as lines:
            lines.write('{"study": "effic')

        assert len(read_verdicts(run, run)[0]) == 1

    def test_a_run_is_matched_with_labels_by_auction_mechanism_and_ad(self, tmp_path: Path) -> None:
        run = self.run(tmp_path / "one", "Same.", '{"ad_id": "Ad-1", "probability": 0.2}')
        labels = tmp_path / "labels.jsonl"
        labels.write_text(
            '{"auction_id": "a", "mechanism": "m", "ad_id": "Ad-1", "clicked": true}\n'
        )

        judged, labelled = read_verdicts(run, labels)

        assert list(judged) == list(labelled)

    def test_answers_to_changed_auctions_are_left_out(self, tmp_path: Path) -> None:
        run = self.run(
            tmp_path, "Swept.", '{"ad_id": "Ad-1", "probability": 0.2}', study="bid_response"
        )

        assert read_verdicts(run, run) == ({}, {})
