"""An engine that writes what a function of the prompt says, and remembers what it was asked."""

from collections.abc import AsyncGenerator, Callable

from models.contract.prompt import Prompt
from models.engine.interface import Chunk, Generation, Load, ModelIdentity, Usage


class Typist:
    """`says`: from a generation to the text to write. Tokens are words."""

    max_model_len = 8192

    def __init__(self, says: Callable[[Generation], str], revision: str = "1") -> None:
        self.says = says
        self.model = ModelIdentity("typist", revision)
        self.asked: list[Generation] = []

    def count_tokens(self, prompt: Prompt, at_most: int | None = None) -> int:
        return len(whole(prompt).split())

    async def generate(self, generation: Generation) -> AsyncGenerator[Chunk]:
        self.asked.append(generation)
        text = self.says(generation)
        tokens = len(text.split())
        usage = Usage(self.count_tokens(generation.prompt), 0, tokens)
        yield Chunk(text, tokens, "stop", usage)

    def load(self) -> Load:
        return Load(0, 0)

    async def check(self) -> None: ...

    async def close(self) -> None: ...


def whole(prompt: Prompt) -> str:
    """All that the prompt says."""
    return "\n".join("".join(p.text for p in message.pieces) for message in prompt.messages)
