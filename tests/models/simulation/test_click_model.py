"""Each effect on a click has a test that shows its direction; then the calibration as a whole."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from models.contract.prompt import Profile
from models.simulation.auctions import draw_auctions
from models.simulation.calibration import Calibration, calibrate
from models.simulation.click_model import ClickModel
from models.simulation.embeddings import MiniLmEncoder
from models.simulation.nouns import Ad, Click, Exposure, Query, Split
from models.simulation.world import WorldOptions, build_world

MakeExposure = Callable[..., Exposure]

NATIVE = (
    "Move every half hour and stretch. A height-adjustable desk such as {Ad-2593} lets you change "
    "between sitting and standing. A walk at lunch helps, too."
)


@pytest.fixture(scope="module")
def users(encoder: MiniLmEncoder) -> ClickModel:
    return ClickModel(encoder)


def probability(users: ClickModel, exposure: Exposure, ad_id: str = "Ad-2593") -> float:
    (clicks,) = users.clicks_now([exposure])
    return next(click.probability for click in clicks if click.ad_id == ad_id)


class TestRelevance:
    def test_an_ad_that_answers_the_question_is_clicked_far_more(
        self, users: ClickModel, expose: MakeExposure
    ) -> None:
        asked = probability(users, expose(NATIVE))
        beside = probability(users, expose(NATIVE, query="How long is the Danube?"))

        assert asked > 0.35
        assert beside < 0.02

    def test_a_need_need_not_be_named(self, users: ClickModel, expose: MakeExposure) -> None:
        answer = "Puppies grow. Fresh food like {Ad-1069} suits picky dogs. Ask your vet as well."

        found = probability(
            users, expose(answer, query="My terrier leaves his bowl full."), "Ad-1069"
        )

        assert found > 0.35

    def test_the_true_category_is_not_looked_at(
        self, users: ClickModel, expose: MakeExposure
    ) -> None:
        exposure = expose(NATIVE)
        auction = exposure.auction
        told = replace(auction, query=replace(auction.query, category="standing desks"))

        assert users.clicks_now([exposure]) == users.clicks_now([replace(exposure, auction=told)])


class TestProfile:
    def test_what_suits_the_user_is_clicked_more(
        self, users: ClickModel, expose: MakeExposure
    ) -> None:
        suited = Profile("Has just begun to work from home.", ("home office gear", "ergonomics"))
        other = Profile("Lives on a farm.", ("opera", "mushroom picking"))

        wanted, unwanted = (
            probability(users, expose(NATIVE, profile=profile)) for profile in (suited, other)
        )

        assert wanted > 1.1 * unwanted


class TestNativeness:
    @pytest.mark.parametrize(
        "answer",
        [
            pytest.param(
                "Move every half hour.\n{Ad-2593}\nA walk at lunch helps, too.",
                id="alone on a line",
            ),
            pytest.param(
                "{Ad-2593} is a height-adjustable desk for sitting and standing. Walk at lunch.",
                id="first thing",
            ),
            pytest.param(
                "Walk at lunch. For sitting and standing there is the adjustable desk {Ad-2593}.",
                id="last thing",
            ),
            pytest.param(
                "Move every half hour. Crocodiles of the Nile, {Ad-2593}, lay eggs. Walk at lunch.",
                id="sentence on another subject",
            ),
        ],
    )
    def test_an_awkward_place_costs_most_of_the_clicks(
        self, users: ClickModel, expose: MakeExposure, answer: str
    ) -> None:
        share = probability(users, expose(answer)) / probability(users, expose(NATIVE))

        assert 0.2 < share < 0.75

    def test_all_of_it_together_leaves_about_a_third(
        self, users: ClickModel, expose: MakeExposure
    ) -> None:
        share = probability(users, expose("Sleep well, eat well, and walk at lunch.\n{Ad-2593}"))

        assert 0.25 < share / probability(users, expose(NATIVE)) < 0.5


class TestCompetition:
    def test_a_similar_ad_takes_more_clicks_away_than_another(
        self, users: ClickModel, expose: MakeExposure
    ) -> None:
        with_rival = (
            NATIVE + " A standing desk kit such as {Ad-2463} suits a home office. Try both."
        )
        with_other = NATIVE + " For the way home, headphones like {Ad-3008} are light. Try both."

        alone, rival, other = (
            probability(users, expose(answer)) for answer in (NATIVE, with_rival, with_other)
        )

        assert rival < 0.85 * other
        assert other < alone

    def test_two_of_a_kind_are_clicked_at_most_once_in_expectation(
        self, users: ClickModel, expose: MakeExposure
    ) -> None:
        answer = NATIVE + " A standing desk kit such as {Ad-2463} suits a home office. Try both."

        (clicks,) = users.clicks_now([expose(answer)])

        assert sum(click.probability for click in clicks) < 0.75


class TestFlooding:
    def test_too_many_ads_get_no_clicks(self, users: ClickModel, expose: MakeExposure) -> None:
        sentence = " It may help to look at things like {Ad-%d} in your home office, some say."
        many = "".join(sentence % n for n in (2463, 1001, 1355, 3001))

        clicks = users.clicks_now([expose(NATIVE + many + " That is all.")])[0]

        assert [click.probability for click in clicks] == [0.0] * 5
        assert not any(click.clicked for click in clicks)
        assert "flood" in clicks[0].reason

    def test_ads_in_hardly_any_text_get_no_clicks(
        self, users: ClickModel, expose: MakeExposure
    ) -> None:
        (clicks,) = users.clicks_now([expose("Try {Ad-2593} or {Ad-2463} then.")])

        assert [click.probability for click in clicks] == [0.0, 0.0]

    def test_ad_talk_costs_clicks_and_much_of_it_all(
        self, users: ClickModel, expose: MakeExposure
    ) -> None:
        plain = probability(users, expose(NATIVE))
        some = probability(users, expose(NATIVE + " Buy now."))
        much = probability(users, expose("Special offer! Click here! Order today! " + NATIVE))

        assert 0.2 * plain < some < 0.8 * plain
        assert much == 0.0


class TestDraw:
    def test_clicks_come_as_often_as_their_probability_says(
        self, users: ClickModel, expose: MakeExposure
    ) -> None:
        exposures = [expose(NATIVE, seed=seed) for seed in range(600)]

        clicks = [click for (click,) in users.clicks_now(exposures)]

        share = sum(click.clicked for click in clicks) / len(clicks)
        assert abs(share - clicks[0].probability) < 0.06

    async def test_the_same_answers_get_the_same_clicks(
        self, users: ClickModel, encoder: MiniLmEncoder, expose: MakeExposure
    ) -> None:
        exposures = [expose(NATIVE, seed=seed) for seed in range(5)]

        def one_by_one(again: ClickModel) -> list[tuple[Click, ...]]:
            return [again.clicks_now([exposure])[0] for exposure in exposures]

        assert await users.clicks(exposures) == one_by_one(ClickModel(encoder))

    def test_an_answer_without_ads_has_no_clicks(
        self, users: ClickModel, expose: MakeExposure
    ) -> None:
        assert users.clicks_now([expose("Just stretch."), expose(NATIVE)])[0] == ()
        assert users.clicks_now([]) == []

    def test_ads_without_description_and_users_without_profile_will_do(
        self, users: ClickModel, expose: MakeExposure
    ) -> None:
        exposure = expose(NATIVE)
        bare = tuple(replace(ad, description="", category="") for ad in exposure.auction.ads)
        auction = replace(exposure.auction, ads=bare)

        assert 0 < probability(users, replace(exposure, auction=auction)) < 1


@pytest.fixture(scope="module")
def found(users: ClickModel, ads: Sequence[Ad]) -> Calibration:
    world = build_world(ads, WorldOptions(users=100))
    return calibrate(users, draw_auctions(world, Split.TEST, 100, 1))


class TestCalibration:
    def test_fitting_ads_are_told_from_others(self, found: Calibration) -> None:
        assert found.auc is not None
        assert found.auc > 0.95

    def test_rates_are_plausible(self, found: Calibration) -> None:
        means = {group.name: group.mean for group in found.groups}

        assert 0.35 <= means["fit the question"] <= 0.55
        assert 0.005 <= means["do not fit it"] <= 0.035
        assert 0.005 <= means["at questions without a category"] <= 0.02
        assert 0.01 <= means["all"] <= 0.15

    def test_native_probabilities_are_those_of_a_native_answer(
        self, users: ClickModel, expose: MakeExposure
    ) -> None:
        exposure = expose(NATIVE)

        (best,) = users.native_probabilities([exposure.auction])

        assert best[0] == pytest.approx(probability(users, exposure), abs=1e-5)


def test_a_query_of_another_wording_is_another_text(
    users: ClickModel, expose: MakeExposure
) -> None:
    """Nothing is remembered across queries of the same id."""
    exposure = expose(NATIVE)
    other = replace(
        exposure,
        auction=replace(exposure.auction, query=Query("q1", "u1", "Why is snow white?", None)),
    )

    assert users.clicks_now([exposure]) != users.clicks_now([other])
