"""Responses: which tasks they contain, bare or in an envelope, and what is a decode error."""

import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from luma_async import APIError, DecodeError, LumaError, State
from luma_async.protocol.decoding import decode_response
from luma_async.protocol.responses import Response
from tests.protocol.response_builders import (
    DATA,
    SAMPLE_ID,
    SAMPLES,
    api_error,
    error_of,
    response_of,
    table_row,
    task,
    wrapped,
)


def decode_or_error(plain: object) -> Response | LumaError:
    try:
        return response_of(plain)
    except LumaError as error:
        return error


@pytest.mark.parametrize("body", SAMPLES, ids=["single", "batch"])
def test_the_published_samples_contain_one_completed_task(body: bytes) -> None:
    response = decode_response(200, {"Content-Type": "application/json"}, body)
    assert response.states == {SAMPLE_ID: State.COMPLETED}
    assert response.generation(SAMPLE_ID).id == SAMPLE_ID


@pytest.mark.parametrize("status", [200, 201, 202, 299])
def test_any_success_status_is_accepted(status: int) -> None:
    assert decode_response(status, {}, SAMPLES[0]).states == {SAMPLE_ID: State.COMPLETED}


@pytest.mark.parametrize("status", [199, 300, 304])
def test_no_other_status_is_a_success(status: int) -> None:
    with pytest.raises(LumaError):
        decode_response(status, {}, SAMPLES[0])


def test_rows_of_a_batch_are_assigned_by_id_not_by_position() -> None:
    rows = [
        {"id": "b", "state": "failed", "failure_reason": "moderated"},
        {"id": "a", "state": "completed", "video": {"url": "link of a"}},
        {"id": "c", "state": "pending"},
    ]
    response = response_of(rows)
    assert response.states == {"b": State.FAILED, "a": State.COMPLETED, "c": State.PENDING}
    assert [response.generation(name).raw for name in "bac"] == rows
    assert response.generation("a").url == "link of a"
    assert response.generation("b").failure_reason == "moderated"


SHAPES: list[Callable[[list[Any]], object]] = [
    lambda rows: rows,
    lambda rows: {"data": rows},
    lambda rows: {"data": {"items": rows}},
    lambda rows: {"result": [{"data": row} for row in rows]},
]


@pytest.mark.parametrize("shape", SHAPES)
def test_of_two_rows_of_a_task_the_final_state_counts_and_later_rows_are_read(shape: Any) -> None:
    rows = [
        {"id": "a", "state": "failed", "failure_reason": "moderated"},
        {"id": "a", "state": "processing"},
        {"id": "b", "state": "pending"},
    ]
    assert response_of(shape(rows)).states == {"a": State.FAILED, "b": State.PENDING}
    assert response_of(shape(rows[1:2] + rows)).states["a"] is State.FAILED


@pytest.mark.parametrize("name", ["task_id", "taskId"])
def test_in_a_row_of_the_table_a_final_state_counts_before_another_word(name: str) -> None:
    row = {name: "a", "state": "processing", "status": "SUCCESS"}
    assert response_of([row]).states == {"a": State.COMPLETED}


def test_an_id_without_a_row_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        response_of([{"id": "a", "state": "completed"}]).generation("b")


@pytest.mark.parametrize("body", [b"null", b"[]", b" null\n", b"[ ]"])
def test_an_empty_response_has_no_tasks(body: bytes) -> None:
    assert decode_response(200, {}, body).states == {}


def test_a_row_without_an_id_is_skipped() -> None:
    rows = [{"state": "completed"}, {"id": "", "state": "failed"}, {"id": 7, "state": "failed"}]
    assert response_of([*rows, {"id": "a", "state": "completed"}]).states == {"a": State.COMPLETED}


def test_an_envelope_may_contain_one_row_without_a_list() -> None:
    response = wrapped(table_row(data={"id": "a", "video": {"url": "link"}}))
    assert response.states == {"a": State.COMPLETED}
    assert response.generation("a").url == "link"


@pytest.mark.parametrize("data", [None, []])
def test_an_empty_envelope_has_no_tasks(data: object) -> None:
    assert wrapped(data).states == {}


@pytest.mark.parametrize("code", ["success", "SUCCESS", "ok", 0, 200, "200", None])
def test_an_envelope_may_have_any_success_code(code: object) -> None:
    assert response_of({"code": code, "data": [table_row()]}).states == {"a": State.COMPLETED}


