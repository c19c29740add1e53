"""The engine that costs nothing: what it says must be what the service can use."""

from dataclasses import replace

import pytest

from loadtest.bench.prompts import bids_of, own_ads, prompt_of
from loadtest.stand_in import StandInEngine
from models.contract.grammar import grammar
from models.contract.markers import MarkedAd, read
from models.engine.interface import Generation, Load, Sampling

ADS = own_ads(5)
MARKED = [MarkedAd(ad["ad_id"], ad["title"]) for ad in ADS]
STREAMED = Generation(
    "r-1", prompt_of(ADS, bids_of(ADS), "Which boots?"), Sampling(max_tokens=12), grammar(MARKED, 3)
)


@pytest.mark.parametrize("is_streamed", [True, False])
async def test_writes_as_many_tokens_as_asked_for_with_one_ad(is_streamed: bool) -> None:
    engine = StandInEngine()
    asked = replace(STREAMED, is_streamed=is_streamed)
    chunks = [chunk async for chunk in engine.generate(asked)]

    assert len(chunks) == (12 if is_streamed else 1)
    assert sum(chunk.token_count for chunk in chunks) == 12
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 12
    reading = read("".join(chunk.text for chunk in chunks), MARKED, 3)
    assert [s.ad_id for s in reading.segments if s.ad_id] == ["Bench-0"]
    assert reading.faults == ()
    assert engine.load() == Load(0, 0)
