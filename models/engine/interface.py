"""What the service needs of a language model: one generation, streamed, that can be aborted.

Two engines implement it: `vllm.py` (vLLM in this process) and `remote.py` (a vLLM server
elsewhere). Neither lets a vLLM or HTTP type or exception out of its file; what can go wrong is
the tree below.

    EngineError
    ├── EngineDead         the engine is gone for good: let a supervisor restart the process
    ├── EngineOverloaded   its queue is full: try again later
    ├── EngineUnavailable  a remote engine does not answer (now)
    └── PromptTooLong      the prompt leaves no room to answer in the model's context
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from models.contract.prompt import Prompt


class EngineError(Exception):
    """Base of everything an engine raises."""


class EngineDead(EngineError):
    """The engine has died; nothing but a restart of the process helps."""


class EngineOverloaded(EngineError):
    """The engine's own queue is full."""


class EngineUnavailable(EngineError):
    """The engine does not answer now; it may later."""


class PromptRefused(EngineError):
    """The model's chat template takes no such turns; the message says which."""


class PromptTooLong(EngineError):
    """The prompt and the wished-for answer exceed the model's context."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to draw tokens. Defaults are the source's (MOSAIC and LLM-Auction, section 5.1).

    temperature: 0 (greedy) to 2. top_p: over 0 to 1. top_k: 0 (off) or more.
    max_tokens: at least 1. seed: 0 to 2^63 - 1, or None for a fresh one.
    """

    temperature: float = 0.7
    top_p: float = 0.8
    top_k: int = 20
    max_tokens: int = 512
    seed: int | None = None
    logit_bias: Mapping[int, float] | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """One request to an engine.

    The answer must match `grammar`, EBNF in xgrammar's dialect; None: it may be anything.
    insertions: the markers that the grammar lets in. None is begun where `max_tokens` would cut it
    off, as far as the engine can see to that: in process, on a CPU, where half of the answer is
    longer than any of them.
    deadline_at: seconds on `time.monotonic()`'s clock; the answer ends there with what was written.
    is_streamed: False where nothing is shown before the end, so that the answer may come in one
    chunk, which costs this process less.
    """

    request_id: str
    prompt: Prompt
    sampling: Sampling
    grammar: str | None
    trace_headers: Mapping[str, str] = field(default_factory=dict)
    deadline_at: float | None = None
    is_streamed: bool = True
    insertions: Sequence[str] = ()


FinishReason = Literal["stop", "length", "deadline", "abort"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one generation; `cached_tokens` of the prompt came from the prefix cache."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of the answer, in order. The last one has `finish_reason` set.

    scheduled_at, first_token_at: seconds on `time.monotonic()`'s clock, set on the last chunk
    where the engine knows them (a remote engine does not know `scheduled_at`).
    """

    text: str
    token_count: int
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    scheduled_at: float | None = None
    first_token_at: float | None = None


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which weights answer. `name` as configured; `revision`: a content hash, or as served."""

    name: str
    revision: str


@dataclass(frozen=True, slots=True)
class Load:
    """Requests inside the engine now."""

    running: int
    waiting: int


class Engine(Protocol):
    """A language model that answers one prompt with one generation."""

    @property
    def model(self) -> ModelIdentity: ...

    @property
    def max_model_len(self) -> int:
        """Tokens of context, prompt and answer together."""
        ...

    def count_tokens(self, prompt: Prompt, at_most: int | None = None) -> int:
        """Tokens of `prompt`; exact in process, an upper estimate for a remote engine.

        Of a prompt with more than `at_most`, the count ends at the message that exceeds it.
        """
        ...

    def generate(self, generation: Generation) -> AsyncGenerator[Chunk]:
        """Stream the answer, until its deadline at the latest; the last chunk then says so.

        Closing the generator aborts the request in the engine.
        Raises PromptTooLong, EngineOverloaded, EngineUnavailable, EngineDead.
        """
        ...

    def load(self) -> Load: ...

    async def check(self) -> None:
        """Return when the engine can serve; raise EngineDead or EngineUnavailable otherwise."""
        ...

    async def close(self) -> None: ...
