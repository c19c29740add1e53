"""A run is written down answer by answer, and goes on where it was ended."""

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from market import BagOfWords, Planted, Readers, an_auction
from typist import Typist

from models.contract.prompt import Layout
from models.engine.interface import Sampling
from models.evaluation.config import RunConfig, Sizes, Study
from models.evaluation.manifest import ManifestDiffers, RunBusy, claim, held, read_manifest
from models.evaluation.mechanism import Outcome
from models.evaluation.mechanisms.sampled import Sampler
from models.evaluation.plan import DRAWS, Task, plan
from models.evaluation.policy import Policy
from models.evaluation.record import RecordsDamaged, read_records, to_line
from models.evaluation.run import OUTCOMES, Bench, run
from models.simulation.agreement import agreement, read_verdicts
from models.simulation.completions import Completions, CompletionStore
from models.simulation.nouns import Auction
from models.simulation.objective import Objective

SIZES = Sizes(auctions=5, sweep_queries=1, sweep_repeats=1, curve_repeats=0, order_auctions=2)
CONFIG = RunConfig(("all", "none"), sizes=SIZES, draws=3)


class Killed(Exception):
    """Stands for a kill in the middle of a run."""


class Mortal:
    """Answers as many auctions as it has lives."""

    def __init__(self, inner: Planted, lives: int) -> None:
        self.inner, self.lives, self.name = inner, lives, inner.name

    async def answer(self, auction: Auction) -> Outcome:
        if self.lives == 0:
            raise Killed
        self.lives -= 1
        return await self.inner.answer(auction)


def tasks() -> list[Task]:
    return plan(CONFIG, [an_auction(number) for number in range(5)])


def bench(lives: int = 10_000) -> Bench:
    completions = Completions(Typist(lambda _: "A plain answer."), CompletionStore(None))
    policy = Policy(completions, Layout.INLINE, Sampling(), 3)
    return Bench(
        {
            "all": Mortal(Planted("all", lambda *_: 1.0), lives),
            "none": Mortal(Planted("none", lambda *_: 0.0), lives),
        },
        policy,
        Sampler(policy, Readers(), Objective(), CONFIG.draws),
        Readers(),
        Objective(),
        BagOfWords(),
    )


class TestRun:
    async def test_every_task_becomes_one_record(self, tmp_path: Path) -> None:
        done: list[int] = []
        await run(tasks(), bench(), tmp_path, done.append)
        records, _ = read_records(tmp_path / OUTCOMES)
        assert {one.key for one in records} == {task.key for task in tasks()}
        assert done == list(range(len(tasks()) + 1))
        assert len(records) == len(tasks())

    async def test_a_record_holds_what_the_answer_comes_to(self, tmp_path: Path) -> None:
        await run(tasks(), bench(), tmp_path, lambda done: None)
        records = {one.key: one for one in read_records(tmp_path / OUTCOMES)[0]}
        one = records["efficiency/all/a0"]
        bids = an_auction(0).bids
        value = bids[0] * 0.5 + sum(bids[1:]) * 0.1
        assert one.revenue == pytest.approx(value)
        assert one.value == pytest.approx(value)
        assert one.reward == pytest.approx(value - 8 * 10)
        assert "@" not in one.plain
        assert [bidder.click_potential for bidder in one.bidders] == [0.5, *[None] * 7]
        assert one.similarity is not None
        assert len(records[f"optimum/{DRAWS}/a0"].draw_rewards) == 3

    async def test_one_that_was_killed_goes_on(self, tmp_path: Path) -> None:
        with pytest.raises(ExceptionGroup):
            await run(tasks(), bench(lives=4), tmp_path, lambda done: None, concurrency=1)
        before, _ = read_records(tmp_path / OUTCOMES)
        with (tmp_path / OUTCOMES).open("ab") as file:
            file.write(b'{"key": "efficiency/all/a4", "half')
        done: list[int] = []
        await run(tasks(), bench(), tmp_path, done.append)
        after, _ = read_records(tmp_path / OUTCOMES)
        assert 0 < len(before) < len(tasks())
        assert done[0] == len(before)
        assert after[: len(before)] == before
        assert sorted(one.key for one in after) == sorted(task.key for task in tasks())

    async def test_the_same_run_twice_keeps_the_same(self, tmp_path: Path) -> None:
        await run(tasks(), bench(), tmp_path / "a", lambda done: None, concurrency=7)
        await run(tasks(), bench(), tmp_path / "b", lambda done: None, concurrency=2)
        kept = [read_records(tmp_path / name / OUTCOMES)[0] for name in "ab"]
        assert sorted(kept[0], key=lambda one: one.key) == sorted(kept[1], key=lambda one: one.key)

    async def test_mechanisms_run_at_once(self, tmp_path: Path) -> None:
        """Each waits for the other, so neither ends alone."""
        meeting = asyncio.Barrier(2)

        class Meeting(Planted):
            async def answer(self, auction: Auction) -> Outcome:
                await meeting.wait()
                return await Planted.answer(self, auction)

        one = bench()
        both = {name: Meeting(name, lambda *_: 0.0) for name in ("all", "none")}
        together = Bench(both, one.reference, one.sampler, one.users, one.objective, one.encoder)
        efficiency = [task for task in tasks() if task.study is Study.EFFICIENCY]
        async with asyncio.timeout(5):
            await run(efficiency, together, tmp_path, lambda done: None, concurrency=2)

    async def test_what_users_made_of_it_can_be_compared(self, tmp_path: Path) -> None:
        for name in "ab":
            await run(tasks(), bench(), tmp_path / name, lambda done: None)

        found = agreement(*read_verdicts(tmp_path / "a", tmp_path / "b"))

        assert (found.ads, found.auctions) == (5 * 8, 5)
        assert found.spearman == pytest.approx(1)

    async def test_of_two_records_of_one_answer_the_first_counts(self, tmp_path: Path) -> None:
        await run(tasks(), bench(), tmp_path, lambda done: None)
        file = tmp_path / OUTCOMES
        records, _ = read_records(file)
        with file.open("ab") as lines:
            lines.write(to_line(replace(records[0], reward=-1.0)))
        assert read_records(file)[0] == records

    def test_a_damaged_line_is_named(self, tmp_path: Path) -> None:
        file = tmp_path / OUTCOMES
        file.write_text('{"key": 1}\n')
        with pytest.raises(RecordsDamaged, match="line 1"):
            read_records(file)


