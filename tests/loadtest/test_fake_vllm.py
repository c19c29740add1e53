"""The stand-in is understood by the real client of vLLM servers, and its markers by the reader."""

from collections.abc import AsyncGenerator
from decimal import Decimal

import httpx
import pytest

from loadtest.fake_vllm import create_fake
from models.contract.grammar import grammar
from models.contract.markers import MarkedAd, MarkerReader
from models.contract.prompt import Candidate, Layout, Prompt, build_prompt
from models.engine.interface import Generation, Sampling
from models.engine.remote import RemoteEngine, RemoteOptions

ADS = [MarkedAd("Ad-7", 'Boots "Größe 42"'), MarkedAd("Ad-8", "Socks"), MarkedAd("Ad-9", "Hats")]
CANDIDATES = [Candidate(ad.ad_id, ad.title, "clothes", "Warm.", Decimal("1.5")) for ad in ADS]


@pytest.fixture
async def engine() -> AsyncGenerator[RemoteEngine]:
    transport = httpx.ASGITransport(create_fake(ads=2))
    started = await RemoteEngine.start(RemoteOptions("http://fake"), transport=transport)
    yield started
    await started.close()


async def answer(engine: RemoteEngine, prompt: Prompt) -> str:
    sampling = Sampling(temperature=0.7, top_p=0.8, top_k=20, max_tokens=64, seed=None)
    generation = Generation("r-1", prompt, sampling, grammar(ADS, 3))
    chunks = [chunk async for chunk in engine.generate(generation)]
    assert chunks[-1].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == sum(chunk.token_count for chunk in chunks)
    return "".join(chunk.text for chunk in chunks)


@pytest.mark.parametrize("layout", Layout)
async def test_the_first_listed_ads_stand_in_the_answer(
    engine: RemoteEngine, layout: Layout
) -> None:
    text = await answer(engine, build_prompt(layout, CANDIDATES, "What should I wear?"))
    reader = MarkerReader(ADS, 3)
    read = [*reader.feed(text), *reader.close()]
    assert [part.ad_id for part in read if part.ad_id] == ["Ad-7", "Ad-8"]
    assert not reader.faults


async def test_without_ads_the_answer_has_none(engine: RemoteEngine) -> None:
    assert "@" not in await answer(engine, build_prompt(Layout.INLINE, [], "What now?"))


async def test_it_is_healthy(engine: RemoteEngine) -> None:
    await engine.check()
