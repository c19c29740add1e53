import json

from talking import TalkingEngine
from typist import whole
from xgrammar.testing import _is_grammar_accept_string

from models.engine.interface import Generation
from models.simulation.asking import UserLlm
from models.simulation.nouns import Ad
from models.simulation.user_llm import build_llm_world, questions_grammar
from models.simulation.world import WorldOptions, build_world

OPTIONS = WorldOptions(users=4, queries_per_user=3)


def ask_anything(generation: Generation) -> str:
    """Three questions that name whom they come from, so that all are different."""
    _, _, asked = whole(generation.prompt).rpartition("The person: ")
    person = asked.split("\n")[0]
    return json.dumps([f"Question {n} of {person[:150]}?" for n in range(3)])


class TestBuild:
    async def test_the_model_writes_what_the_plan_says(self, ads: tuple[Ad, ...]) -> None:
        engine = TalkingEngine(ask_anything)

        built = await build_llm_world(ads, UserLlm(engine), OPTIONS)

        planned = build_world(ads, OPTIONS)
        assert built.world.users == planned.users
        assert [q.category for q in built.world.queries] == [q.category for q in planned.queries]
        assert all(query.text.startswith("Question") for query in built.world.queries)
        assert built.filled_in == 0
        wished = whole(engine.generations[0].prompt)
        assert planned.users[0].profile.info in wished
        assert all(q.category in wished for q in planned.queries[:3] if q.category)

    async def test_what_it_fails_to_write_comes_from_wordings(self, ads: tuple[Ad, ...]) -> None:
        built = await build_llm_world(ads, UserLlm(TalkingEngine(["sorry"])), OPTIONS)

        assert built.filled_in == 12
        assert built.world == build_world(ads, OPTIONS)

    async def test_a_question_is_asked_once(self, ads: tuple[Ad, ...]) -> None:
        same = json.dumps(["What is the time, please?"] * 3)

        built = await build_llm_world(ads, UserLlm(TalkingEngine([same])), OPTIONS)

        assert built.filled_in == 11
        assert len({query.text for query in built.world.queries}) == 12

    def test_the_grammar_asks_for_as_many_as_wished(self) -> None:
        ebnf = questions_grammar(2)

        assert _is_grammar_accept_string(ebnf, json.dumps(["Why is it so cold here?"] * 2))
        assert not _is_grammar_accept_string(ebnf, json.dumps(["Why is it so cold here?"]))
        assert not _is_grammar_accept_string(ebnf, json.dumps(["Why?"] * 2))
