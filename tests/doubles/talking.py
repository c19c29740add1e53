"""An engine that says one thing after another, each as a whole answer, and remembers the asking."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

from models.contract.prompt import Prompt
from models.engine.interface import Chunk, EngineError, Generation, Load, ModelIdentity, Usage

Answer = str | EngineError


class TalkingEngine:
    """Says `answers` in turn, then the last one for ever; or what `answers` makes of the asking."""

    model = ModelIdentity("talking", "1")
    max_model_len = 4096

    def __init__(self, answers: Sequence[Answer] | Callable[[Generation], Answer]) -> None:
        self._answers = answers
        self.generations: list[Generation] = []
        self.most_at_once = 0
        self._running = 0

    def count_tokens(self, prompt: Prompt, at_most: int | None = None) -> int:
        return 1

    async def generate(self, generation: Generation) -> AsyncGenerator[Chunk]:
        self.generations.append(generation)
        self._running += 1
        self.most_at_once = max(self.most_at_once, self._running)
        try:
            await asyncio.sleep(0)  # lets the others begin
            answer = self._answer(generation)
            if isinstance(answer, EngineError):
                raise answer
            middle = len(answer) // 2
            yield Chunk(answer[:middle], 1)
            yield Chunk(answer[middle:], 1, "stop", Usage(1, 0, 2))
        finally:
            self._running -= 1

    def _answer(self, generation: Generation) -> Answer:
        if callable(self._answers):
            return self._answers(generation)
        return self._answers[min(len(self.generations), len(self._answers)) - 1]

    def load(self) -> Load:
        return Load(self._running, 0)

    async def check(self) -> None: ...

    async def close(self) -> None: ...
