"""Bytes to values: the request of each call, and what any answer to it means."""

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from luma_async import (
    APIError,
    AuthenticationError,
    BadRequestError,
    DecodeError,
    Generation,
    LumaError,
    NoSuchRouteError,
    NotFoundError,
    PermissionDeniedError,
    QuotaError,
    RateLimitedError,
    RelayError,
    Request,
    State,
)
from luma_async.protocol import states
from luma_async.protocol.decoding import decode_response
from luma_async.protocol.requests import batch_request, single_request
from luma_async.protocol.responses import Response
from luma_async.protocol.states import warn_once
from tests.decode_invariants import check
from tests.properties import examples

DATA = Path(__file__).parent / "data"
SAMPLES = [(DATA / name).read_bytes() for name in ("get-completed.json", "tasks-completed.json")]
SAMPLE_ID = "4665a07c-7641-4809-a133-10786201bb56"
PAGE = b'<!doctype html><html lang="zh"><head><title>New API</title></head></html>'
STATE_WORDS = {
    State.PENDING: ["pending", "queued", "submitted", "not_start"],
    State.PROCESSING: ["processing", "in_progress", "dreaming", "running"],
    State.COMPLETED: ["completed", "success", "succeeded"],
    State.FAILED: ["failed", "failure", "error", "canceled", "cancelled", "expired"],
}
WORDS = [(word, state) for state, words in STATE_WORDS.items() for word in words]


def answer(plain: object) -> Response:
    return decode_response(200, {}, json.dumps(plain).encode())


def task(**fields: object) -> Generation:
    """Return what becomes of a bare completed task with these fields."""
    return answer({"id": "a", "state": "completed", **fields}).generation("a")


def row(status: str = "SUCCESS", **fields: object) -> dict[str, Any]:
    """Return a row of the relay's own table, whose `id` is a number of its database."""
    return {"id": 13917, "task_id": "a", "status": status, "fail_reason": "", **fields}


def wrapped(data: object) -> Response:
    return answer({"code": "success", "message": "", "data": data})


