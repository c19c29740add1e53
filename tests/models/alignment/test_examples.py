"""What is taught: the fitting ad that bids have put first, in the very tokens that are served."""

import random
import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from scripted import ScriptedEngine, scripted_services
from small_market import ADS, auction

from models.alignment.catalogue import load_further_questions, load_invented_market
from models.alignment.examples import (
    CHOICE_TOKENS,
    Example,
    ExampleOptions,
    Market,
    Packer,
    TokenKind,
    auction_prompt,
    draw_slates,
    shared_length,
    teach,
    winner,
)
from models.alignment.weave import Woven, weave
from models.contract.markers import read
from models.contract.neutral import neutralise_line
from models.contract.prompt import Layout, build_prompt
from models.engine.tokens import PromptTokenizer
from models.simulation.auctions import listed
from models.simulation.nouns import Ad, Query
from models.simulation.wordings import fill, load_material
from service.answer import Ask
from service.auction.ad import Ad as ServedAd
from service.auction.eligibility import Bid
from service.respond import respond
from service.settings import StoreSettings
from service.store.catalog import Catalog
from service.store.connection import open_store

ANSWER = "Good shoes matter. Start slowly. Rest a day between runs."
OPTIONS = ExampleOptions(early_share=0.0, text_stride=1, slates=2, bare_share=0.0)


def taught(options: ExampleOptions = OPTIONS, **changes: Any) -> Example:
    return teach(auction(**changes), ANSWER, options, random.Random(1))


class TestTeach:
    def test_inserts_the_higher_bid_of_those_that_fit(self) -> None:
        assert taught(bids=(40, 90, 100)).winner == ADS[1]
        assert taught(bids=(90, 40, 100)).winner == ADS[0]

    def test_is_the_first_listed_of_those_that_fit_at_any_draw_of_the_order(self) -> None:
        for seed in range(40):
            one = replace(auction(bids=(50, 52, 100)), seed=seed)
            order = [candidate.ad_id for candidate in listed(one, OPTIONS.layout)]
            first = min(ADS[:2], key=lambda ad: order.index(ad.ad_id))

            assert winner(one, OPTIONS) == first

    def test_is_the_highest_bid_where_bids_leave_the_order_alone(self) -> None:
        options = replace(OPTIONS, layout=Layout.SPLIT)
        winners = [
            winner(replace(auction(bids=(50, 52, 100)), seed=seed), options) for seed in range(40)
        ]

        assert winners == [ADS[1]] * 40

    @pytest.mark.parametrize("category", [None, "tax software"])
    def test_leaves_the_answer_as_it_is_where_nothing_fits(self, category: str | None) -> None:
        example = taught(category=category)

        assert (example.winner, example.answer) == (None, Woven(ANSWER))

    def test_leaves_out_what_is_not_worth_a_readers_attention(self) -> None:
        assert taught(bids=(7, 2, 100)).winner is None
        assert taught(bids=(8, 2, 100)).winner == ADS[0]

    def test_the_answer_reads_back_as_the_winner(self) -> None:
        example = taught()
        reading = read(example.answer.text, [ad.marked for ad in ADS], max_ads=3)

        assert [ad.ad_id for ad in reading.insertions] == ["Ad-2"]