class TestManifest:
    def test_a_run_of_other_settings_is_refused_by_the_field(self, tmp_path: Path) -> None:
        first = {"config": CONFIG.as_json(), "model": {"name": "m", "revision": "1"}}
        claim(tmp_path, first, begun_at="now")
        claim(tmp_path, first, begun_at="later")
        other = RunConfig(("all", "none"), sizes=SIZES, draws=4)
        with pytest.raises(ManifestDiffers, match=r"config.draws was 3 and now is 4"):
            claim(tmp_path, first | {"config": other.as_json()}, begun_at="later")
        assert read_manifest(tmp_path)["begun_at"] == "now"
        assert json.loads((tmp_path / "manifest.json").read_text())["model"]["name"] == "m"


class TestHeld:
    def test_one_process_at_a_time_has_a_directory(self, tmp_path: Path) -> None:
        out = tmp_path / "new" / "out"
        with held(out), pytest.raises(RunBusy, match="Another process"), held(out):
            pass
        with held(out):
            pass

    def test_a_process_that_was_forked_meanwhile_does_not_keep_it(self, tmp_path: Path) -> None:
        leaver, stayer = os.pipe()
        with held(tmp_path):
            if (child := os.fork()) == 0:
                os.close(stayer)
                os.read(leaver, 1)
                os._exit(0)
        with held(tmp_path):
            pass
        os.close(stayer)
        os.close(leaver)
        os.waitpid(child, 0)


class TestPlan:
    @pytest.mark.parametrize("name", ["no-ads", "aligned-no-ads"])
    def test_what_knows_no_bids_is_asked_once_an_auction(self, name: str) -> None:
        config = replace(CONFIG, mechanisms=("pretrained", name))
        planned = plan(config, [an_auction(number) for number in range(5)])
        assert {task.study for task in planned if task.mechanism == name} == {Study.EFFICIENCY}

    def test_holds_the_chosen_studies_only(self) -> None:
        order = replace(CONFIG, studies=(Study.ORDER,))
        chosen = plan(order, [an_auction(number) for number in range(5)])
        assert {task.study for task in chosen} == {Study.ORDER}
        assert {task.study for task in tasks()} == set(Study) - {Study.CONTINUITY}

    def test_sweeps_change_one_bid_and_nothing_else(self) -> None:
        swept = [task for task in tasks() if task.study is Study.BID_RESPONSE]
        mine = [task for task in swept if task.mechanism == "all"]
        assert [task.sweep.bid for task in mine if task.sweep] == [1, *range(10, 101, 10)]
        assert len({task.auction.seed for task in mine}) == 1
        assert len({task.auction.ads for task in mine}) == 1
        assert len({task.auction.bids[:-1] for task in mine}) == 1
        assert {task.sweep.ad_id for task in mine if task.sweep} == {"Ad-0"}  # the one that fits

    def test_orders_give_every_ad_early_and_late_places_alike(self) -> None:
        orders = [
            task.auction
            for task in tasks()
            if task.study is Study.ORDER and task.row == "a0" and task.mechanism == "all"
        ]
        places = [[ad.ad_id for ad in auction.ads].index("Ad-3") for auction in orders]
        assert sorted(places) == [1, 3, 5, 7]
        bids = {
            dict(zip(auction.ads, auction.bids, strict=True))[auction.ads[0]] for auction in orders
        }
        assert len(bids) > 1
        assert (
            len({frozenset(zip(auction.ads, auction.bids, strict=True)) for auction in orders}) == 1
        )

    def test_the_fine_sweep_is_where_two_ads_fit_and_the_other_bids_near_the_middle(self) -> None:
        auctions = [an_auction(number) for number in range(5)]
        for number, bid in ((1, 96), (3, 44), (4, 7)):
            one = auctions[number]
            rival = replace(one.ads[-1], category="tents")
            auctions[number] = replace(one, ads=(*one.ads[:-1], rival), bids=(*one.bids[:-1], bid))
        fine = replace(CONFIG, studies=(Study.CONTINUITY,), sizes=replace(SIZES, curve_repeats=2))

        swept = plan(fine, auctions)

        assert {task.auction.query.query_id for task in swept} == {"q3"}
        assert len({task.row for task in swept}) == 2
