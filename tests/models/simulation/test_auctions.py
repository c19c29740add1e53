from collections import Counter
from dataclasses import replace

import pytest

from models.contract.prompt import Layout
from models.simulation.auctions import (
    AuctionOptions,
    draw_auctions,
    fitting,
    listed,
)
from models.simulation.nouns import Ad, Query, Split
from models.simulation.world import World, WorldOptions, build_world, outside_world


@pytest.fixture(scope="module")
def world(ads: tuple[Ad, ...]) -> World:
    return build_world(ads, WorldOptions(users=400))


class TestDraw:
    def test_candidates_are_distinct_and_as_many_as_wished(self, world: World) -> None:
        for auction in draw_auctions(world, Split.TRAIN, 200, 1, AuctionOptions(candidates=7)):
            assert len({ad.ad_id for ad in auction.ads}) == len(auction.bids) == 7

    def test_users_are_of_the_split(self, world: World) -> None:
        auctions = draw_auctions(world, Split.TEST, 100, 1)

        assert {auction.user.split for auction in auctions} == {Split.TEST}
        assert all(auction.query.user_id == auction.user.user_id for auction in auctions)

    def test_two_one_or_none_fit_as_often_as_said(self, world: World) -> None:
        auctions = draw_auctions(world, Split.TRAIN, 1500, 1)
        served = [auction for auction in auctions if auction.query.category]
        found = Counter(len(fitting(auction)) for auction in served)

        for fits, odds in ((2, 0.6), (1, 0.25), (0, 0.15)):
            assert abs(found[fits] / len(served) - odds) < 0.05

    def test_no_place_in_the_list_is_better_for_fitting_ads(self, world: World) -> None:
        auctions = draw_auctions(world, Split.TRAIN, 1500, 1)
        places = Counter(
            place
            for auction in auctions
            for place, ad in enumerate(auction.ads)
            if ad in fitting(auction)
        )

        assert max(places.values()) < 1.4 * min(places.values())

    def test_bids_are_uniform_whole_numbers(self, world: World) -> None:
        auctions = draw_auctions(world, Split.TRAIN, 1000, 1)
        bids = [bid for auction in auctions for bid in auction.bids]

        assert min(bids) == 1
        assert max(bids) == 100
        assert 48 <= sum(bids) / len(bids) <= 53

    def test_a_longer_draw_begins_with_the_shorter_one(self, world: World) -> None:
        assert (
            draw_auctions(world, Split.TEST, 50, 4) == draw_auctions(world, Split.TEST, 90, 4)[:50]
        )

    def test_another_seed_draws_other_auctions(self, world: World) -> None:
        assert draw_auctions(world, Split.TEST, 9, 1) != draw_auctions(world, Split.TEST, 9, 2)

    def test_queries_come_again_only_after_all_came_with_other_bids(self, world: World) -> None:
        queries = len(world.queries_of(Split.TEST))
        auctions = draw_auctions(world, Split.TEST, 2 * queries, 1)

        assert len({auction.query.query_id for auction in auctions[:queries]}) == queries
        assert len({auction.auction_id for auction in auctions}) == 2 * queries
        assert len({auction.seed for auction in auctions}) == 2 * queries

    def test_a_catalogue_of_nothing_but_fitting_ads_still_fills_the_list(self) -> None:
        ads = [Ad(f"Ad-{n}", f"Tent {n}", "camping tents", "A tent.") for n in range(6)]
        world = build_world(ads, WorldOptions(users=10, test_share=0.0))

        for auction in draw_auctions(world, Split.TRAIN, 20, 1, AuctionOptions(candidates=5)):
            assert len(auction.ads) == 5

    def test_half_are_what_a_search_found_where_nobody_knows_what_fits(
        self, ads: tuple[Ad, ...]
    ) -> None:
        query = Query("q1", "x1", "My terrier leaves his bowl full.", None)
        near = tuple(ad.ad_id for ad in ads[:10])
        world = outside_world(ads, [query], {"q1": near})

        for auction in draw_auctions(world, Split.TEST, 20, 1, AuctionOptions(candidates=8)):
            assert sum(ad.ad_id in near for ad in auction.ads) == 4

    def test_more_candidates_than_ads_are_refused(self, world: World) -> None:
        with pytest.raises(ValueError, match="101 candidates; the world has 100 ads"):
            draw_auctions(world, Split.TEST, 1, 1, AuctionOptions(candidates=101))

    def test_a_split_without_queries_is_refused(self, ads: tuple[Ad, ...]) -> None:
        world = build_world(ads, WorldOptions(users=5, test_share=0.0))

        with pytest.raises(ValueError, match="no query in the split test"):
            draw_auctions(world, Split.TEST, 1, 1)


class TestListed:
    def test_is_the_order_of_the_contract_not_of_the_auction(self, world: World) -> None:
        (auction,) = draw_auctions(world, Split.TEST, 1, seed=1)
        bids = (1, 100, *(10 for _ in auction.bids[2:]))
        turned = replace(auction, ads=auction.ads[::-1], bids=bids[::-1])

        candidates = listed(replace(auction, bids=bids), Layout.INLINE)

        assert candidates[0].ad_id == auction.ads[1].ad_id
        assert candidates[-1].ad_id == auction.ads[0].ad_id
        assert candidates == listed(turned, Layout.INLINE)

    def test_another_answer_is_another_draw(self, world: World) -> None:
        (auction,) = draw_auctions(world, Split.TEST, 1, seed=1)
        alike = replace(auction, bids=(10,) * len(auction.bids))

        orders = {
            tuple(ad.ad_id for ad in listed(replace(alike, seed=seed), Layout.INLINE))
            for seed in range(5)
        }

        assert len(orders) == 5