class TestPacker:
    def test_every_branch_is_a_served_prompt_and_its_answer(self, tokenizer: Any) -> None:
        groups = [
            [taught(name="a"), taught(name="b", query="I camp.", category="camping tents")],
            [taught(name="a", bids=(70, 2, 5)), taught(name="c", query="2+2?", category=None)],
        ]
        tree = Packer(tokenizer, OPTIONS).pack(groups).tree
        prompts = PromptTokenizer(tokenizer)
        branches = [index for index, run in enumerate(tree.runs) if run.targets]

        for index, example in zip(branches, [e for group in groups for e in group], strict=True):
            path = [tree.runs[i].tokens for i in (*tree.lineage(index), index)]
            prompt = prompts.encode(auction_prompt(OPTIONS.layout, example.auction))
            answer = tokenizer(example.answer.text)["input_ids"]
            assert sum(path, ()) == (*prompt, *answer, tokenizer.eos_token_id)

    def test_targets_are_the_answer_and_nothing_of_the_prompt(self, tokenizer: Any) -> None:
        example = taught(category=None)
        run = Packer(tokenizer, OPTIONS).pack([[taught(), example]]).tree.runs[-1]
        learnt = [run.tokens[target.position] for target in run.targets]

        assert tokenizer.decode(learnt) == example.answer.text + tokenizer.eos_token

    def test_some_branches_end_once_all_is_decided(self, tokenizer: Any) -> None:
        options = replace(OPTIONS, early_share=1.0)
        run = Packer(tokenizer, options).pack([[taught(), taught(name="b")]]).tree.runs[-1]
        learnt = tokenizer.decode([run.tokens[target.position] for target in run.targets])

        assert learnt.endswith(": light shoes for race day. ")
        assert run.targets[-1].kind == TokenKind.BOUNDARY

    def test_the_teacher_answers_without_ads_what_the_pupil_answers_with_one(
        self, tokenizer: Any
    ) -> None:
        example = taught()
        pack = Packer(tokenizer, OPTIONS).pack([[taught(name="b", category=None), example]])
        asked, said = pack.plain.runs[-2:]
        rows = [run.tokens[target.position] for run in pack.plain.runs for target in run.targets]
        pupil = pack.tree.runs[-1]
        learnt = [t for t in pupil.targets if t.teacher is not None]

        assert ADS[1].title not in tokenizer.decode(asked.tokens)
        assert tokenizer.decode(said.tokens) == ANSWER + tokenizer.eos_token
        assert [pupil.tokens[t.position] for t in learnt] == [rows[t.teacher] for t in learnt]
        assert {t.kind for t in learnt} == {TokenKind.TEXT, TokenKind.END}
        assert len(learnt) > 0.8 * len(ANSWER)

    def test_nothing_is_taught_that_only_stands_in_for_the_answer(self, tokenizer: Any) -> None:
        one = auction()
        woven = weave("Good shoes matter.", ADS[0], random.Random(1))
        pack = Packer(tokenizer, OPTIONS).pack([[taught(name="b"), Example(one, woven, ADS[0])]])
        pupil = pack.tree.runs[-1]
        places = [t.position for t in pupil.targets if t.teacher is not None]

        said = tokenizer.decode([pupil.tokens[place] for place in places])
        assert said == "Good shoes matter." + tokenizer.eos_token

    def test_where_the_end_is_the_answers_own_no_teacher_has_a_say_in_it(
        self, tokenizer: Any
    ) -> None:
        packer = Packer(tokenizer, replace(OPTIONS, has_own_end=True))
        pack = packer.pack([[taught(), taught(name="b")]])
        for run in pack.tree.runs[-2:]:
            end = run.targets[-1]
            assert (run.tokens[end.position], end.kind) == (tokenizer.eos_token_id, TokenKind.END)
            assert end.teacher is None
            rows = [target.teacher for target in run.targets if target.kind is TokenKind.TEXT]
            assert rows
            assert None not in rows

    def test_words_of_the_base_model_are_learnt_now_and_then(self, tokenizer: Any) -> None:
        sparse = Packer(tokenizer, replace(OPTIONS, text_stride=4))
        runs = [packer.pack([[taught(), taught(name="b")]]).tree.runs[-1] for packer in
                (sparse, Packer(tokenizer, OPTIONS))]  # fmt: skip
        few, all_of_them = ([target.kind for target in run.targets] for run in runs)

        assert few.count(TokenKind.TEXT) < all_of_them.count(TokenKind.TEXT) / 2
        assert few.count(TokenKind.CHOICE) == all_of_them.count(TokenKind.CHOICE)

    def test_decisions_are_told_from_the_base_models_words(self, tokenizer: Any) -> None:
        woven = weave(ANSWER, ADS[0], random.Random(1))
        tokens, kinds = Packer(tokenizer, OPTIONS).answer_tokens(woven)

        def said(kind: TokenKind) -> str:
            chosen = [t for t, k in zip(tokens, kinds, strict=True) if k is kind]
            return str(tokenizer.decode(chosen))

        assert said(TokenKind.CHOICE) == ADS[0].title[:CHOICE_TOKENS]
        assert said(TokenKind.MARKER) == "@" + ADS[0].title[CHOICE_TOKENS:] + "@[Ad-1]"
        assert said(TokenKind.END) == tokenizer.eos_token
        assert kinds.count(TokenKind.OPENING) == 1
        assert kinds.count(TokenKind.BOUNDARY) >= 1

    @pytest.mark.parametrize(
        ("sequences", "length"), [(["abcd", "abxy"], 2), (["ab", "abc"], 1), (["abc"], 2)]
    )
    def test_each_branch_keeps_a_token_of_its_own(self, sequences: list[str], length: int) -> None:
        assert shared_length([[ord(c) for c in text] for text in sequences]) == length


