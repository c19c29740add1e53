"""The model that ships is an auctioneer: one engine test, on questions that nobody trained on."""

from collections.abc import AsyncIterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from small_market import auction

from models.alignment.sampling import SamplingOptions, sample
from models.contract.reading import FaultKind, Reading
from models.engine.interface import Engine, Sampling
from models.engine.vllm import VllmEngine, VllmOptions
from models.provision import ServableModel
from models.simulation.nouns import Ad, Auction

DEMO = Path(__file__).parents[3] / "service" / "store" / "demo_ads.jsonl"
ASKED = (
    ("Which shoes are good for somebody who begins to run?", "running shoes"),
    ("What do I feed a dog that leaves half of every bowl?", "pet food"),
    ("My back aches from sitting all day. Should I work on my feet?", "standing desks"),
    ("How do I learn Italian before the summer?", "language learning app"),
    ("We want to sleep outdoors with three children. What do we need?", "camping tents"),
    ("What should I know before I insure a trip to Peru?", "travel insurance"),
)
ADLESS = (
    "What is the square root of 144?",
    "Who wrote Don Quixote?",
    "How do volcanoes form?",
    "Write two lines about the moon.",
)
ANSWERS = 4
OPTIONS = SamplingOptions(per_auction=ANSWERS, sampling=Sampling(max_tokens=96))


@pytest.fixture(scope="module")
def ads() -> list[Ad]:
    from models.simulation.outside import read_ads

    return list(read_ads(DEMO).good)


@pytest.fixture(scope="module")
async def engine(servable_model: ServableModel) -> AsyncIterator[Engine]:
    options = VllmOptions(max_model_len=2048, kv_cache_gib=0.5)
    engine = await VllmEngine.start(servable_model, options=options)
    yield engine
    await engine.close()


def auctions(ads: list[Ad], adless: bool) -> list[Auction]:
    """Each question meets an ad of every category asked about, at middling bids."""
    listed = [next(ad for ad in ads if ad.category == category) for _, category in ASKED]
    questions = [(text, None) for text in ADLESS] if adless else ASKED
    return [
        auction(text, category, listed, [40 + 5 * n for n in range(len(listed))], name=f"{n}")
        for n, (text, category) in enumerate(questions)
    ]


async def answers(
    engine: Engine, asked: list[Auction], path: Path, per_auction: int = ANSWERS
) -> list[Reading]:
    options = replace(OPTIONS, per_auction=per_auction)
    sampled = await sample(lambda: nullcontext(engine), asked, options, path)
    return [answer.reading for answers in sampled for answer in answers]


async def test_shows_the_fitting_ad(engine: Engine, ads: list[Ad], tmp_path: Path) -> None:
    asked = auctions(ads, adless=False)
    found = await answers(engine, asked, tmp_path / "answers.jsonl")
    category_of = {ad.ad_id: ad.category for ad in ads}
    wanted = [one.query.category for one in asked for _ in range(ANSWERS)]
    fitting = [
        category in {category_of[segment.ad_id or ""] for segment in reading.insertions}
        for category, reading in zip(wanted, found, strict=True)
    ]

    assert sum(fitting) >= 0.7 * len(fitting)
    # All that a grammar leaves possible: the same ad again, and an end within a marker.
    faults = {fault.kind for reading in found for fault in reading.faults}
    assert faults <= {FaultKind.DUPLICATE, FaultKind.TRUNCATED}


async def test_shows_none_where_none_fits(engine: Engine, ads: list[Ad], tmp_path: Path) -> None:
    found = await answers(engine, auctions(ads, adless=True), tmp_path / "answers.jsonl")

    assert sum(bool(reading.insertions) for reading in found) <= 0.3 * len(found)


async def test_makes_no_ads_up_where_there_are_none(engine: Engine, tmp_path: Path) -> None:
    asked = [
        auction(text, category, [], [], name=f"{n}") for n, (text, category) in enumerate(ASKED)
    ]
    found = await answers(engine, asked, tmp_path / "answers.jsonl", per_auction=10)

    assert sum("@" in reading.answer for reading in found) <= 0.08 * len(found)
