import json

from service.api.problems import problem_response
from service.errors import FieldError, InvalidRequest


def test_names_that_are_no_text_do_not_keep_a_problem_from_being_sent() -> None:
    problem = InvalidRequest("größer \ud800", errors=[FieldError("/gr\udcf6", "\udfff is wrong")])
    body = json.loads(bytes(problem_response(problem, None).body).decode())
    assert body["detail"] == "größer ?"
    assert body["errors"] == [{"loc": "/gr?", "msg": "? is wrong"}]
