"""One row of a response: its id, its state, and the fields of the task."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from luma_async import Request, State
from luma_async.protocol.decoding import decode_response
from tests.protocol.response_builders import NOW, response_of, table_row, task, wrapped


def test_the_id_of_a_row_is_its_task_id_not_its_number() -> None:
    inner = {"id": "a", "state": "completed", "video": {"url": "link"}}
    response = wrapped([table_row(data=inner)])
    assert response.states == {"a": State.COMPLETED}
    generation = response.generation("a")
    assert (generation.id, generation.url) == ("a", "link")
    assert generation.raw == table_row(data=inner), "the row itself, its number included"


@pytest.mark.parametrize("outer", [{"status": "SUCCESS"}, {}])
def test_a_row_without_a_task_id_has_the_id_of_the_object_inside(outer: dict[str, str]) -> None:
    inner = {"id": "a", "state": "completed", "video": {"url": "link"}}
    rows = [{"id": 13917, **outer, "data": inner}]
    for response in (wrapped(rows), wrapped(rows[0]), response_of(rows), response_of(rows[0])):
        assert response.states == {"a": State.COMPLETED}
        assert response.generation("a").url == "link"


@pytest.mark.parametrize("data", [{}, {"data": None}, {"data": [{"id": "b"}]}])
def test_a_row_without_an_object_inside_is_decoded_itself(data: dict[str, Any]) -> None:
    generation = wrapped([table_row(video={"url": "link"}, **data)]).generation("a")
    assert (generation.id, generation.url) == ("a", "link")


def test_a_row_with_data_that_is_not_an_object_is_decoded() -> None:
    rows = [table_row("SUCCESS", data=data, result_url="link") for data in ("text", [1], 7, True)]
    for response in map(wrapped, [*rows, *([one] for one in rows)]):
        assert response.states == {"a": State.COMPLETED}
        assert response.generation("a").url == "link"


@pytest.mark.parametrize(
    "row", [{"id": "a", "state": "completed"}, {"task_id": "a", "status": "SUCCESS"}]
)
def test_white_space_before_a_row_with_unusual_data_is_ignored(row: dict[str, Any]) -> None:
    response = decode_response(200, {}, b"\n\t " + json.dumps({**row, "data": []}).encode())
    assert response.generation("a").state is State.COMPLETED
    again = response.row("a").generation()
    assert again == response.generation("a")


def test_a_final_status_of_the_row_wins_over_the_state_inside() -> None:
    inner = {"id": "a", "state": "processing"}
    response = wrapped([table_row("FAILURE", fail_reason="timed out", data=inner)])
    assert response.states == {"a": State.FAILED}
    assert response.generation("a").state is State.FAILED
    assert response.generation("a").failure_reason == "timed out"


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
        ("IN_PROGRESS", "Completed", State.COMPLETED),
        ("", "queued", State.PENDING),
        ("", "", State.PROCESSING),
    ],
)
def test_a_final_state_wins_and_the_row_comes_before_the_object_inside(
    outer: str, inner: str, state: State
) -> None:
    one = table_row(outer, data={"id": "a", "state": inner})
    for response in (wrapped([one]), wrapped(one), response_of([one]), response_of(one)):
        assert response.states == {"a": state}
        assert response.generation("a").state is state


def test_a_final_state_wins_if_a_bare_task_has_another_object_inside() -> None:
    row = {"id": "a", "state": "processing", "data": {"id": "a", "state": "completed"}}
    for response in (response_of([row]), response_of(row)):
        assert response.states == {"a": State.COMPLETED}
        assert response.generation("a").state is State.COMPLETED


def test_the_status_of_a_row_wins_over_its_state() -> None:
    assert response_of([table_row("FAILURE", state="processing")]).states == {"a": State.FAILED}


@pytest.mark.parametrize(
    ("outer", "inner", "url"), [("outer", "inner", "outer"), ("", "inner", "inner")]
)
def test_the_link_may_be_in_the_row_or_in_the_object_inside(
    outer: str, inner: str, url: str
) -> None:
    response = wrapped([table_row(result_url=outer, data={"id": "a", "result_url": inner})])
    assert response.generation("a").url == url


def test_the_reason_of_a_completed_row_is_ignored() -> None:
    """Relays put the link of the result there."""
    response = wrapped([table_row(fail_reason="https://cdn.example/a.mp4", data={"id": "a"})])
    assert response.generation("a").failure_reason is None


def test_a_link_in_the_reason_of_a_completed_row_is_used_after_those_of_the_table_and_luma() -> (
    None
):
    reason = "https://cdn.example/reason.mp4"
    assert wrapped([table_row(fail_reason=reason)]).generation("a").url == reason
    better = table_row(fail_reason=reason, data={"assets": {"video": "link"}})
    assert wrapped([better]).generation("a").url == "link"
    assert wrapped([table_row(fail_reason=reason, result_url="row")]).generation("a").url == "row"
    page = table_row(fail_reason=reason, data={"url": "https://relay.example/tasks/a"})
    assert wrapped([page]).generation("a").url == reason, "other places may have another link"
    assert wrapped([table_row(fail_reason="none")]).generation("a").url is None
    assert wrapped([table_row("FAILURE", fail_reason=reason)]).generation("a").url is None


@pytest.mark.parametrize("status", ["SUCCESS", "Success"])
def test_a_link_of_a_completed_row_is_found_under_another_name(status: str) -> None:
    link = "https://cdn.example/a.mp4"
    row = table_row(status, videoUrl=link, data={"id": "a"})
    assert wrapped([row]).generation("a").url == link
    for reason in (link, "https://cdn.example/a?sign=b"):
        row = table_row(status) | {"fail_reason": reason}
        assert wrapped([row]).generation("a").url == reason


def test_only_a_completed_row_is_searched_for_links_under_other_names() -> None:
    row = {"id": "a", "state": "processing", "videoUrl": "https://cdn.example/a.mp4"}
    assert response_of([row]).generation("a").url is None


def test_the_reason_of_a_bare_task_is_its_own_before_that_of_a_table() -> None:
    row = {"id": "a", "state": "FAILED", "fail_reason": "second", "failure_reason": "first"}
    assert response_of([row]).generation("a").failure_reason == "first"


@pytest.mark.parametrize("field", ["fail_reason", "result_url"])
def test_a_wrong_type_in_a_row_does_not_lose_the_task(field: str) -> None:
    inner = {"id": "a", "state": "completed", "video": {"url": "link"}}
    response = wrapped([table_row("SUCCESS", data=inner, **{field: 5})])
    assert response.generation("a").url == "link"


def test_only_fields_of_a_wrong_type_are_left_out() -> None:
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
def test_a_field_of_a_wrong_type_is_none_and_stays_in_raw(field: str, value: object) -> None:
    one = task(result_url="kept", **{field: value})
    assert getattr(one, field) is None
    assert one.url == "kept"
    assert one.raw[field] == value


@pytest.mark.parametrize("field", ["artifact", "request", "assets"])
def test_a_link_instead_of_an_object_that_has_none_is_none(field: str) -> None:
    one = task(result_url="kept", thumbnail=7, **{field: "https://cdn.example/a.png"})
    assert getattr(one, field) is None
    assert one.url == "kept"


def test_a_wrong_type_inside_a_field_does_not_affect_the_link() -> None:
    one = task(video={"url": "link", "width": "wide"}, artifact={"video": {"height": []}})
    assert one.url == "link"
    assert one.video
    assert one.video.width is None


@pytest.mark.parametrize("beside", [{}, {"thumbnail": "of a wrong type"}])
def test_a_number_sent_as_text_is_a_number(beside: dict[str, object]) -> None:
    video = task(video={"url": "link", "width": "1360"}, **beside).video
    assert video
    assert video.width == 1360


def test_a_number_sent_as_text_is_a_number_beside_a_field_of_a_wrong_type() -> None:
    video = task(video={"url": "link", "width": "1360", "height": []}).video
    assert video
    assert (video.width, video.height) == (1360, None)


def test_a_link_instead_of_an_object_becomes_the_link_of_the_object() -> None:
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


def test_the_prompt_is_in_the_request_wherever_it_was_sent() -> None:
    assert task(prompt="cat").request == Request(prompt="cat")
    assert task(prompt="").request is None
    assert task(prompt="cat", request={"prompt": "dog"}).request == Request(prompt="dog")
    assert task(prompt="cat", thumbnail="").request == Request(prompt="cat")


CREATED_AT = datetime(2024, 12, 22, 13, 38, 40, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2024-12-22T13:38:40Z", CREATED_AT),
        ("2024-12-22T13:38:40.139Z", CREATED_AT.replace(microsecond=139_000)),
        ("2024-12-22T13:38:40.139409Z", CREATED_AT.replace(microsecond=139_409)),
        ("2024-12-22T21:38:40+08:00", CREATED_AT),
        ("2024-12-22T13:38:40", CREATED_AT),
        ("2024-12-22 13:38:40", CREATED_AT),
        (1734874720, CREATED_AT),
        ("1734874720", CREATED_AT),
        (1734874720.0, CREATED_AT),
        ("0001-01-01T00:00:00Z", None),
        ("1970-01-01T00:00:00Z", None),
        ("1970-01-02T00:00:00Z", datetime(1970, 1, 2, tzinfo=UTC)),
        (0, None),
        ("", None),
        (10**30, None),
        (True, None),
    ],
)
def test_created_at_has_a_time_zone_or_is_none(value: object, moment: datetime | None) -> None:
    assert task(created_at=value).created_at == moment
    inner = {"id": "a", "state": "completed", "created_at": value}
    assert wrapped([table_row(data=inner)]).generation("a").created_at == moment
    artifact = task(artifact={"created_at": value}).artifact
    assert artifact
    assert artifact.created_at == moment


def test_created_at_is_taken_from_the_row_if_the_object_inside_has_none() -> None:
    inner = {"id": "a", "created_at": "0001-01-01T00:00:00Z"}
    for beside in ({"created_at": 1734874720}, {"created_at": 0, "submit_time": 1734874720}):
        response = wrapped([table_row(data=inner) | beside])
        assert response.generation("a").created_at == CREATED_AT


@pytest.mark.parametrize("status", ["SUCCESS", "Success"])
@pytest.mark.parametrize(
    ("inner", "outer"),
    [("created_at", "created_at"), ("created_at", "submit_time"), ("createTime", "created_at")],
)
def test_a_time_under_its_own_name_counts_first_then_that_of_the_object_inside(
    status: str, inner: str, outer: str
) -> None:
    row = table_row(status, data={"id": "a", inner: 1734874720}) | {outer: 1734874000}
    first = CREATED_AT if inner == "created_at" else datetime.fromtimestamp(1734874000, UTC)
    response = decode_response(200, {"Date": NOW}, json.dumps([row]).encode())
    assert response.generation("a").created_at == first
    assert response.age("a") == (CREATED_AT - first).total_seconds()
