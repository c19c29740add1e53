import json

from service.api.problems import as_problem, problem_response
from service.errors import FieldError, InvalidRequest


def test_names_that_are_no_text_do_not_keep_a_problem_from_being_sent() -> None:
    problem = InvalidRequest("größer \ud800", errors=[FieldError("/gr\udcf6", "\udfff is wrong")])
    body = json.loads(bytes(problem_response(problem, None).body).decode())
    assert body["detail"] == "größer ?"
    assert body["errors"] == [{"loc": "/gr?", "msg": "? is wrong"}]


def test_of_many_errors_some_are_told_and_the_others_counted() -> None:
    errors = [
        {"loc": ("body", f"f{n}"), "msg": "no", "type": "extra_forbidden"} for n in range(5000)
    ]
    told = as_problem(errors).errors
    assert len(told) == 101
    assert (told[0].loc, told[-1].msg) == ("/f0", "and 4900 more")
