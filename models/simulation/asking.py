"""What a User-LLM is asked: several questions at once, tried again when they fail.

Knows nothing of what is asked; `judge` and `user_llm` do.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from models.contract.prompt import Message, Piece, Prompt
from models.engine.interface import (
    Engine,
    EngineError,
    EngineOverloaded,
    EngineUnavailable,
    Sampling,
)
from models.simulation.completions import Completions, CompletionStore

_FIRST_PAUSE_S = 0.5

Read = TypeVar("Read")


class CompletionError(Exception):
    """The User-LLM answered, but with nothing that can be used, however often it was asked."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a User-LLM is asked. The answer must match `grammar`, EBNF in xgrammar's dialect.

    sampling: with a seed, which is raised by one for every further try.
    """

    prompt: Prompt
    sampling: Sampling
    grammar: str


class UserLlm:
    """Asks `engine`; what it answered before is taken from `store`.

    concurrency: questions at once, at least 1. tries: of one question, at least 1.
    """

    def __init__(
        self,
        engine: Engine,
        store: CompletionStore | None = None,
        concurrency: int = 16,
        tries: int = 3,
    ) -> None:
        self._completions = Completions(engine, store or CompletionStore(None))
        self._turns = asyncio.Semaphore(concurrency)
        self._tries = tries

    async def ask(self, question: Question, read: Callable[[str], Read]) -> Read:
        """The first answer that `read` does not refuse with a ValueError.

        EngineOverloaded and EngineUnavailable are tried again after a pause. Raises what the
        engine raises, these two after the last try, and CompletionError where it was refused.
        """
        problem: Exception | None = None
        for number in range(self._tries):
            seed = (question.sampling.seed or 0) + number
            tried = replace(question, sampling=replace(question.sampling, seed=seed))
            try:
                return read(await self._complete(tried))
            except ValueError as error:
                problem = error
            except (EngineOverloaded, EngineUnavailable) as error:
                problem = error
                await asyncio.sleep(_FIRST_PAUSE_S * 2**number)
        # An outage says nothing of the question: it must not pass for an answer.
        if isinstance(problem, EngineError):
            raise problem
        raise CompletionError(f"{self._tries} tries gave nothing to use: {problem}") from problem

    async def _complete(self, question: Question) -> str:
        async with self._turns:
            completion = await self._completions.complete(
                question.prompt, question.sampling, question.grammar
            )
        return completion.text


async def all_in_order(
    work: Sequence[Coroutine[Any, Any, Read]], progress: Callable[[int], None]
) -> list[Read]:
    """Run `work` together and return the results in its order; `progress`: how many are done.

    The first failure ends the others and is raised as it is.
    """
    done = 0

    async def counted(one: Coroutine[Any, Any, Read]) -> Read:
        nonlocal done
        result = await one
        done += 1
        progress(done)
        return result

    tasks = [asyncio.ensure_future(counted(one)) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def chat(name: str, system: str, user: str) -> Prompt:
    """A prompt of two messages; `name` stands for the wording of it, version included."""
    return Prompt(
        name,
        (
            Message("system", (Piece(system, recurs=True),)),
            Message("user", (Piece(user, recurs=False),)),
        ),
    )
