"""Reads what a server with vLLM's OpenAI-compatible API streams, and what its errors mean.

Knows the bytes of a response, not how they travel.
"""

import json
import time
from collections.abc import AsyncGenerator, AsyncIterable
from typing import Any

from models.engine.interface import (
    Chunk,
    EngineError,
    EngineOverloaded,
    EngineUnavailable,
    FinishReason,
    PromptTooLong,
    Usage,
)

LONGEST_LINE_BYTES = 1 << 20
_LONGEST_MESSAGE = 300
_FINISH_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length", "abort": "abort"}


async def events(parts: AsyncIterable[bytes]) -> AsyncGenerator[dict[str, Any]]:
    """Yield the server-sent events' data, up to `[DONE]` or the end of the stream."""
    rest = b""
    async for received in parts:
        *lines, rest = (rest + received).split(b"\n")
        if len(rest) > LONGEST_LINE_BYTES:
            raise EngineError("The model server sent a line without an end")
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            yield json.loads(data)


class Answer:
    """Puts the server's events together: the reason to end and the usage come apart there."""

    def __init__(self) -> None:
        self._finish_reason: FinishReason | None = None
        self._usage = Usage(0, 0, 0)
        self._text = ""
        self._half = ""
        self._counted = 0
        self._first_token_at: float | None = None

    def add(self, event: dict[str, Any]) -> Chunk | None:
        """Return what `event` adds to the answer, or None; the end is kept for `last`."""
        if (error := event.get("error")) is not None:
            raise failure(int(error.get("code") or 500), str(error.get("message")))
        if usage := event.get("usage"):
            self._usage = _usage(usage)
        text = ""
        for choice in event.get("choices") or ():
            text = self._characters(choice.get("delta", {}).get("content") or "")
            if reason := choice.get("finish_reason"):
                self._finish_reason = _FINISH_REASONS.get(reason, "stop")
        if text and self._first_token_at is None:
            self._first_token_at = time.monotonic()
        if self._finish_reason is not None:
            self._text += text
            return None
        return Chunk(text, self._newly_counted()) if text else None

    def last(self) -> Chunk:
        if self._finish_reason is None:
            raise EngineUnavailable("The model server broke off its answer")
        return Chunk(
            self._text,
            self._newly_counted(),
            self._finish_reason,
            self._usage,
            first_token_at=self._first_token_at,
        )

    def _characters(self, text: str) -> str:
        """`text` as whole characters. JSON may bring half of one (a UTF-16 surrogate), as a server
        in between does that cuts where it likes; its other half comes next, or never."""
        text, self._half = self._half + text, ""
        try:
            text.encode()
        except UnicodeEncodeError:
            if "\ud800" <= text[-1] <= "\udbff":
                text, self._half = text[:-1], text[-1]
            return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return text

    def _newly_counted(self) -> int:
        new = self._usage.completion_tokens - self._counted
        self._counted += new
        return new


def failure(status: int, message: str) -> EngineError:
    """Return what an HTTP status, and the server's words with it, mean to a caller."""
    message = message[:_LONGEST_MESSAGE]
    if status in (429, 503):
        return EngineOverloaded(f"The model server is full: {message}")
    if status >= 500:
        return EngineUnavailable(f"The model server failed ({status}): {message}")
    if status == 400 and "context length" in message:
        return PromptTooLong(message)
    return EngineError(f"The model server refused ({status}): {message}")


def _usage(usage: dict[str, Any]) -> Usage:
    details = usage.get("prompt_tokens_details") or {}
    return Usage(
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        cached_tokens=int(details.get("cached_tokens") or 0),
        completion_tokens=int(usage.get("completion_tokens") or 0),
    )
