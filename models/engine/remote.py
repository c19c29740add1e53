"""An engine elsewhere: any server with vLLM's OpenAI-compatible API, reached over HTTP.

The server applies the chat template and enforces the grammar (vLLM's `structured_outputs`); a
server that ignores the grammar still works, since what it writes is read back with no trust.
Only this file knows httpx on the models' side.
"""

import json
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any, Self

import httpx

from models.contract.prompt import Prompt
from models.engine.completion_stream import LONGEST_LINE_BYTES, Answer, events, failure
from models.engine.deadline import until_deadline
from models.engine.interface import (
    Chunk,
    EngineError,
    EngineUnavailable,
    Generation,
    Load,
    ModelIdentity,
)

# Servers on uvicorn close an idle connection after 5 s; using it just then would fail.
_KEEP_IDLE_S = 3.0
_RECURRING_PIECES = 20_000
_COSTLY = re.compile(rb"[A-Za-z]{1,5}| {2,}|[^A-Za-z ]")
_TEMPLATE_TOKENS = 32
_TEMPLATE_TOKENS_PER_MESSAGE = 16


@dataclass(frozen=True, slots=True)
class RemoteOptions:
    """Where the server is and how long to wait for it.

    base_url: with or without the trailing `/v1`. model, max_model_len: None asks the server.
    read_timeout_s: the longest silence, which covers the time to the first token.
    """

    base_url: str
    model: str | None = None
    max_model_len: int | None = None
    api_key: str | None = None
    connect_timeout_s: float = 2.0
    read_timeout_s: float = 60.0
    check_timeout_s: float = 2.0
    max_connections: int = 512