class TestSlates:
    def market(self) -> Market:
        invented = load_invented_market()
        asked = [
            Query("q1", "", "What do beginners run in?", "running shoes"),
            Query("q2", "", "I camp.", "camping tents"),
            Query("q3", "", "2+2?", None),
        ]
        others = [
            Query(f"i{n}", "", text, category)
            for n, (category, text) in enumerate(invented.written(random.Random(1), 1))
        ]
        return Market([auction().user], ADS, invented, asked, others, {})

    def test_are_the_same_for_the_same_number(self) -> None:
        slates = [draw_slates(self.market(), OPTIONS, number) for number in (3, 3, 4)]

        assert slates[0] == slates[1] != slates[2]

    def test_ask_the_same_of_the_same_ads_at_other_bids(self) -> None:
        for number in range(30):
            first, second = draw_slates(self.market(), OPTIONS, number)
            assert first.queries == second.queries
            assert set(first.ads) == set(second.ads)
            assert first.bids != second.bids

    def test_some_offer_nothing_and_ask_all_the_same(self) -> None:
        options = replace(OPTIONS, bare_share=0.3)
        drawn = [draw_slates(self.market(), options, number) for number in range(200)]
        bare = [slates for slates in drawn if not slates[0].ads]

        assert 0.2 < len(bare) / len(drawn) < 0.4
        assert all(len(slates) == 1 and not slates[0].bids for slates in bare)
        asked = {query.category for (slate,) in bare for query in slate.queries}
        assert asked == {"running shoes", "camping tents", None}

    def test_hold_ads_that_the_catalogue_lacks_in_part(self) -> None:
        known = {ad.title for ad in ADS}
        drawn = [draw_slates(self.market(), OPTIONS, number)[0].ads for number in range(100)]
        share = sum(ads[0].title in known for ads in drawn) / len(drawn)

        assert 0.4 < share < 0.8


@pytest.fixture
async def served_prompt(tmp_path: Path) -> AsyncIterator[Any]:
    """The prompt that the running service sends for `auction()`, candidates in its own order."""
    one = auction()
    served = [
        ServedAd.model_validate(
            {
                "ad_id": ad.ad_id,
                "title": ad.title,
                "category": ad.category,
                "description": ad.description,
                "landing_url": "https://shop.example/",
                "advertiser_id": "adv-1",
            }
        )
        for ad in one.ads
    ]
    bids = tuple(Bid(ad.ad_id, bid * 1_000_000) for ad, bid in zip(one.ads, one.bids, strict=True))
    ask = Ask(
        response_id="resp_" + "0" * 32,
        query=one.query.text,
        bids=bids,
        conversation=(),
        profile=one.user.profile,
        user_id=None,
        max_ads=3,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        max_tokens=20,
        seed=None,
        received_at=0.0,
        deadline_at=float("inf"),
        now=datetime(2026, 1, 1, tzinfo=UTC),
    )
    async with open_store(StoreSettings(), tmp_path, lambda line: None) as store:
        await Catalog(store, "test").import_many(served)
        engine = ScriptedEngine(["Hello."])
        async with aclosing(respond(ask, scripted_services(store, engine))) as parts:
            async for _ in parts:
                pass
        yield engine.generations[0].prompt


