"""Bodies: what is a response, what is an error, and what the error shows of the body."""

import json
from typing import Any

import pytest

from luma_async import APIError, DecodeError, State
from luma_async.protocol.decoding import decode_response
from tests.protocol.response_builders import api_error, error_of, response_of, table_row

TASK = {"id": "a", "state": "completed"}


def text(plain: object) -> str:
    return json.dumps(plain, ensure_ascii=False)


@pytest.mark.parametrize("second", ['{"detail": {"code": 1}}', "null", "{", "and more"])
def test_of_several_json_documents_the_first_counts(second: str) -> None:
    for body in (text(TASK), text([TASK]), text({"data": [TASK]}), f" \n{text(TASK)}"):
        response = decode_response(200, {}, f"{body}\n{second}".encode())
        assert response.states == {"a": State.COMPLETED}
        assert response.generation("a").raw == TASK
    assert decode_response(200, {}, f"[] {second}".encode()).states == {}


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ('{"ids":["a"]}', '{"ids":["a"]}'),
        ("7 and more", "7 and more"),
        ('"a" {"id": "a", "state": "completed"}', '"a" {"id": "a", "state": "completed"}'),
        ('{"说明":"维护中"} and more', '{"说明": "维护中"}'),
    ],
)
def test_an_error_shows_the_body_that_is_no_task(body: str, shown: str) -> None:
    error = error_of(200, body.encode())
    assert type(error) is DecodeError
    assert str(error) == f"status 200 with a body that is no task: {shown}"


@pytest.mark.parametrize("name", [{}, {"id": ""}, {"id": None}])
def test_a_row_with_an_empty_id_is_a_row_without_one(name: dict[str, object]) -> None:
    response = response_of([{"state": "completed", **name}])
    assert response.states == {}
    assert response.for_task("a").states == {"a": State.COMPLETED}


def test_a_task_with_a_list_in_its_data_is_one_task() -> None:
    for data in ([], [{"id": "b", "state": "failed"}]):
        assert response_of(table_row(data=data)).states == {"a": State.COMPLETED}


SUCCESS: list[dict[str, Any]] = [
    {"code": True},
    {"code": "none"},
    {"code": " Success "},
    {"success": True},
    {"success": None},
    {"success": "ok"},
]


@pytest.mark.parametrize("beside", SUCCESS, ids=str)
def test_an_envelope_that_says_success_has_its_rows_and_may_be_empty(
    beside: dict[str, Any],
) -> None:
    assert response_of({**beside, "data": [table_row()]}).states == {"a": State.COMPLETED}
    assert response_of({**beside, "data": []}).states == {}


@pytest.mark.parametrize("rows", [[table_row()], []])
def test_an_envelope_without_success_is_an_error_whatever_it_contains(rows: list[Any]) -> None:
    assert api_error(200, {"success": False, "message": "busy", "data": rows}).message == "busy"


EMPTY_DATA: list[Any] = [None, [], {"items": []}]
EMPTY: list[tuple[dict[str, Any], bool]] = [
    ({"message": "successful"}, True),
    ({"msg": "Done "}, True),
    ({"code": "200", "status": "0"}, True),
    ({"message": "200"}, False),
    ({"code": "success", "status": "done"}, False),
    ({"ok": False}, False),
    ({"success": "no"}, False),
    ({"ok": 1}, False),
]


@pytest.mark.parametrize(("beside", "is_empty"), EMPTY, ids=str)
def test_an_empty_envelope_has_no_tasks_only_if_nothing_in_it_could_be_an_error(
    beside: dict[str, Any], is_empty: bool
) -> None:
    for data in EMPTY_DATA:
        if is_empty:
            assert response_of({**beside, "data": data}).states == {}
        else:
            assert isinstance(error_of(200, {**beside, "data": data}), APIError)