class RemoteEngine:
    """A vLLM server as an `Engine`. Make it with `start`."""

    def __init__(
        self, client: httpx.AsyncClient, options: RemoteOptions, card: dict[str, Any]
    ) -> None:
        self._client = client
        self._options = options
        self._served_name = str(card["id"])
        # The folder that the server loaded from tells weights apart; its path is not our business.
        root = PurePosixPath(str(card.get("root") or card["id"])).name
        self._model = ModelIdentity(self._served_name, root)
        self._max_model_len = int(options.max_model_len or card["max_model_len"])
        self._in_flight = 0
        self._recurring = lru_cache(_RECURRING_PIECES)(estimated_tokens)

    @classmethod
    async def start(
        cls, options: RemoteOptions, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> Self:
        """Ask the server for its model and return; `transport` replaces the network in tests.

        Raises EngineUnavailable when the server does not answer, EngineError when it does not
        serve the model or does not say how long its context is.
        """
        client = _client(options, transport)
        try:
            return cls(client, options, await _card(client, options))
        except BaseException:
            await client.aclose()
            raise

    @property
    def model(self) -> ModelIdentity:
        return self._model

    @property
    def max_model_len(self) -> int:
        return self._max_model_len

    def count_tokens(self, prompt: Prompt, at_most: int | None = None) -> int:
        """Estimate from above; see `estimated_tokens`."""
        total = _TEMPLATE_TOKENS + _TEMPLATE_TOKENS_PER_MESSAGE * len(prompt.messages)
        for message in prompt.messages:
            total += sum(
                self._recurring(piece.text) if piece.recurs else estimated_tokens(piece.text)
                for piece in message.pieces
            )
            if at_most is not None and total > at_most:
                break
        return total

    def generate(self, generation: Generation) -> AsyncGenerator[Chunk]:
        return until_deadline(self._stream(generation), generation.deadline_at)

    async def _stream(self, generation: Generation) -> AsyncGenerator[Chunk]:
        self._in_flight += 1
        try:
            with _translation():
                # Leaving the block early closes the connection, and the server then aborts.
                async with self._client.stream(
                    "POST",
                    "v1/chat/completions",
                    json=_body(generation, self._served_name),
                    headers={"X-Request-Id": generation.request_id, **generation.trace_headers},
                ) as response:
                    if response.status_code != httpx.codes.OK:
                        raise await _refusal(response)
                    answer = Answer()
                    async with aclosing(events(response.aiter_bytes())) as received:
                        async for event in received:
                            if (chunk := answer.add(event)) is not None:
                                yield chunk
                    yield answer.last()
        finally:
            self._in_flight -= 1

    def load(self) -> Load:
        """Count this process's own requests; the server may have others."""
        return Load(running=self._in_flight, waiting=0)

    async def check(self) -> None:
        timeout = self._options.check_timeout_s
        with _translation():
            response = await self._client.get("health", timeout=timeout)
            if response.status_code == httpx.codes.NOT_FOUND:
                response = await self._client.get("v1/models", timeout=timeout)
        if response.status_code != httpx.codes.OK:
            raise EngineUnavailable(f"The model server is not healthy: {response.status_code}")

    async def close(self) -> None:
        await self._client.aclose()


def estimated_tokens(text: str) -> int:
    """Return more than a byte-level tokenizer's tokens of `text`, whatever the vocabulary.

    One for five letters of a word, one for any other character or byte of one. That is about 1.3
    times the truth for English and JSON, and more for other scripts; only text made to be costly
    (random letters) has more tokens than this.
    """
    return len(_COSTLY.findall(text.encode()))


def _client(
    options: RemoteOptions, transport: httpx.AsyncBaseTransport | None
) -> httpx.AsyncClient:
    key = options.api_key
    return httpx.AsyncClient(
        base_url=options.base_url.rstrip("/").removesuffix("/v1") + "/",
        headers={"Authorization": f"Bearer {key}"} if key else None,
        timeout=httpx.Timeout(options.read_timeout_s, connect=options.connect_timeout_s),
        limits=httpx.Limits(max_connections=options.max_connections, keepalive_expiry=_KEEP_IDLE_S),
        transport=transport,
    )


async def _card(client: httpx.AsyncClient, options: RemoteOptions) -> dict[str, Any]:
    """Return the server's entry for the model, or one made of `options` where they say it all."""
    if options.model and options.max_model_len:
        return {"id": options.model}
    with _translation():
        response = await client.get("v1/models", timeout=options.check_timeout_s)
        if response.status_code != httpx.codes.OK:
            raise failure(response.status_code, "it does not list its models")
        cards: list[dict[str, Any]] = response.json()["data"]
    chosen = [card for card in cards if options.model in (None, card["id"])]
    if not chosen:
        raise EngineError(f"The model server does not serve {options.model}")
    if not options.max_model_len and not chosen[0].get("max_model_len"):
        raise EngineError("The model server does not tell its context: set max_model_len")
    return chosen[0]


def _body(generation: Generation, model: str) -> dict[str, Any]:
    sampling = generation.sampling
    body: dict[str, Any] = {
        "model": model,
        "messages": [
            {"role": message.role, "content": "".join(piece.text for piece in message.pieces)}
            for message in generation.prompt.messages
        ],
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "max_tokens": sampling.max_tokens,
    }
    if generation.grammar:
        body["structured_outputs"] = {"grammar": generation.grammar}
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.logit_bias:
        body["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias.items()}
    return body


async def _refusal(response: httpx.Response) -> EngineError:
    """Return what the server's answer other than 200 means; reads no more of it than needed."""
    received = b""
    async for part in response.aiter_bytes():
        received += part
        if len(received) > LONGEST_LINE_BYTES:
            break
    try:
        message = str(json.loads(received)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = received.decode(errors="replace")
    return failure(response.status_code, message)


@contextmanager
def _translation() -> Iterator[None]:
    """Turn httpx's exceptions, and those of reading what is no JSON, into the engine's."""
    try:
        yield
    except httpx.HTTPError as error:
        raise EngineUnavailable(f"{type(error).__name__}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineError(f"The model server's answer is not understood: {error}") from error