def refused(status: int, body: object = b"", headers: Mapping[str, str] | None = None) -> LumaError:
    """Return the error that an answer means."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(LumaError) as caught:
        decode_response(status, headers or {}, raw)
    return caught.value


def api_error(
    status: int, body: object = b"", headers: Mapping[str, str] | None = None
) -> APIError:
    error = refused(status, body, headers)
    assert isinstance(error, APIError)
    return error


# The request of each call.


def test_one_task_is_asked_about_by_a_get_without_a_body() -> None:
    asked = single_request(SAMPLE_ID)
    assert (asked.method, asked.body) == ("GET", None)
    assert asked.path == f"/luma/generations/{SAMPLE_ID}"


def test_many_tasks_are_asked_about_by_a_post_of_their_ids_alone() -> None:
    asked = batch_request(["b", "a"])
    assert (asked.method, asked.path) == ("POST", "/luma/tasks")
    assert asked.body == b'{"ids":["b","a"]}'


@pytest.mark.parametrize(
    ("task_id", "segment"),
    [
        ("task_0-9.aZ~", "task_0-9.aZ~"),
        ("a/b?c#d%", "a%2Fb%3Fc%23d%25"),
        ("..", "%2E%2E"),
        (".", "%2E"),
        ("../x", "..%2Fx"),
        ("a..b", "a..b"),
        ("two words", "two%20words"),
        ("a+b&c=d;e:f@g", "a%2Bb%26c%3Dd%3Be%3Af%40g"),
        ("a\r\nHost: evil", "a%0D%0AHost%3A%20evil"),
        ("é", "%C3%A9"),
        ("任务", "%E4%BB%BB%E5%8A%A1"),
        ("%2F", "%252F"),
    ],
)
def test_a_hostile_id_stays_one_segment_of_the_path(task_id: str, segment: str) -> None:
    assert single_request(task_id).path == f"/luma/generations/{segment}"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_id_arrives_as_it_was_given(task_id: str) -> None:
    segment = single_request(task_id).path.removeprefix("/luma/generations/")
    assert unquote(segment) == task_id
    assert segment.isascii()
    assert not set(segment) & set("/?# \r\n")
    assert segment not in (".", "..")
    assert json.loads(batch_request([task_id]).body or b"") == {"ids": [task_id]}


def test_a_request_is_a_value() -> None:
    assert single_request("a") == single_request("a") != single_request("b")
    assert hash(batch_request(["a"])) == hash(batch_request(["a"]))


# Answers.


@pytest.mark.parametrize("body", SAMPLES, ids=["single", "batch"])
def test_the_published_samples_name_one_completed_task(body: bytes) -> None:
    told = decode_response(200, {"Content-Type": "application/json"}, body)
    assert told.states == {SAMPLE_ID: State.COMPLETED}
    assert told.generation(SAMPLE_ID).id == SAMPLE_ID


@pytest.mark.parametrize("status", [200, 201, 202, 299])
def test_an_answer_may_come_under_any_success(status: int) -> None:
    assert decode_response(status, {}, SAMPLES[0]).states == {SAMPLE_ID: State.COMPLETED}


def test_a_batch_answer_is_told_by_id_and_not_by_position() -> None:
    rows = [
        {"id": "b", "state": "failed", "failure_reason": "moderated"},
        {"id": "a", "state": "completed", "video": {"url": "link of a"}},
        {"id": "c", "state": "pending"},
    ]
    told = answer(rows)
    assert told.states == {"b": State.FAILED, "a": State.COMPLETED, "c": State.PENDING}
    assert [told.generation(name).raw for name in "bac"] == rows
    assert told.generation("a").url == "link of a"
    assert told.generation("b").failure_reason == "moderated"


def test_what_an_answer_does_not_name_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        answer([{"id": "a", "state": "completed"}]).generation("b")


@pytest.mark.parametrize("body", [b"null", b"[]", b" null\n", b"[ ]"])
def test_nothing_found_is_an_answer(body: bytes) -> None:
    assert decode_response(200, {}, body).states == {}


def test_a_row_without_a_name_is_passed_over() -> None:
    rows = [{"state": "completed"}, {"id": "", "state": "failed"}, {"id": 7, "state": "failed"}]
    assert answer([*rows, {"id": "a", "state": "completed"}]).states == {"a": State.COMPLETED}


def test_a_wrapped_row_is_named_by_its_task_and_not_by_its_number() -> None:
    inner = {"id": "a", "state": "completed", "video": {"url": "link"}}
    told = wrapped([row(data=inner)])
    assert told.states == {"a": State.COMPLETED}
    generation = told.generation("a")
    assert (generation.id, generation.url) == ("a", "link")
    assert generation.raw == row(data=inner), "the row itself, its number included"


@pytest.mark.parametrize(
    ("outer", "inner", "url"), [("outer", "inner", "outer"), ("", "inner", "inner")]
)
def test_the_link_of_the_result_may_be_in_the_row_or_inside(
    outer: str, inner: str, url: str
) -> None:
    told = wrapped([row(result_url=outer, data={"id": "a", "result_url": inner})])
    assert told.generation("a").url == url


def test_one_wrapped_row_needs_no_list() -> None:
    told = wrapped(row(data={"id": "a", "video": {"url": "link"}}))
    assert told.states == {"a": State.COMPLETED}
    assert told.generation("a").url == "link"


@pytest.mark.parametrize("data", [None, []])
def test_a_wrapped_nothing_is_an_answer(data: object) -> None:
    assert wrapped(data).states == {}


def test_the_outer_end_wins_over_the_inner_state() -> None:
    inner = {"id": "a", "state": "processing"}
    told = wrapped([row("FAILURE", fail_reason="timed out", data=inner)])
    assert told.states == {"a": State.FAILED}
    assert told.generation("a").state is State.FAILED
    assert told.generation("a").failure_reason == "timed out"


@pytest.mark.parametrize(
    ("outer", "inner", "state"),
    [
        ("UNKNOWN", "completed", State.COMPLETED),
        ("IN_PROGRESS", "completed", State.COMPLETED),
        ("QUEUED", "failed", State.FAILED),
        ("SUCCESS", "failed", State.COMPLETED),
        ("FAILURE", "completed", State.FAILED),
        ("QUEUED", "processing", State.PENDING),
        ("IN_PROGRESS", "", State.PROCESSING),
        ("IN_PROGRESS", "half done", State.PROCESSING),
        ("", "queued", State.PENDING),
        ("", "", State.PROCESSING),
    ],
)
def test_an_end_is_an_end_whoever_tells_it_and_the_row_is_heard_first(
    outer: str, inner: str, state: State
) -> None:
    one = row(outer, data={"id": "a", "state": inner})
    for told in (wrapped([one]), wrapped(one), answer([one]), answer(one)):
        assert told.states == {"a": state}
        assert told.generation("a").state is state


def test_the_status_of_a_row_wins_over_its_state() -> None:
    assert answer([row("FAILURE", state="processing")]).states == {"a": State.FAILED}


@pytest.mark.parametrize("outer", [{"status": "SUCCESS"}, {}])
def test_a_row_without_a_task_id_is_named_by_the_object_inside(outer: dict[str, str]) -> None:
    inner = {"id": "a", "state": "completed", "video": {"url": "link"}}
    rows = [{"id": 13917, **outer, "data": inner}]
    for told in (wrapped(rows), wrapped(rows[0]), answer(rows), answer(rows[0])):
        assert told.states == {"a": State.COMPLETED}
        assert told.generation("a").url == "link"


@pytest.mark.parametrize("data", [{}, {"data": None}, {"data": [{"id": "b"}]}])
def test_a_row_of_the_table_without_an_object_inside_is_read_itself(data: dict[str, Any]) -> None:
    generation = wrapped([row(video={"url": "link"}, **data)]).generation("a")
    assert (generation.id, generation.url) == ("a", "link")


def test_data_that_is_no_object_costs_no_row() -> None:
    rows = [row("SUCCESS", data=data, result_url="link") for data in ("text", [1], 7, True)]
    for told in map(wrapped, [*rows, *([one] for one in rows)]):
        assert told.states == {"a": State.COMPLETED}
        assert told.generation("a").url == "link"


def test_the_reason_of_a_success_is_no_reason() -> None:
    """Relays put the link of the result there."""
    told = wrapped([row(fail_reason="https://cdn.example/a.mp4", data={"id": "a"})])
    assert told.generation("a").failure_reason is None


def test_the_link_in_the_reason_of_a_success_is_the_last_resort() -> None:
    reason = "https://cdn.example/reason.mp4"
    assert wrapped([row(fail_reason=reason)]).generation("a").url == reason
    better = row(fail_reason=reason, data={"assets": {"video": "link"}})
    assert wrapped([better]).generation("a").url == "link"
    assert wrapped([row(fail_reason=reason, result_url="row")]).generation("a").url == "row"
    assert wrapped([row(fail_reason="none")]).generation("a").url is None
    assert wrapped([row("FAILURE", fail_reason=reason)]).generation("a").url is None


@pytest.mark.parametrize("code", ["success", "SUCCESS", "ok", 0, 200, "200", None])
def test_an_envelope_may_say_success_in_many_words(code: object) -> None:
    assert answer({"code": code, "data": [row()]}).states == {"a": State.COMPLETED}


def test_the_whole_object_is_built_from_a_field_of_a_wrong_type_alone_left_out() -> None:
    one = task(
        thumbnail="a picture",
        created_at="last Sunday",
        request=["cat dance"],
        video={"url": "link"},
        failure_reason=7,
        assets={"video": "other"},
    )
    assert (one.thumbnail, one.created_at, one.request) == (None, None, None)
    assert one.failure_reason is None
    assert one.video
    assert one.assets
    assert (one.video.url, one.assets.video, one.state) == ("link", "other", State.COMPLETED)


@pytest.mark.parametrize("field", ["video", "artifact", "thumbnail", "request", "assets"])
@pytest.mark.parametrize("value", ["text", 7, [], True, [{}]])
def test_a_field_of_a_wrong_type_costs_that_field_only(field: str, value: object) -> None:
    one = task(result_url="kept", **{field: value})
    assert getattr(one, field) is None
    assert one.url == "kept"
    assert one.raw[field] == value


@pytest.mark.parametrize("beside", [{}, {"thumbnail": "of a wrong type"}])
def test_a_number_told_as_text_is_a_number(beside: dict[str, object]) -> None:
    video = task(video={"url": "link", "width": "1360"}, **beside).video
    assert video
    assert video.width == 1360


def test_a_wrong_type_inside_a_field_costs_what_is_wrong_and_not_the_link() -> None:
    one = task(video={"url": "link", "width": "wide"}, artifact={"video": {"height": []}})
    assert one.url == "link"
    assert one.video
    assert one.video.width is None


def test_a_link_told_as_bare_text_is_the_link_of_its_object() -> None:
    link = "https://cdn.example/a.png"
    artifact = {"last_frame": link, "video": {"thumbnail": link}}
    one = task(thumbnail=link, video=link, artifact=artifact)
    assert one.thumbnail
    assert one.video
    assert one.artifact
    assert one.artifact.last_frame
    assert one.artifact.video
    assert (one.thumbnail.url, one.artifact.last_frame.url) == (link, link)
    assert (one.video.url, one.artifact.video.thumbnail, one.url) == (link, link, link)


def test_the_prompt_is_in_the_request_wherever_it_was_told() -> None:
    assert task(prompt="cat").request == Request(prompt="cat")
    assert task(prompt="").request is None
    assert task(prompt="cat", request={"prompt": "dog"}).request == Request(prompt="dog")
    assert task(prompt="cat", thumbnail="").request == Request(prompt="cat")


MOMENT = datetime(2024, 12, 22, 13, 38, 40, tzinfo=UTC)


@pytest.mark.parametrize(
    ("told", "moment"),
    [
        ("2024-12-22T13:38:40Z", MOMENT),
        ("2024-12-22T13:38:40.139Z", MOMENT.replace(microsecond=139_000)),
        ("2024-12-22T13:38:40.139409Z", MOMENT.replace(microsecond=139_409)),
        ("2024-12-22T21:38:40+08:00", MOMENT),
        ("2024-12-22T13:38:40", MOMENT),
        ("2024-12-22 13:38:40", MOMENT),
        (1734874720, MOMENT),
        ("1734874720", MOMENT),
        (1734874720.0, MOMENT),
        ("0001-01-01T00:00:00Z", None),
        ("1970-01-01T00:00:00Z", None),
        ("1970-01-02T00:00:00Z", datetime(1970, 1, 2, tzinfo=UTC)),
        (0, None),
        ("", None),
        (10**30, None),
        (True, None),
    ],
)
def test_a_moment_is_aware_or_unknown(told: object, moment: datetime | None) -> None:
    assert task(created_at=told).created_at == moment
    inner = {"id": "a", "state": "completed", "created_at": told}
    assert wrapped([row(data=inner)]).generation("a").created_at == moment
    artifact = task(artifact={"created_at": told}).artifact
    assert artifact
    assert artifact.created_at == moment


def test_the_row_tells_the_moment_that_the_object_inside_does_not() -> None:
    inner = {"id": "a", "created_at": "0001-01-01T00:00:00Z"}
    for beside in ({"created_at": 1734874720}, {"created_at": 0, "submit_time": 1734874720}):
        told = wrapped([row(data=inner) | beside])
        assert told.generation("a").created_at == MOMENT


@pytest.mark.parametrize("field", ["fail_reason", "result_url"])
def test_a_wrong_type_in_a_row_of_the_table_costs_no_task(field: str) -> None:
    inner = {"id": "a", "state": "completed", "video": {"url": "link"}}
    told = wrapped([row("SUCCESS", data=inner, **{field: 5})])
    assert told.generation("a").url == "link"


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
def test_an_odd_row_costs_no_other_row(other: bytes) -> None:
    good = b'{"id": "a", "state": "completed", "video": {"url": "link"}}'
    told = decode_response(200, {}, b"[" + good + b"," + other + b"]")
    assert told.generation("a").url == "link"
    for task_id in told.states:
        msgspec.json.encode(told.generation(task_id))
        assert told.generation(task_id).raw["id"] == task_id


def test_the_videos_of_one_task_are_an_answer_about_it() -> None:
    told = decode_response(200, {}, (DATA / "get-data-list.json").read_bytes())
    assert "the task" not in told.states
    about = told.for_task("the task")
    assert list(about.states) == ["the task"]
    generation = about.generation("the task")
    assert (generation.id, generation.state) == ("the task", State.COMPLETED)
    assert generation.url
    whole = json.loads((DATA / "get-data-list.json").read_bytes())
    assert generation.raw == whole["data"], "all videos, whichever has the link"


def test_the_other_videos_of_a_task_stay_reachable() -> None:
    rows = [{"id": "v1", "state": "completed", "video": {"url": "1"}}, {"id": "v2", "state": "x"}]
    one = answer({"data": rows}).for_task("a").generation("a")
    assert [video["id"] for video in one.raw] == ["v1", "v2"]


def test_an_object_that_says_its_id_alone_is_a_task_that_runs() -> None:
    assert answer({"id": "a"}).for_task("a").states == {"a": State.PROCESSING}
    with pytest.raises(DecodeError):
        answer({"id": "a request"}).for_task("a")


def test_an_envelope_or_an_error_may_have_an_id_of_its_own() -> None:
    envelope = {"id": "a request", "code": "success", "data": [row()]}
    assert answer(envelope).states == {"a": State.COMPLETED}
    assert api_error(200, {"id": "a request", "error": {"message": "no"}}).message == "no"


def test_a_body_may_begin_with_space() -> None:
    body = b' \n[{"id": "a", "state": "failed", "failure_reason": "no"}]'
    assert decode_response(200, {}, body).generation("a").failure_reason == "no"


def test_a_task_of_several_videos_runs_until_the_last_is_done() -> None:
    rows = [{"id": "v1", "state": "completed"}, {"id": "v2", "state": "dreaming"}]
    assert answer({"data": rows}).for_task("a").states == {"a": State.PROCESSING}


def test_a_single_answer_about_another_task_is_a_decode_error() -> None:
    for told in (answer({"id": "b", "state": "completed"}), wrapped([row(task_id="b")])):
        with pytest.raises(DecodeError, match="asked about a, the relay answers about b$"):
            told.for_task("a")
    with pytest.raises(DecodeError, match=r"relay answers about b \ufffd\[2J b+…$"):
        answer({"id": "b\n\x1b[2J\x1c" + "b" * 300, "state": "completed"}).for_task("a")


def test_a_task_that_was_not_asked_about_is_warned_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stranger = str(uuid4())
    told = answer([{"id": "a", "state": "pending"}, {"id": stranger, "state": "failed"}])
    for _ in range(2):
        assert told.for_tasks(["a", "b"]).states == {"a": State.PENDING}
    (message,) = caplog.messages
    assert stranger in message


def test_a_byte_order_mark_is_no_obstacle() -> None:
    assert decode_response(200, {}, b"\xef\xbb\xbf" + SAMPLES[0]).states
    assert isinstance(refused(200, b"\xef\xbb\xbf<html>"), NoSuchRouteError)


@pytest.mark.parametrize(
    ("charset", "named"),
    [
        ("gbk", "gbk"),
        ("gb18030", '"GB18030"'),
        ("big5", "Big5"),
        ("utf-16", "utf-16"),
        ("utf-16-le", None),
        ("utf-32-be", None),
        ("utf-8", "gbk"),
        ("utf-8", "no-such-charset"),
        ("utf-8-sig", "latin-1"),
    ],
)
def test_a_body_in_another_charset_is_read_whatever_it_says_it_is(
    charset: str, named: str | None
) -> None:
    headers = {"content-TYPE": f"application/json; charset={named}"} if named else {}
    plain = {"id": "a", "state": "failed", "failure_reason": "任務失敗"}
    text = json.dumps(plain, ensure_ascii=False).encode(charset)
    one = decode_response(200, headers, text).generation("a")
    assert (one.failure_reason, one.raw) == ("任務失敗", plain)
    error = json.dumps({"error": {"message": "額度"}}, ensure_ascii=False).encode(charset)
    assert api_error(403, error, headers).message == "額度"


@pytest.mark.parametrize("charset", ["zlib", "hex", "undefined", "idna", "punycode", "none"])
def test_a_charset_that_is_no_charset_of_texts_costs_what_it_hides(charset: str) -> None:
    headers = {"Content-Type": f"application/json; charset={charset}"}
    text = '{"id": "a", "state": "failed", "failure_reason": "è"}'.encode("latin-1")
    one = decode_response(200, headers, text).generation("a")
    assert (one.id, one.state, one.failure_reason) == ("a", State.FAILED, "\ufffd")


def test_a_task_with_data_of_its_own_is_no_envelope() -> None:
    assert task(video={"url": "link"}, data={"x": 1}).url == "link"


# Words of state.


@pytest.mark.parametrize("bend", [str.lower, str.upper, str.title], ids=["lower", "upper", "title"])
@pytest.mark.parametrize(("word", "state"), WORDS)
def test_each_word_of_state_is_known_in_any_case(
    word: str, state: State, bend: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert answer({"id": "a", "state": bend(word)}).states == {"a": state}
    assert answer([{"id": "a", "state": bend(word)}]).states == {"a": state}
    assert wrapped([row(bend(word))]).states == {"a": state}
    assert not caplog.records


def test_unknown_is_a_word_that_relays_use(caplog: pytest.LogCaptureFixture) -> None:
    assert wrapped([row("UNKNOWN")]).states == {"a": State.PROCESSING}
    assert not caplog.records


def test_a_word_that_nobody_knows_means_still_running_and_is_warned_about_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second = f"word-{uuid4()}", f"word-{uuid4()}"
    for word in (first, second, first, second, first):
        rows = [{"id": "a", "state": word}, {"id": "b", "state": word}]
        assert answer(rows).states == dict.fromkeys("ab", State.PROCESSING)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert {record.name for record in caplog.records} == {"luma_async"}
    assert first in caplog.messages[0]
    assert second in caplog.messages[1]


def test_a_long_word_is_cut_in_the_warning(caplog: pytest.LogCaptureFixture) -> None:
    answer([{"id": "a", "state": f"{uuid4()}" * 1000}])
    (message,) = caplog.messages
    assert len(message) < 200


# Answers that make no sense.


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
def test_an_answer_that_makes_no_sense_is_a_decode_error(body: bytes) -> None:
    error = refused(200, body)
    assert type(error) is DecodeError
    assert str(error).startswith("status 200 with a")
    assert len(str(error)) < 300


def test_an_empty_body_is_called_empty() -> None:
    assert str(refused(204)) == "status 204 with an empty body"


@pytest.mark.parametrize("body", [PAGE, b"\r\n " + PAGE, b"<?xml version='1.0'?><a/>"])
@pytest.mark.parametrize("status", [200, 404, 405])
def test_a_web_page_means_that_there_is_no_such_route(status: int, body: bytes) -> None:
    error = refused(status, body, {"Content-Type": "text/html"})
    assert type(error) is NoSuchRouteError
    assert str(error).endswith("; check the path of the base URL")


@pytest.mark.parametrize("method", ["POST /v1/luma/tasks", "GET /v1/luma/generations/a"])
def test_an_invalid_url_means_that_there_is_no_such_route(method: str) -> None:
    message = f"Invalid URL ({method})"
    error = refused(404, {"error": {"message": message, "code": ""}})
    assert type(error) is NoSuchRouteError
    assert message in str(error)
    assert str(error).endswith("; check the path of the base URL")


@pytest.mark.parametrize("header", ["Location", "location", "LOCATION"])
@pytest.mark.parametrize("status", [300, 301, 302, 307, 308])
def test_a_redirect_names_its_target(status: int, header: str) -> None:
    error = refused(status, PAGE, {header: "https://www.relay.example/luma/tasks"})
    assert type(error) is NoSuchRouteError
    assert f"status {status}" in str(error)
    assert str(error).endswith("the base URL that it names: https://www.relay.example/luma/tasks")


def test_a_long_target_is_cut() -> None:
    assert len(str(refused(302, b"", {"Location": "https://www.relay.example/" * 1000}))) < 300


def test_a_redirect_to_nowhere_says_so() -> None:
    assert str(refused(304)).endswith("nowhere")


# Errors by meaning.


@pytest.mark.parametrize("body", [b"", b'{"detail": "it went wrong"}', b"it went wrong"])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (100, RelayError),
        (400, BadRequestError),
        (401, AuthenticationError),
        (402, QuotaError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (405, BadRequestError),
        (408, RelayError),
        (409, BadRequestError),
        (413, BadRequestError),
        (418, BadRequestError),
        (422, BadRequestError),
        (425, RelayError),
        (429, RateLimitedError),
        (499, BadRequestError),
        (500, RelayError),
        (501, RelayError),
        (502, RelayError),
        (503, RelayError),
        (504, RelayError),
        (520, RelayError),
        (527, RelayError),
        (599, RelayError),
    ],
)
def test_an_error_without_a_meaning_of_its_own_means_its_status(
    status: int, kind: type[APIError], body: bytes
) -> None:
    error = api_error(status, body)
    assert type(error) is kind
    assert (error.status, error.code) == (status, None)
    assert error.message == ("it went wrong" if body else "")


@pytest.mark.parametrize("status", [500, 502, 503, 504, 524])
def test_the_page_of_a_gateway_is_trouble_for_now(status: int) -> None:
    assert type(api_error(status, PAGE)) is RelayError


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, {"error": {"message": "无效的令牌"}}, AuthenticationError),
        (401, {"error": {"message": "该令牌额度已用尽", "code": ""}}, QuotaError),
        (403, {"code": "quota_not_enough", "message": "not enough", "data": None}, QuotaError),
        (403, {"error": {"message": "该令牌无权访问模型 luma"}}, PermissionDeniedError),
        (403, {"message": "insufficient permissions"}, PermissionDeniedError),
        (403, {"message": "Insufficient credits"}, QuotaError),
        (402, {"message": "账户余额不足"}, QuotaError),
        (429, {"message": "insufficient quota"}, RateLimitedError),
        (400, {"code": "task_not_exist", "message": "task_not_exist"}, NotFoundError),
        (404, {"code": "task_not_exist", "message": "task_not_exist"}, NotFoundError),
        (404, {"detail": "Generation not found"}, NotFoundError),
        (500, {"detail": {"reason": "upstream closed", "code": 1}}, RelayError),
        (503, {"error": {"message": "无可用渠道"}}, RelayError),
    ],
)
def test_an_error_means_what_it_says(status: int, body: object, kind: type[APIError]) -> None:
    assert type(api_error(status, body)) is kind


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"code": "fail_to_fetch_task", "message": "upstream timeout", "data": None}, RelayError),
        ({"success": False, "message": "未登录且未提供 access token"}, AuthenticationError),
        ({"code": "task_not_exist", "message": "", "data": None}, NotFoundError),
        ({"error": {"message": "user quota is not enough"}}, QuotaError),
        ({"error": "boom"}, RelayError),
        ({"code": 500, "data": [row()]}, RelayError),
    ],
)
def test_an_error_may_come_under_200(body: object, kind: type[APIError]) -> None:
    error = api_error(200, body)
    assert type(error) is kind
    assert error.status == 200


@pytest.mark.parametrize("error", [None, "", {}, False])
def test_an_empty_error_is_no_error(error: object) -> None:
    assert answer({"error": error, "data": [row()]}).states == {"a": State.COMPLETED}


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "it broke", "type": "new_api_error"}},
        {"message": "it broke"},
        {"detail": "it broke"},
        {"detail": {"reason": "it broke"}},
        {"error": "it broke"},
        {"error": {"code": ""}, "message": "it broke"},
        {"title": "it broke"},
        b"it broke",
        b"\xef\xbb\xbfit broke\r\n",
        b'{"detail": "it broke"}{"detail": "and again"}',
    ],
)
def test_the_message_is_found_where_relays_put_it(body: object) -> None:
    assert api_error(500, body).message == "it broke"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"code": "bad", "message": "m"}, "bad"),
        ({"error": {"code": "bad", "message": "m"}}, "bad"),
        ({"code": "outer", "error": {"code": "inner"}}, "inner"),
        ({"code": "outer", "error": {"code": ""}}, "outer"),
        ({"detail": {"code": 1, "reason": "r"}}, "1"),
        ({"code": ""}, None),
        ({"message": "m"}, None),
        ([], None),
        (b"text", None),
    ],
)
def test_the_code_is_the_relays_own_word(body: object, code: str | None) -> None:
    assert api_error(500, body).code == code


def test_a_message_is_cut_to_one_line() -> None:
    message = api_error(500, {"message": "first\r\n\tsecond\n" + "x" * 10_000}).message
    assert message.startswith("first second xxx")
    assert message.endswith("x…")
    assert len(message) == 201


def test_a_page_is_cut_to_one_line() -> None:
    error = refused(200, PAGE + b"\n\nx" * 10_000)
    assert len(str(error).splitlines()) == 1
    assert len(str(error)) < 300


def test_the_request_id_is_kept_apart_from_the_message() -> None:
    error = api_error(401, {"error": {"message": "no good (request id: 2024-140) at all"}})
    assert (error.message, error.request_id) == ("no good at all", "2024-140")
    assert str(error) == "status 401: no good at all (request id: 2024-140)"


def test_the_request_id_survives_a_long_message() -> None:
    error = api_error(500, {"message": "x" * 5000 + " (request id: 77)"})
    assert error.request_id == "77"


@pytest.mark.parametrize("header", ["X-Request-Id", "x-request-id", "X-Oneapi-Request-Id"])
def test_the_request_id_may_be_a_header(header: str) -> None:
    assert api_error(500, b"", {header: "77"}).request_id == "77"


def test_the_request_id_of_the_message_comes_before_the_header() -> None:
    error = api_error(500, {"message": "m (request id: 1)"}, {"X-Request-Id": "2"})
    assert error.request_id == "1"


def test_code_and_request_id_and_target_are_cut_to_one_line_too() -> None:
    error = api_error(400, {"code": "a\nb", "message": "boom (request id: x\ny) \ud800"})
    assert str(error) == "status 400: a b: boom ? (request id: x y)"
    assert len(str(api_error(400, b"", {"x-request-id": "x" * 5000}))) < 300
    assert "\n" not in str(refused(302, b"", {"location": "x\n y"}))


def test_an_error_without_a_request_id_has_none() -> None:
    assert api_error(500).request_id is None


# How long to keep away.

NOW = "Sun, 22 Dec 2024 13:38:40 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": " 7 "}, 7.0),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After-Ms": "1500"}, 1.5),
        ({"Retry-After-Ms": "1500", "Retry-After": "2"}, 1.5),
        ({"Retry-After-Ms": "soon", "Retry-After": "2"}, 2.0),
        ({"Retry-After": "Sun, 22 Dec 2024 13:39:40 GMT", "Date": NOW}, 60.0),
        ({"Retry-After": "Sun, 22 Dec 2024 13:38:00 GMT", "Date": NOW}, 0.0),
        ({"Retry-After": "Sun, 22 Dec 2024 13:39:40 GMT"}, None),
        ({"Retry-After": "Sun, 22 Dec 2024 13:39:40 GMT", "Date": "today"}, None),
        ({"Retry-After": "Sun, 22 Dec 2024 13:39:40 -0000", "Date": NOW}, None),
        ({}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "-5", "Date": NOW}, None),
        ({"Retry-After-Ms": "-5"}, None),
        ({"Retry-After": "soon", "Date": NOW}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "1e3"}, None),
        ({"Retry-After": "1.2.3"}, None),
        ({"Retry-After": "1_000"}, None),
        ({"Retry-After": "."}, None),
        ({"Retry-After": "٣"}, None),
        ({"Retry-After": "7, 8"}, None),
        ({"Retry-After": "9" * 400}, None),
        ({"Retry-After": f"Mon, 01 Jan 2024 00:00:00 +{'9' * 17}", "Date": NOW}, None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_a_relay_says_how_long_to_keep_away(
    status: int, headers: dict[str, str], seconds: float | None
) -> None:
    assert api_error(status, b"", headers).retry_after == seconds


# Anything at all.

KEYS = ["id", "task_id", "state", "status", "data", "code", "success", "error", "message"]
FIELDS = ["video", "video_raw", "artifact", "created_at", "url", "width", "palette", "result_url"]
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["a", "completed", "SUCCESS", "Queued", "0001-01-01T00:00:00Z"])
)
plains = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(KEYS + FIELDS), inner, max_size=6)
    ),
    max_leaves=20,
)
texts = st.text(max_size=40)
header_names = (
    st.sampled_from(["Retry-After", "retry-after-ms", "Date", "Location", "Content-Type"]) | texts
)
charsets = ["gbk", "utf-16", "utf-7", "latin-1", "zlib", "undefined", "nonsense", "unicode_escape"]
header_values = (
    texts
    | st.integers(-9, 99).map(str)
    | st.sampled_from([NOW, *(f"application/json; charset={charset}" for charset in charsets)])
)
small_headers = st.dictionaries(header_names, header_values, max_size=4)
statuses = st.just(200) | st.integers(100, 599)
cuts = st.tuples(
    st.integers(0, 3000),
    st.integers(0, 20),
    st.binary(max_size=4) | st.sampled_from([b"null", b'""', b"[", b"}", b",", b"-1e999"]),
)


@st.composite
def battered(draw: st.DrawFn) -> bytes:
    """A published sample with some bytes cut out and others put in."""
    body = draw(st.sampled_from(SAMPLES))
    for start, length, put in draw(st.lists(cuts, min_size=1, max_size=3)):
        body = body[:start] + put + body[start + length :]
    return body


@st.composite
def retold(draw: st.DrawFn) -> bytes:
    """The published task with any values in some of its fields, in any envelope."""
    fields = draw(st.dictionaries(st.sampled_from(KEYS + FIELDS), plains, max_size=4))
    told: object = json.loads(SAMPLES[0]) | fields
    rows = draw(
        st.sampled_from([told, [told], {"task_id": "a", "status": "SUCCESS", "data": told}])
    )
    wrap = draw(st.booleans())
    return json.dumps({"code": "success", "data": rows} if wrap else rows).encode()


bodies = st.binary(max_size=60) | plains.map(lambda plain: json.dumps(plain).encode())


@settings(max_examples=examples(50))
@given(statuses, small_headers, bodies)
@example(200, {}, b'{"id": "a", "state": "completed", "video": {"url": "\xff"}}')
@example(200, {}, b'[{"id": "a", "state": "completed", "created_at": 1e308}]')
@example(200, {}, b'{"id": "a", "state": "completed", "video": ' + b"[" * 900 + b"]" * 900 + b"}")
@example(500, {}, b'{"code": ' + b"[" * 900 + b"]" * 900 + b"}")
@example(500, {}, b'{"code": ' + b"9" * 5000 + b"}")
def test_any_bytes_are_an_answer_or_an_error_of_this_tree(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    check(status, headers, body)


@settings(max_examples=examples(35))
@given(statuses, small_headers, battered())
def test_a_battered_sample_is_an_answer_or_an_error_of_this_tree(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    check(status, headers, body)


@settings(max_examples=examples(35))
@given(retold())
def test_a_retold_sample_is_an_answer_or_an_error_of_this_tree(body: bytes) -> None:
    check(200, {}, body)


@pytest.mark.parametrize(
    "body",
    [
        b"error" + b" " * 2_000_000 + b"x",
        b'{"message":"x' + b" " * 2_000_000 + b'x"}',
        b'{"message":"' + b"(request id: " * 150_000 + b'"}',
        b"[" + b",".join([b"5"] * 1_000_000) + b"]",
        b'{"data":[' + b",".join([b'{"id":5.5}'] * 200_000) + b"]}",
    ],
    ids=["spaces", "spaces in JSON", "request ids", "numbers", "odd rows"],
)
@pytest.mark.parametrize("status", [200, 500])
def test_no_answer_takes_longer_than_its_length_is_worth(status: int, body: bytes) -> None:
    """What is quadratic takes hours here, and one such answer would freeze a whole service."""
    assert isinstance(refused(status, body), LumaError)


def test_a_code_of_spaces_is_none() -> None:
    error = api_error(400, b'{"code": " ", "message": "no (request id: )"}')
    assert (error.code, error.request_id) == (None, None)


def test_a_relay_of_many_odd_words_fills_neither_the_log_nor_the_memory(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "_warned", set[str]())
    for number in range(2000):
        warn_once("odd word %s", f"{number} {'x' * 10_000}")
    assert len(caplog.messages) == states.MAX_WARNINGS
    assert max(map(len, caplog.messages)) < 200


HOUR = {"Date": "Sat, 21 Nov 2026 10:00:00 GMT"}


@pytest.mark.parametrize(
    ("row", "age"),
    [
        ({"id": "a", "state": "pending", "created_at": "2026-11-21T09:59:00Z"}, 60.0),
        ({"id": "a", "state": "pending", "created_at": "2026-11-21T09:59:00Z", "data": {}}, 60.0),
        ({"id": "a", "state": "pending", "created_at": "0001-01-01T00:00:00Z"}, 0.0),
        ({"id": "a", "state": "pending"}, 0.0),
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
def test_an_age_is_told_by_the_relays_own_clocks(row: dict[str, Any], age: float) -> None:
    told = decode_response(200, HOUR, json.dumps([row]).encode())
    assert told.age("a") == age
    assert decode_response(200, {}, json.dumps([row]).encode()).age("a") == 0.0


@pytest.mark.parametrize(
    "row", [{"id": "a", "state": "completed"}, {"task_id": "a", "status": "SUCCESS"}]
)
def test_white_space_before_an_odd_row_costs_nothing(row: dict[str, Any]) -> None:
    told = decode_response(200, {}, b"\n\t " + json.dumps({**row, "data": []}).encode())
    assert told.generation("a").state is State.COMPLETED
    again = told.row("a").generation()
    assert again == told.generation("a")


@pytest.mark.parametrize(
    "body",
    [
        {"status": "error", "message": "upstream timeout", "data": None},
        {"status": "error", "message": "upstream timeout"},
        {"status": "failed", "msg": "busy", "data": []},
        {"status": "success", "message": "upstream timeout", "data": None},
        {"status": 500, "message": "Internal Server Error", "data": None},
        {"msg": "系统繁忙", "data": None},
        {"errors": [{"message": "timeout"}], "data": None},
        {"code": 200, "message": "upstream timeout", "data": None},
        {"success": False, "data": None},
        {"error": "timeout", "data": None},
    ],
    ids=repr,
)
def test_an_error_under_200_is_neither_a_task_nor_none(body: dict[str, Any]) -> None:
    assert isinstance(refused(200, body), RelayError | DecodeError)


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
def test_an_answer_to_the_single_call_without_a_name_is_about_the_id_asked(body: object) -> None:
    response = answer(body).for_task("a")
    assert response.states == {"a": State.COMPLETED}
    assert response.generation("a").url == "https://cdn/v.mp4"
    with pytest.raises(DecodeError):
        answer(body).for_tasks(["a", "b"])
