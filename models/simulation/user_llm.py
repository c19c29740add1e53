"""Questions written by a User-LLM: given who somebody is, it asks what they would ask.

After LLM-Auction (arXiv 2512.10551, section 5.1), in words of our own. The world's plan says what
each question is about, so that it is known which ads serve it, as for written ones (`questions`).
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from models.contract.neutral import neutralise
from models.engine.interface import Sampling
from models.simulation.asking import CompletionError, Question, UserLlm, all_in_order, chat
from models.simulation.nouns import Ad, Query, Split
from models.simulation.questions import QuestionWriter
from models.simulation.randomness import derived_seed, generator
from models.simulation.wordings import load_material
from models.simulation.world import Asker, World, WorldOptions, plan

PROMPT_NAME = "queries-1"
_SHORTEST, _LONGEST = 15, 240
_TOKENS_PER_QUESTION = 90
_SAMPLING = Sampling(temperature=0.9, top_p=0.95, top_k=50)

_SYSTEM = """\
You imagine what a particular person types into a chat assistant. You are told who they are and \
what each question is about. Write every question the way this person would: natural, concrete, \
one or two sentences, each unlike the others. Where a question is about a need that some product \
could serve, speak of the situation or the problem behind it and do not name the kind of product. \
Where it is about nothing to buy, ask about knowledge, language, numbers, daily life or the like. \
Nothing sexual, violent, illegal, hateful or otherwise unsafe.
Reply with a JSON list of the questions as strings, and nothing else."""
_NO_NEED = "nothing that can be bought"


@dataclass(frozen=True, slots=True)
class LlmWorld:
    """A world whose questions a model wrote; `filled_in`: how many it failed to write usably, so
    that they come from wordings instead."""

    world: World
    filled_in: int


async def build_llm_world(
    ads: Sequence[Ad],
    llm: UserLlm,
    options: WorldOptions,
    progress: Callable[[int], None] = lambda done: None,
) -> LlmWorld:
    """Compose users and have `llm` write their questions; `progress`: how many users are done.

    Raises what the engine raises, and ValueError as `build_world` does.
    """
    askers = plan(ads, options)
    drafts = await all_in_order([_ask(llm, asker, options.seed) for asker in askers], progress)
    return _settle(ads, options, askers, drafts)


def questions_grammar(count: int) -> str:
    """EBNF of a JSON list of `count` questions."""
    items = ' ", " '.join(["question"] * count)
    return (
        f'root ::= "[" {items} "]"\n'
        f'question ::= "\\"" [^"\\\\\\x00-\\x1f]{{{_SHORTEST},{_LONGEST}}} "\\""\n'
    )


def read_questions(text: str, count: int) -> list[str]:
    """The questions in `text`. Raises ValueError where it is not a list of `count` of them."""
    rows = json.loads(text)
    if not isinstance(rows, list) or len(rows) != count:
        raise ValueError(f"not a JSON list of {count} questions")
    if not all(isinstance(row, str) and len(row) >= _SHORTEST for row in rows):
        raise ValueError(f"not all are questions of {_SHORTEST} characters or more")
    return [neutralise(row[:_LONGEST]) for row in rows]


async def _ask(llm: UserLlm, asker: Asker, seed: int) -> list[str]:
    """A question for each subject; none where the model gave nothing usable."""
    count = len(asker.subjects)
    profile = asker.user.profile
    about = "\n".join(
        f"{number}. {subject or _NO_NEED}" for number, subject in enumerate(asker.subjects, start=1)
    )
    user = (
        f"The person: {profile.info}\nInterests: {', '.join(profile.interests)}\n"
        f"The questions are about:\n{about}\n\nThe {count} questions, as a JSON list:"
    )
    own_seed = derived_seed("queries", seed, asker.user.user_id)
    sampling = replace(_SAMPLING, max_tokens=_TOKENS_PER_QUESTION * count, seed=own_seed)
    question = Question(chat(PROMPT_NAME, _SYSTEM, user), sampling, questions_grammar(count))
    try:
        return await llm.ask(question, lambda text: read_questions(text, count))
    except CompletionError:
        return []


def _settle(
    ads: Sequence[Ad],
    options: WorldOptions,
    askers: Sequence[Asker],
    drafts: Sequence[Sequence[str]],
) -> LlmWorld:
    """Take each draft that is new, in the order of the users, and write the others."""
    writer = QuestionWriter(load_material(), ads)
    queries: list[Query] = []
    filled_in = 0
    for asker, texts in zip(askers, drafts, strict=True):
        chance = generator("questions", options.seed, asker.user.user_id)
        is_held_out = asker.user.split is Split.TEST
        settled = []
        for number, subject in enumerate(asker.subjects):
            if number < len(texts) and writer.claim(texts[number]):
                settled.append(texts[number])
            else:
                settled.append(writer.write(asker.person, subject, is_held_out, chance))
                filled_in += 1
        queries += asker.queries(settled)
    users = tuple(asker.user for asker in askers)
    return LlmWorld(World(users, tuple(queries), tuple(ads)), filled_in)
