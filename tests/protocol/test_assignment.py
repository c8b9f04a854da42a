"""Rows and the ids that were asked about: which row is used for which id, and when none is."""

import json
from typing import Any
from uuid import uuid4

import pytest

from luma_async import DecodeError, State
from luma_async.protocol.decoding import decode_response
from tests.protocol.response_builders import response_of, table_row

DONE, FAILED = State.COMPLETED, State.FAILED
ALONE: dict[str, Any] = {"state": "completed", "video_url": "https://cdn.example/v.mp4"}
IN_ENVELOPES: list[Any] = [ALONE, [ALONE], {"code": 0, "data": ALONE}, [{"took": 1}, ALONE]]


@pytest.mark.parametrize("plain", IN_ENVELOPES, ids=str)
def test_the_only_task_without_an_id_is_the_one_that_was_asked_about(plain: object) -> None:
    response = response_of(plain).for_task("a")
    assert (response.states, response.unknown_states) == ({"a": DONE}, frozenset())
    one = response.generation("a")
    assert (one.url, one.raw) == (ALONE["video_url"], ALONE)


def test_of_several_tasks_without_an_id_none_is_the_one_that_was_asked_about() -> None:
    with pytest.raises(DecodeError, match="^status 200 with a body that is no task: "):
        response_of([{"state": "completed"}, {"state": "failed"}]).for_task("a")
    with pytest.raises(DecodeError, match="^asked about a, the relay answers about b$"):
        response_of([{"state": "completed"}, {"id": "b", "state": "failed"}]).for_task("a")


def test_one_object_about_another_task_is_no_answer_to_a_batch() -> None:
    for plain in ({"id": "b", "state": "completed"}, {"data": table_row(task_id="b")}):
        with pytest.raises(DecodeError, match="^asked about a, the relay answers about b$"):
            response_of(plain).for_tasks(["a"])


def test_an_array_about_other_tasks_is_an_answer_without_the_task() -> None:
    rows = [{"id": "b", "state": "completed"}, {"id": "c", "state": "completed"}]
    for plain in (rows, rows[:1], {"data": rows}):
        assert response_of(plain).for_tasks(["a"]).states == {}


def test_the_error_about_another_task_has_the_retry_after_of_the_response() -> None:
    body = json.dumps({"id": "b", "state": "completed"}).encode()
    response = decode_response(200, {"Retry-After": "7"}, body)
    with pytest.raises(DecodeError) as alone:
        response.for_task("a")
    with pytest.raises(DecodeError) as among:
        response.for_tasks(["a"])
    assert alone.value.retry_after == among.value.retry_after == 7.0


@pytest.mark.parametrize("state", ["completed", "COMPLETED", "Completed"])
def test_tasks_that_were_not_asked_about_do_not_move_the_rows_of_others(state: str) -> None:
    stranger = str(uuid4())
    rows = [{"id": name, "state": state, "result_url": name} for name in (stranger, "a", "b")]
    response = response_of(rows).for_tasks(["a", "b"])
    assert response.states == {"a": DONE, "b": DONE}
    assert [response.generation(name).url for name in "ab"] == ["a", "b"]


def test_the_text_of_a_task_is_kept_as_sent_beside_one_that_was_not_asked_about() -> None:
    text = '{"id":"a", "state": "completed","loop":1.50}'
    body = f'[{text}, {{"id": "{uuid4()}", "state": "pending"}}]'.encode()
    assert decode_response(200, {}, body).for_tasks(["a"]).generation("a").original == text


def test_the_unknown_states_are_those_of_the_ids_that_were_asked_about() -> None:
    rows = [{"id": "A", "state": "polishing"}, {"id": f"{uuid4()}", "state": "polishing"}]
    for response in (
        response_of(rows).for_tasks(["A"]),
        response_of(rows).for_tasks(["A", "b"]),
        response_of(rows[0]).for_task("A"),
    ):
        assert response.unknown_states == {"A"}
    assert response_of(rows[0]).for_task("a").unknown_states == {"a"}
    assert response_of([rows[0]]).for_tasks(["a", "b"]).unknown_states == {"a"}


def test_the_row_that_is_kept_is_the_one_of_the_state_that_counts() -> None:
    rows = [{"id": "a", "state": state, "n": state} for state in ("processing", "failed")]
    for ordered in (rows, rows[::-1], [{"id": "b", "state": "pending"}, *rows]):
        response = response_of(ordered)
        assert response.states["a"] is FAILED
        assert response.generation("a").raw == response.row("a").generation().raw == rows[1]


@pytest.mark.parametrize("state", ["completed", "COMPLETED", "Completed"])
def test_of_two_rows_that_say_as_much_the_first_is_kept(state: str) -> None:
    rows = [{"id": "a", "state": state, "result_url": name} for name in ("one", "two")]
    assert response_of(rows).generation("a").url == "one"


@pytest.mark.parametrize("state", ["completed", "COMPLETED", "Completed"])
def test_of_two_rows_in_the_same_state_the_one_that_has_the_link_is_kept(state: str) -> None:
    rows = [{"id": "a", "state": state}, {"id": "a", "state": state, "video": {"url": "link"}}]
    for ordered in (rows, rows[::-1]):
        assert response_of(ordered).generation("a").url == "link"


def test_an_id_in_another_case_is_the_only_open_one_that_it_matches() -> None:
    row = {"id": "abc", "state": "completed"}
    assert response_of(row).for_task("Abc", lambda _: ["Abc"]).states == {"Abc": DONE}
    batch = response_of([row]).for_tasks(["Abc", "d"], lambda _: ["Abc"])
    assert batch.states == {"Abc": DONE}


def test_an_exact_id_in_an_envelope_matches_whatever_other_ids_are_open() -> None:
    plain = {"id": "req-1", "data": {"id": "ABC", "state": "completed"}}
    assert response_of(plain).for_task("ABC", lambda _: ["ABC", "abc"]).states == {"ABC": DONE}


def test_a_list_with_a_row_of_the_table_is_not_a_list_of_videos() -> None:
    videos: list[dict[str, Any]] = [{"id": "v-1", "state": "completed"}]
    assert response_of({"data": videos}).for_task("a").states == {"a": DONE}
    for row in ({"task_id": "b"}, {"taskId": "b"}, {"id": "v-2", "status": "success"}):
        with pytest.raises(DecodeError, match="^asked about a, the relay answers about"):
            response_of({"data": [*videos, row]}).for_task("a")


def test_the_age_of_a_task_is_that_of_its_own_row() -> None:
    rows = [
        {"took": 1, "created_at": "2026-11-21T09:00:00Z"},
        {"id": "a", "state": "Pending", "created_at": "2026-11-21T09:59:00Z"},
    ]
    headers = {"Date": "Sat, 21 Nov 2026 10:00:00 GMT"}
    for plain in (rows, {"data": rows}):
        assert decode_response(200, headers, json.dumps(plain).encode()).age("a") == 60.0