async def test_the_service_asks_in_the_tokens_that_were_trained_on(
    served_prompt: Any, tokenizer: Any
) -> None:
    text = "".join(piece.text for piece in served_prompt.messages[0].pieces)
    by_place = sorted(
        zip(ADS, (40, 90, 70), strict=True), key=lambda pair: text.index(pair[0].title)
    )
    trained = auction(ads=[ad for ad, _ in by_place], bids=[bid for _, bid in by_place])
    tree = (
        Packer(tokenizer, OPTIONS)
        .pack(
            [
                [
                    Example(trained, Woven("Yes."), None),
                    Example(replace(trained, seed=8), Woven("No."), None),
                ]
            ]
        )
        .tree
    )
    path = [tree.runs[i].tokens for i in (*tree.lineage(2), 2)]
    prompt = PromptTokenizer(tokenizer).encode(served_prompt)

    assert sum(path, ())[: len(prompt)] == tuple(prompt)


def test_without_candidates_the_bare_question_is_asked_and_no_ad_is_opened(
    tokenizer: Any,
) -> None:
    packer = Packer(tokenizer, OPTIONS)
    bare = teach(replace(auction(), ads=(), bids=()), ANSWER, OPTIONS, random.Random(1))
    pack = packer.pack([[bare], [taught()]])
    tree, index = pack.tree, 2
    path = [tree.runs[i].tokens for i in (*tree.lineage(index), index)]
    asked = bare.auction
    prompt = build_prompt(Layout.INLINE, (), asked.query.text, profile=asked.user.profile)
    said = PromptTokenizer(tokenizer).encode(prompt)

    assert bare.winner is None
    assert sum(path, ())[: len(said)] == tuple(said)
    kinds = [target.kind for target in tree.runs[index].targets]
    assert kinds.count(TokenKind.BOUNDARY) == 2
    assert TokenKind.OPENING not in kinds


def test_ads_of_an_invented_market_have_titles_and_ids_of_their_own() -> None:
    ads = load_invented_market().ads(random.Random(1))

    assert len({ad.ad_id for ad in ads}) == len(ads) == 2 * len({ad.category for ad in ads})
    for ad in ads:
        assert isinstance(ad, Ad)
        assert not read(f"Try {ad.marked.marker}, it is good.", [ad.marked], 1).faults


def test_further_questions_are_about_what_the_demo_catalogue_has() -> None:
    further = load_further_questions()
    texts = [text for _, text in further]

    assert {category for category, _ in further} == {None, *load_material().shopping}
    assert len(set(texts)) == len(texts)
    assert not [text for text in texts if neutralise_line(text) != text]


def test_no_question_to_learn_from_gives_a_held_out_wording_away() -> None:
    material, chance = load_material(), random.Random(1)
    slots = {**material.slots, **dict.fromkeys(("age", "home", "job"), ("?",))}
    held_out = {
        words
        for wordings in (*material.shopping.values(), *material.general.values())
        for wording in wordings.held_out
        for _ in range(20)
        for words in six_in_a_row(fill(wording, slots, chance))
    }
    pairs = load_further_questions() + load_invented_market().written(chance, per_wording=4)

    assert not [text for _, text in pairs if six_in_a_row(text) & held_out]


def six_in_a_row(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"[\w']+|\?", text.lower())
    return {tuple(words[at : at + 6]) for at in range(len(words) - 5)}
