"""The engine elsewhere, in front of vLLM's own server, and of faults that this one never shows."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from decimal import Decimal
from typing import Any

import httpx
import pytest

from models.contract.grammar import grammar
from models.contract.markers import MarkedAd, read
from models.contract.prompt import Candidate, Layout, Message, Piece, Prompt, Turn, build_prompt
from models.contract.reading import FaultKind
from models.engine.interface import (
    Chunk,
    Engine,
    EngineError,
    EngineOverloaded,
    EngineUnavailable,
    Generation,
    Load,
    PromptTooLong,
    Sampling,
)
from models.engine.remote import RemoteEngine, RemoteOptions
from models.engine.tokens import PromptTokenizer
from models.provision import ServableModel

API_KEY = "correct horse"
CONTEXT = 2048
# Only a character that no answer holds lets it end.
WITHOUT_END = 'root ::= [^@]* "\\ue000"'


def generation(
    question: str = "Tell me about tents.",
    grammar: str = WITHOUT_END,
    sampling: Sampling | None = None,
) -> Generation:
    prompt = Prompt(
        "test", (Message("user", (Piece(question[:4], True), Piece(question[4:], False))),)
    )
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    return Generation("request-1", prompt, sampling or Sampling(max_tokens=24), grammar, trace)


async def collected(engine: Engine, wanted: Generation) -> list[Chunk]:
    async with aclosing(engine.generate(wanted)) as chunks:
        return [chunk async for chunk in chunks]


@pytest.fixture(scope="module")
def base_url(vllm_server: Any) -> str:
    return str(vllm_server.url)


@pytest.fixture(scope="module")
async def engine(base_url: str) -> AsyncIterator[RemoteEngine]:
    options = RemoteOptions(base_url, api_key=API_KEY)
    async with asyncio.timeout(240):
        while True:
            try:
                engine = await RemoteEngine.start(options)
                break
            except EngineUnavailable:
                await asyncio.sleep(0.5)
    yield engine
    await engine.close()


class TestARealServer:
    async def running(self, base_url: str) -> float:
        """Return how many requests the server says it runs."""
        async with httpx.AsyncClient() as client:
            metrics = (await client.get(f"{base_url}/metrics")).text
        (line,) = (
            line for line in metrics.splitlines() if line.startswith("vllm:num_requests_running")
        )
        return float(line.rsplit(" ", 1)[1])

    async def test_tells_its_model_and_context(
        self, engine: RemoteEngine, servable_model: ServableModel
    ) -> None:
        assert (engine.model.name, engine.model.revision) == ("tiny", servable_model.name)
        assert engine.max_model_len == CONTEXT
        await engine.check()

    async def test_streams_in_order_and_accounts_for_it_at_the_end(
        self, engine: RemoteEngine
    ) -> None:
        chunks = await collected(engine, generation())

        last = chunks[-1]
        assert len(chunks) > 3
        assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
        assert last.finish_reason == "length"
        assert last.usage is not None
        assert last.usage.completion_tokens == 24 == sum(chunk.token_count for chunk in chunks)
        assert 0 < last.usage.prompt_tokens <= engine.count_tokens(generation().prompt)
        assert last.first_token_at is not None

    async def test_the_grammar_binds_the_answer(self, engine: RemoteEngine) -> None:
        chunks = await collected(engine, generation(grammar='root ::= "yes@[Ad-1]" | "no@"'))

        assert "".join(chunk.text for chunk in chunks) in ("yes@[Ad-1]", "no@")
        assert chunks[-1].finish_reason == "stop"

    async def test_no_marker_is_faulty_there_either(
        self, engine: RemoteEngine, at_sign_bias: dict[int, float]
    ) -> None:
        ads = [MarkedAd(f"Ad-{number}", f"Tent {number}") for number in range(1, 31)]
        hostile = Sampling(1.3, 1.0, 0, max_tokens=96, logit_bias=at_sign_bias)
        answers = await asyncio.gather(
            *(
                collected(engine, generation(grammar=grammar(ads, 3), sampling=hostile))
                for _ in range(8)
            )
        )

        readings = [read("".join(chunk.text for chunk in one), ads, 3) for one in answers]
        faults = {fault.kind for reading in readings for fault in reading.faults}
        assert faults <= {FaultKind.TRUNCATED}  # by the limit of tokens
        assert max(len(reading.insertions) for reading in readings) > 1

    async def test_sampling_arrives(self, engine: RemoteEngine) -> None:
        sampling = Sampling(max_tokens=3, logit_bias={28: 100.0}, temperature=0)
        chunks = await collected(engine, generation(sampling=sampling))

        assert len(set("".join(chunk.text for chunk in chunks))) == 1

    async def test_a_recurring_prompt_is_cached(self, engine: RemoteEngine) -> None:
        wanted = generation("A tent, a stove and a lamp. " * 60)
        await collected(engine, wanted)
        usage = (await collected(engine, wanted))[-1].usage

        assert usage is not None
        assert usage.cached_tokens > 128

    @pytest.mark.parametrize("words", [CONTEXT, 50 * CONTEXT])
    async def test_a_prompt_that_is_too_long_is_refused(
        self, engine: RemoteEngine, words: int
    ) -> None:
        with pytest.raises(PromptTooLong):
            await collected(engine, generation("word " * words))

    async def test_a_long_answer_is_clipped_to_the_context(self, engine: RemoteEngine) -> None:
        wanted = generation("word " * (CONTEXT - 100), sampling=Sampling(max_tokens=1000))

        assert (await collected(engine, wanted))[-1].finish_reason in ("length", "stop")

    async def test_a_broken_grammar_is_an_engine_error(self, engine: RemoteEngine) -> None:
        with pytest.raises(EngineError, match="grammar"):
            await collected(engine, generation(grammar='root ::= "never closed'))

    async def test_closing_the_generator_ends_the_servers_work(
        self, engine: RemoteEngine, base_url: str
    ) -> None:
        endless = generation(sampling=Sampling(max_tokens=1500))
        chunks = engine.generate(endless)
        await anext(chunks)
        assert engine.load() == Load(1, 0)
        assert await self.running(base_url) == 1

        await chunks.aclose()

        assert engine.load() == Load(0, 0)
        async with asyncio.timeout(1):
            while await self.running(base_url):
                # The server's scheduler counts at its steps; a request makes it take one.
                await collected(engine, generation(sampling=Sampling(max_tokens=1)))

    async def test_a_wrong_key_is_refused(self, base_url: str) -> None:
        with pytest.raises(EngineError, match="401"):
            await RemoteEngine.start(RemoteOptions(base_url, api_key="wrong"))

    async def test_an_unknown_model_is_refused(self, base_url: str) -> None:
        with pytest.raises(EngineError, match="does not serve huge"):
            await RemoteEngine.start(RemoteOptions(base_url, model="huge", api_key=API_KEY))


Handler = Callable[[httpx.Request], httpx.Response]


def event(**data: object) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def delta(content: str, finish_reason: str | None = None) -> bytes:
    return event(choices=[{"delta": {"content": content}, "finish_reason": finish_reason}])


async def behind(handler: Handler) -> RemoteEngine:
    """Return an engine whose server is `handler`."""
    options = RemoteOptions("http://model.invalid/v1", model="m", max_model_len=100)
    return await RemoteEngine.start(options, transport=httpx.MockTransport(handler))


class TestFaults:
    @pytest.mark.parametrize(
        ("status", "body", "expected"),
        [
            (429, b"slow down", EngineOverloaded),
            (503, b'{"error": {"message": "queue full"}}', EngineOverloaded),
            (500, b"", EngineUnavailable),
            (502, b"<html>bad gateway</html>", EngineUnavailable),
            (404, b'{"error": {"message": "no such model"}}', EngineError),
            (400, b'{"error": {"message": "the maximum context length is 9"}}', PromptTooLong),
            (400, b"[1, 2]", EngineError),
        ],
    )
    async def test_a_refusal_says_what_to_do(
        self, status: int, body: bytes, expected: type[EngineError]
    ) -> None:
        engine = await behind(lambda request: httpx.Response(status, content=body))

        with pytest.raises(EngineError) as raised:
            await collected(engine, generation())

        assert type(raised.value) is expected
        assert engine.load() == Load(0, 0)

    async def test_a_refusals_message_is_bounded(self) -> None:
        engine = await behind(lambda request: httpx.Response(418, content=b"x" * 5_000_000))

        with pytest.raises(EngineError) as raised:
            await collected(engine, generation())

        assert len(str(raised.value)) < 400

    @pytest.mark.parametrize(
        "failure", [httpx.ConnectError, httpx.ReadTimeout, httpx.RemoteProtocolError]
    )
    async def test_no_connection_is_unavailable(self, failure: type[httpx.HTTPError]) -> None:
        def fail(request: httpx.Request) -> httpx.Response:
            raise failure("no")

        engine = await behind(fail)

        with pytest.raises(EngineUnavailable):
            await collected(engine, generation())
        with pytest.raises(EngineUnavailable):
            await engine.check()

    async def test_a_broken_stream_gives_what_came_and_then_fails(self) -> None:
        engine = await behind(lambda request: httpx.Response(200, content=delta("Half an")))
        chunks = engine.generate(generation())

        assert (await anext(chunks)).text == "Half an"
        with pytest.raises(EngineUnavailable, match="broke off"):
            await anext(chunks)

    @pytest.mark.parametrize(
        ("stream", "expected"),
        [
            (event(error={"message": "boom", "code": 500}), EngineUnavailable),
            (event(error={"message": "full", "code": 503}), EngineOverloaded),
            (b"data: {not json\n\n", EngineError),
            (b"data: " + b"x" * (2 << 20), EngineError),
            (b'data: {"choices": [7]}\n\n', EngineError),
        ],
    )
    async def test_an_error_in_the_stream_is_one(
        self, stream: bytes, expected: type[EngineError]
    ) -> None:
        engine = await behind(lambda request: httpx.Response(200, content=stream))

        with pytest.raises(EngineError) as raised:
            await collected(engine, generation())

        assert type(raised.value) is expected

    @pytest.mark.parametrize("size", [1, 2, 7, 1000])
    async def test_any_cut_of_the_stream_reads_alike(self, size: int) -> None:
        whole = (
            b": comment\r\n"
            + delta("")
            + delta("Ein 帐")
            + delta("篷", "stop")
            + event(choices=[], usage={"prompt_tokens": 9, "completion_tokens": 3})
            + b"data: [DONE]\n\n"
        )

        async def parts() -> AsyncIterator[bytes]:
            for start in range(0, len(whole), size):
                yield whole[start : start + size]

        engine = await behind(lambda request: httpx.Response(200, content=parts()))
        chunks = await collected(engine, generation())

        assert [chunk.text for chunk in chunks] == ["Ein 帐", "篷"]
        assert chunks[-1].finish_reason == "stop"
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == sum(chunk.token_count for chunk in chunks) == 3

    async def test_health_falls_back_to_the_list_of_models(self) -> None:
        paths: list[str] = []

        def handle(request: httpx.Request) -> httpx.Response:
            paths.append(request.url.path)
            return httpx.Response(404 if request.url.path == "/health" else 200)

        await (await behind(handle)).check()

        assert paths == ["/health", "/v1/models"]

    async def test_the_request_carries_trace_id_and_key(self) -> None:
        seen: list[httpx.Request] = []

        def handle(request: httpx.Request) -> httpx.Response:
            seen.append(request)
            return httpx.Response(200, content=delta("ok", "stop"))

        options = RemoteOptions(
            "http://model.invalid", model="m", max_model_len=100, api_key=API_KEY
        )
        engine = await RemoteEngine.start(options, transport=httpx.MockTransport(handle))
        await collected(engine, generation(sampling=Sampling(seed=5)))

        (request,) = seen
        body = json.loads(request.content)
        assert request.url.path == "/v1/chat/completions"
        assert request.headers["traceparent"] == generation().trace_headers["traceparent"]
        assert request.headers["X-Request-Id"] == "request-1"
        assert request.headers["Authorization"] == f"Bearer {API_KEY}"
        assert body["messages"] == [{"role": "user", "content": "Tell me about tents."}]
        assert body["structured_outputs"] == {"grammar": WITHOUT_END}
        assert (body["seed"], body["top_k"], body["max_tokens"]) == (5, 20, 512)


class TestCountTokens:
    @pytest.fixture
    def exact(self, servable_model: ServableModel) -> PromptTokenizer:
        from transformers import AutoTokenizer

        return PromptTokenizer(AutoTokenizer.from_pretrained(servable_model.path))

    @pytest.mark.parametrize(
        "text",
        [
            "The tent is light, dry and quick to pitch; its price is fair.",
            '{"id": "Ad-3356", "title": "Trail Tent 2", "bid": 12.5}',
            "def f(x):\n    return x  # 1,234.50\n\tpass",
            "这顶帐篷很轻，也很容易搭。",
            "Палатка лёгкая и сухая. 👩‍👩‍👧",
        ],
    )
    async def test_is_above_the_models_own_count(self, exact: PromptTokenizer, text: str) -> None:
        engine = await behind(lambda request: httpx.Response(200))
        prompt = generation(text * 20).prompt

        assert len(exact.encode(prompt)) <= engine.count_tokens(prompt)

    async def test_ends_at_the_message_that_exceeds_what_is_wanted(self) -> None:
        engine = await behind(lambda request: httpx.Response(200))
        turn = Turn("user", "word " * 100)
        prompt = build_prompt(Layout.INLINE, (), "Hi", [turn] * 40, None)

        assert 1000 < engine.count_tokens(prompt, at_most=1000) < 1500
        assert engine.count_tokens(prompt) > 4000

    @pytest.mark.parametrize("layout", Layout)
    async def test_leaves_room_for_a_full_list_of_candidates(
        self, exact: PromptTokenizer, layout: Layout
    ) -> None:
        candidates = [
            Candidate(
                f"Ad-{3300 + n}",
                f"Northfield Trail Tent {n}",
                "Outdoor and camping",
                "A light tent for two that stands in three minutes and keeps the rain out.",
                Decimal(n) / 4,
            )
            for n in range(1, 101)
        ]
        prompt = build_prompt(layout, candidates, "Which tent is light?", (), None)
        engine = await behind(lambda request: httpx.Response(200))

        assert 1 <= engine.count_tokens(prompt) / len(exact.encode(prompt)) < 1.5
