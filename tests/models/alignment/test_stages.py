"""Stages get what their run's preset says."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from models.alignment import stages
from models.alignment.catalogue import load_further_questions
from models.alignment.preferences import Scored
from models.alignment.presets import PAPER, REFINE, SMALL, Preset
from models.alignment.run import Run
from models.alignment.sampling import Sampled
from models.contract.markers import read
from models.provision import DEFAULT_MODEL, shipped_adapter
from models.simulation.auctions import draw_auctions
from models.simulation.nouns import Auction, Split
from models.simulation.outside import read_ads
from models.simulation.world import World, WorldOptions, build_world
from service.cli import DEMO_ADS


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(read_ads(DEMO_ADS).good, WorldOptions(users=60))


class BegunError(Exception):
    """Stands for a training that begins."""


@pytest.mark.parametrize(
    ("preset", "adapter"),
    [(SMALL, None), (REFINE, shipped_adapter(DEFAULT_MODEL).directory)],
)
def test_training_begins_with_the_adapter_that_the_preset_names(
    preset: Preset,
    adapter: Path | None,
    world: World,
    tokenizer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def begin(*given: Any) -> None:
        raise BegunError(given[-1])

    monkeypatch.setattr(stages, "AdapterTrainer", begin)
    with pytest.raises(BegunError) as begun:
        stages.warm_start(Run(tmp_path, preset, DEMO_ADS), world, "base", tokenizer, print)

    assert begun.value.args == (adapter,)


def test_further_questions_are_asked_where_the_world_sells_something_for_them(
    world: World, tmp_path: Path
) -> None:
    run = Run(tmp_path, SMALL, DEMO_ADS)
    shoes = [ad for ad in world.ads if ad.category == "running shoes"]
    few = build_world(shoes, WorldOptions(users=60))
    everything, part = (
        {query.text for query in stages.training_questions(run, w)} for w in (world, few)
    )

    assert {text for _, text in load_further_questions()} < everything
    for category, text in load_further_questions():
        assert (text in part) == (category in (None, "running shoes"))


def test_auctions_are_of_training_users_and_in_part_about_further_questions(
    world: World, tmp_path: Path
) -> None:
    run = Run(tmp_path, REFINE, DEMO_ADS)
    auctions = stages.epoch_auctions(run, world, 1, "policy")
    further = {text for _, text in load_further_questions()}

    assert len(auctions) == REFINE.auctions
    assert {auction.user.split for auction in auctions} == {Split.TRAIN}
    assert 0 < sum(auction.query.text in further for auction in auctions) < len(auctions)


def test_answers_to_one_auction_are_clicked_independently(world: World) -> None:
    one = draw_auctions(world, Split.TRAIN, 1, seed=5)
    answer = Sampled("", read("", (), 0), is_whole=True)
    shown = stages.exposures(one, [[answer] * 10])

    assert len({exposure.auction.seed for exposure in shown}) == 10
    assert {exposure.auction.auction_id for exposure in shown} == {one[0].auction_id}


async def test_preferences_are_read_from_what_the_policy_phase_has_kept(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answered(auction: Auction) -> list[Sampled]:
        markers = [ad.marked for ad in auction.ads]
        cut = f"Try @{auction.ads[0].title[:3]}"
        texts = (("No.", True), (cut, False), ("Yes, but", False))
        return [Sampled(text, read(text, markers, 3), is_whole) for text, is_whole in texts]

    async def sample(open_engine: object, auctions: list[Auction], *_: object) -> Any:
        return [answered(auction) for auction in auctions]

    rewards = {"No.": 0.0, "Try ": -100.0, "Yes, but": 30.0}
    monkeypatch.setattr(stages, "sample", sample)
    monkeypatch.setattr(
        stages, "_rewards", lambda run, shown, *_: [rewards[it.reading.answer] for it in shown]
    )
    run, given = Run(tmp_path, replace(SMALL, auctions=2), DEMO_ADS), cast(Any, None)
    await stages.policy_phase(run, world, given, given, given, 1, print)
    found = stages.preferences(run, world, 1)

    assert [one.auction for one in found] == stages.epoch_auctions(run, world, 1, "policy")
    for one in found:
        assert one.winner == Scored(read("Yes, but", (), 3), 30.0, is_whole=False)
        assert [loser.reading.answer for loser in one.losers] == ["No."]  # none cut in a marker


def test_a_full_model_is_trained_on_from_the_policy_and_once(
    world: World, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []
    monkeypatch.setattr(stages, "train_dpo", lambda model, *_: trained.append(model))
    run = Run(tmp_path, PAPER, DEMO_ADS)

    stages.train_policy(run, (), "base", "policy of epoch 2", tokenizer, 2, print)
    (run.epoch(2) / "dpo" / "model").mkdir(parents=True)
    stages.train_policy(run, (), "base", "policy of epoch 2", tokenizer, 2, print)

    assert trained == ["policy of epoch 2"]