@pytest.mark.parametrize(
    "other",
    [
        b'{"id": "b", "state": 5}',
        b"null",
        b"7",
        b"[]",
        b'{"id": {}, "state": "pending"}',
        b'{"id": "b", "state": "pending", "prompt": "cut \\ud83d"}',
        b'{"id": "b", "state": "pending", "prompt": "\xff"}',
        b'{"id": "b", "state": "pending", "odd": [NaN, Infinity, 1e999]}',
    ],
)
def test_an_invalid_row_does_not_affect_other_rows(other: bytes) -> None:
    good = b'{"id": "a", "state": "completed", "video": {"url": "link"}}'
    response = decode_response(200, {}, b"[" + good + b"," + other + b"]")
    assert response.generation("a").url == "link"
    for task_id in response.states:
        msgspec.json.encode(response.generation(task_id))
        assert response.generation(task_id).raw["id"] == task_id


def test_the_videos_of_one_task_are_a_response_about_the_task() -> None:
    response = decode_response(200, {}, (DATA / "get-data-list.json").read_bytes())
    assert "the task" not in response.states
    about = response.for_task("the task")
    assert list(about.states) == ["the task"]
    generation = about.generation("the task")
    assert (generation.id, generation.state) == ("the task", State.COMPLETED)
    assert generation.url
    whole = json.loads((DATA / "get-data-list.json").read_bytes())
    assert generation.raw == whole["data"], "all videos, whichever has the link"


def test_raw_contains_all_videos_of_a_task() -> None:
    rows = [{"id": "v1", "state": "completed", "video": {"url": "1"}}, {"id": "v2", "state": "x"}]
    one = response_of({"data": rows}).for_task("a").generation("a")
    assert [video["id"] for video in one.raw] == ["v1", "v2"]


def test_a_task_with_several_videos_is_open_until_all_are_completed() -> None:
    rows = [{"id": "v1", "state": "completed"}, {"id": "v2", "state": "dreaming"}]
    assert response_of({"data": rows}).for_task("a").states == {"a": State.PROCESSING}


def test_an_object_with_only_the_requested_id_is_a_running_task() -> None:
    assert response_of({"id": "a"}).for_task("a").states == {"a": State.PROCESSING}
    with pytest.raises(DecodeError):
        response_of({"id": "a request"}).for_task("a")


@pytest.mark.parametrize(
    "body",
    [
        {"state": "completed", "video": {"url": "https://cdn/v.mp4"}},
        {"code": "success", "data": {"state": "completed", "video": {"url": "https://cdn/v.mp4"}}},
        {"status": "SUCCESS", "result_url": "https://cdn/v.mp4", "progress": "100%"},
        [{"state": "completed", "video_url": "https://cdn/v.mp4"}],
    ],
    ids=repr,
)
def test_a_single_response_without_an_id_is_about_the_requested_task(body: object) -> None:
    response = response_of(body).for_task("a")
    assert response.states == {"a": State.COMPLETED}
    assert response.generation("a").url == "https://cdn/v.mp4"
    with pytest.raises(DecodeError):
        response_of(body).for_tasks(["a", "b"])


def test_a_single_response_about_another_task_is_a_decode_error() -> None:
    for response in (
        response_of({"id": "b", "state": "completed"}),
        wrapped([table_row(task_id="b")]),
    ):
        with pytest.raises(DecodeError, match="asked about a, the relay answers about b$"):
            response.for_task("a")
    with pytest.raises(DecodeError, match=r"relay answers about b \ufffd\[2J b+…$"):
        response_of({"id": "b\n\x1b[2J\x1c" + "b" * 300, "state": "completed"}).for_task("a")


def test_a_task_that_was_not_requested_is_warned_about_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stranger = str(uuid4())
    response = response_of([{"id": "a", "state": "pending"}, {"id": stranger, "state": "failed"}])
    for _ in range(2):
        assert response.for_tasks(["a", "b"]).states == {"a": State.PENDING}
    (message,) = caplog.messages
    assert stranger in message


def test_the_id_of_an_envelope_or_of_an_error_is_not_a_task() -> None:
    envelope = {"id": "a request", "code": "success", "data": [table_row()]}
    assert response_of(envelope).states == {"a": State.COMPLETED}
    assert api_error(200, {"id": "a request", "error": {"message": "no"}}).message == "no"


def test_a_task_with_a_data_field_is_not_an_envelope() -> None:
    assert task(video={"url": "link"}, data={"x": 1}).url == "link"


