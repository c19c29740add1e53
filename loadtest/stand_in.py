"""The service with an engine inside that costs nothing: the rest is what is measured.

    export LLM_AUCTION_ENGINE__KIND=remote LLM_AUCTION_ENGINE__URL=http://unused
    python -m loadtest.stand_in

The one module here that imports the service: an engine inside the process can only be put in its
place from within. What it writes is as long as a request's `max_tokens` asks for.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator

import service.app
import service.server
from loadtest.fake_vllm import listed_ads
from models.contract.prompt import Prompt
from models.engine.interface import Chunk, Generation, Load, ModelIdentity, Usage
from service.settings import Settings, load_settings

_WORDS = (" here", " is", " one", " more", " word", ",")


class StandInEngine:
    """Answers at full speed with one ad, the first that its prompt lists."""

    model = ModelIdentity("stand-in", "1")
    max_model_len = 1 << 17

    def __init__(self) -> None:
        self.running = 0

    def count_tokens(self, prompt: Prompt, at_most: int | None = None) -> int:
        return sum(len(piece.text) for m in prompt.messages for piece in m.pieces) // 4

    async def generate(self, generation: Generation) -> AsyncGenerator[Chunk]:
        count = generation.sampling.max_tokens
        words = [_WORDS[number % len(_WORDS)] for number in range(count)]
        words[0] = self._first_ad(generation.prompt) or words[0]
        usage = Usage(self.count_tokens(generation.prompt), 0, count)
        self.running += 1
        try:
            if not generation.is_streamed:
                yield Chunk("".join(words), count, "length", usage)
                return
            for word in words[:-1]:
                await asyncio.sleep(0)  # one token of each running request, as an engine's steps
                yield Chunk(word, 1)
            yield Chunk(words[-1], 1, "length", usage)
        finally:
            self.running -= 1

    def load(self) -> Load:
        return Load(self.running, 0)

    async def check(self) -> None: ...

    async def close(self) -> None: ...

    @staticmethod
    def _first_ad(prompt: Prompt) -> str | None:
        text = "".join(piece.text for piece in prompt.messages[0].pieces)
        return next((f"@{title}@[{ad_id}]" for ad_id, title in listed_ads(text, 1)), None)


async def start_stand_in(settings: Settings, progress: service.app.Progress) -> StandInEngine:
    """In the place of `service.app.start_engine`."""
    return StandInEngine()


def use_stand_in() -> None:
    """From now on, applications made in this process have the stand-in as their engine."""
    service.app.start_engine = start_stand_in


if __name__ == "__main__":
    use_stand_in()
    sys.exit(service.server.run(load_settings()))