def test_a_body_may_begin_with_white_space() -> None:
    body = b' \n[{"id": "a", "state": "failed", "failure_reason": "no"}]'
    assert decode_response(200, {}, body).generation("a").failure_reason == "no"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"[",
        b'{"id": "a", "state": "completed"',
        b"not json",
        b"\x00\xff\xfe",
        b"7",
        b"true",
        b'"completed"',
        b"[1, 2]",
        b'["a"]',
        b"[[]]",
        b"{}",
        b'"null"',
        b"'null'",
        b'{"data": "text"}',
        b'{"data": [7]}',
        b'{"ids": ["a"]}',
        b'{"code": "success"}',
        b'{"success": true, "message": "ok"}',
        b'{"code": "success", "data": {"a": {"id": "a", "state": "completed"}}}',
        b'[{"error": "overloaded"}]',
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"data":' * 100_000 + b"7" + b"}" * 100_000,
    ],
    ids=lambda body: repr(body[:32]),
)
def test_an_undecodable_body_is_a_decode_error(body: bytes) -> None:
    error = error_of(200, body)
    assert type(error) is DecodeError
    assert str(error).startswith("status 200 with a")
    assert len(str(error)) < 300


DATE_HEADER = {"Date": "Sat, 21 Nov 2026 10:00:00 GMT"}


@pytest.mark.parametrize(
    ("row", "age"),
    [
        ({"id": "a", "state": "pending", "created_at": "2026-11-21T09:59:00Z"}, 60.0),
        ({"id": "a", "state": "pending", "created_at": "2026-11-21T09:59:00Z", "data": {}}, 60.0),
        ({"id": "a", "state": "pending", "created_at": "0001-01-01T00:00:00Z"}, 0.0),
        ({"id": "a", "state": "pending"}, 0.0),
        (
            {
                "id": "a",
                "state": "pending",
                "created_at": "2026-11-21T09:59:00Z",
                "data": {"created_at": "2026-11-21T09:58:00Z"},
            },
            60.0,
        ),
        (
            {
                "id": "a",
                "state": "pending",
                "createTime": "2026-11-21T09:59:00Z",
                "submitTime": "2026-11-21T09:59:30Z",
            },
            60.0,
        ),
        ({"task_id": "a", "status": "QUEUED", "submit_time": 1795255140}, 60.0),
        (
            {
                "task_id": "a",
                "status": "QUEUED",
                "submit_time": 1,
                "data": {"created_at": "2026-11-21T09:59:00Z"},
            },
            60.0,
        ),
    ],
)
def test_the_age_is_measured_with_the_date_header_of_the_relay(
    row: dict[str, Any], age: float
) -> None:
    response = decode_response(200, DATE_HEADER, json.dumps([row]).encode())
    assert response.age("a") == age
    assert decode_response(200, {}, json.dumps([row]).encode()).age("a") == 0.0


ENVELOPES: list[tuple[Callable[[object], object], int]] = [
    (lambda one: {"data": [one]}, 2),
    (lambda one: {"data": one}, 8),
]


@pytest.mark.parametrize(("inside", "levels"), ENVELOPES)
def test_a_task_in_a_few_envelopes_is_found_and_one_in_hundreds_does_no_harm(
    inside: Any, levels: int
) -> None:
    def nested(depth: int) -> object:
        plain: object = {"id": "a", "state": "failed"}
        for _ in range(depth):
            plain = inside(plain)
        return plain

    for depth in range(1, levels + 1):
        assert response_of(nested(depth)).for_task("a").states == {"a": State.FAILED}
    deep = decode_or_error(nested(400))
    assert isinstance(deep, LumaError) or deep.states.keys() <= {"a"}


@pytest.mark.parametrize(
    "plain",
    [
        {"code": 0, "data": {"items": [], "total": 0}},
        {"code": 0, "message": "success", "data": {"list": None, "page": 1, "page_size": 20}},
        {"success": True, "data": {"data": {"records": []}}},
    ],
)
def test_an_empty_page_in_an_envelope_has_no_tasks(plain: object) -> None:
    assert not response_of(plain).states


@pytest.mark.parametrize(
    "plain",
    [
        {"code": 0, "data": {"items": [], "error": "timeout"}},
        {"code": "success", "data": {"records": [], "message": "upstream busy"}},
        {"data": {"items": []}, "message": "upstream busy"},
        {"data": {"data": {"items": []}}, "code": 500},
        {"code": 500, "data": {"items": []}},
    ],
)
def test_an_empty_page_with_an_error_beside_it_is_an_error(plain: object) -> None:
    assert isinstance(error_of(200, json.dumps(plain).encode()), APIError)
