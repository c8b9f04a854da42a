"""Links, reasons and times in each known place; ids and states in any shape."""

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import permutations
from typing import Any

import pytest

from luma_async import DecodeError, State
from luma_async.protocol.states import STATES, known_state
from luma_async.protocol.task_fields import (
    CREATED_PATHS,
    LINK_PATHS,
    REASON_PATHS,
    find_link,
    find_reason,
    to_moment,
)
from tests.protocol.response_builders import response_of, table_row

LINK = "https://cdn.example/a/v.mp4"
MOMENT = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
LISTS = ("videos", "outputs", "results", "artifacts", "files", "creations", "generations", "works")


def nest(path: str, value: object) -> dict[str, Any]:
    """Return an object with a value at a path; what is plural is a list."""
    first, _, rest = path.partition(".")
    inner = nest(rest, value) if rest else value
    plural = first in LISTS or first.endswith(("urls", "Urls"))
    return {first: [inner] if plural else inner}


envelopes: list[Callable[[dict[str, Any]], object]] = [
    lambda row: row,
    lambda row: [row],
    lambda row: {"data": row},
    lambda row: {"code": 0, "message": "ok", "data": [row]},
    lambda row: {"code": "success", "data": {"task_id": "a", "status": "SUCCESS", "data": row}},
    lambda row: {"data": {"data": {"data": row}}},
]
each_envelope = pytest.mark.parametrize("envelope", envelopes, ids=range(len(envelopes)))


@each_envelope
@pytest.mark.parametrize("path", LINK_PATHS)
def test_a_link_is_found_in_each_place(
    path: str, envelope: Callable[[dict[str, Any]], object]
) -> None:
    row = {"id": "a", "state": "completed", **nest(path, LINK)}
    for response in (
        response_of(envelope(row)).for_task("a"),
        response_of(envelope(row)).for_tasks(["a"]),
    ):
        assert response.states == {"a": State.COMPLETED}
        assert response.generation("a").url == LINK
        assert response.row("a").generation().url == LINK


@pytest.mark.parametrize("path", ["output[].url", "unsigned_urls[]", "somewhere.quite.else"])
def test_a_link_to_a_video_file_is_found_anywhere(path: str) -> None:
    assert find_link([nest(path.replace("[]", ""), LINK)]) == LINK


NESTED: list[Callable[[object], object]] = [lambda one: {"x": one}, lambda one: [one]]


@pytest.mark.parametrize("inside", NESTED)
def test_a_link_is_found_in_eight_levels_and_deeper_ones_are_not_read(
    inside: Callable[[object], object],
) -> None:
    def nested(depth: int) -> dict[str, object]:
        plain: object = LINK
        for _ in range(depth):
            plain = inside(plain)
        return {"y": plain}

    assert find_link([nested(7)]) == LINK
    assert find_link([nested(8)]) is None
    assert find_link([nested(900)]) is None


@pytest.mark.parametrize(
    "path",
    ["thumbnail.url", "cover_url", "request.image_url", "input.video", "last_frame.url",
     "callback_url", "keyframes.frame0.url"],
)  # fmt: skip
def test_inputs_and_pictures_are_not_links_to_the_video(path: str) -> None:
    assert find_link([nest(path, "https://cdn.example/in.mp4")]) is None


def test_a_link_is_taken_from_the_next_outer_object_where_the_inner_one_has_none() -> None:
    assert find_link([{"id": "a"}, {}, {"url": LINK}]) == LINK


def test_the_deepest_link_is_taken() -> None:
    outer = {"task_id": "a", "status": "SUCCESS", "url": "https://relay.example/tasks/a"}
    row = {**outer, "data": {"id": "u", "state": "completed", "video": {"url": LINK}}}
    assert response_of(row).for_task("a").generation("a").url == LINK


@pytest.mark.parametrize("path", REASON_PATHS)
def test_a_reason_is_found_in_each_place(path: str) -> None:
    row = {"id": "a", "state": "failed", **nest(path, "moderated")}
    assert response_of(row).for_task("a").generation("a").failure_reason == "moderated"


def test_what_the_inner_object_lacks_is_taken_from_the_next_outer_one_that_has_it() -> None:
    inner = {"id": "a", "state": "completed", "prompt": "a cat"}
    middle = {"failure_reason": "of the middle", "data": inner}
    outer = {"failure_reason": "of the envelope", "thumbnail": {"url": "link"}, "data": middle}
    task = response_of({"data": outer}).for_task("a").generation("a")
    assert task.failure_reason == "of the middle"
    assert task.thumbnail


def test_the_reason_of_a_row_of_the_table_counts_before_that_of_the_task_in_it() -> None:
    inner = {"id": "a", "state": "failed", "failure_reason": "of the task"}
    for reason, shown in (("of the row", "of the row"), ("", "of the task")):
        row = table_row("FAILURE", data=inner) | {"fail_reason": reason}
        assert response_of([row]).generation("a").failure_reason == shown
        row["created_at"] = 0
        assert response_of([row]).generation("a").failure_reason == shown


def test_a_success_message_is_not_a_reason() -> None:
    assert find_reason([{"message": "success", "msg": "OK", "reason": " "}]) is None


@pytest.mark.parametrize("path", CREATED_PATHS)
@pytest.mark.parametrize(
    "value",
    [MOMENT.isoformat(), MOMENT.timestamp(), MOMENT.timestamp() * 1e3, MOMENT.timestamp() * 1e6,
     str(int(MOMENT.timestamp()))],
)  # fmt: skip
def test_a_time_of_creation_is_found_in_each_place_and_unit(path: str, value: object) -> None:
    row = {"id": "a", "state": "processing", **nest(path, value)}
    response = response_of(row).for_task("a")
    assert response.generation("a").created_at == MOMENT
    response.sent = "Fri, 27 Nov 2026 12:01:00 GMT"
    assert response.age("a") == 60.0


@pytest.mark.parametrize(
    "value", [0, -1, "", "soon", None, True, 1e20, 1e30, "0001-01-01T00:00:00Z"]
)
def test_an_invalid_time_is_none(value: object) -> None:
    assert to_moment(value) is None


def test_the_first_second_and_the_second_year_are_times() -> None:
    assert to_moment(1) == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert to_moment("0002-01-01T00:00:00Z") == datetime(2, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("word", STATES)
@pytest.mark.parametrize("change", [str.upper, str.title, " {} ".format, "\t{}\n".format])
def test_blanks_and_case_of_a_state_word_are_ignored(
    word: str, change: Callable[[str], str]
) -> None:
    assert known_state(change(word)) is STATES[word]
    assert response_of({"id": "a", "state": change(word)}).for_task("a").states == {
        "a": STATES[word]
    }


@pytest.mark.parametrize("word", ["ok", "200", "", "half done", "superseded"])
@pytest.mark.parametrize("state", ["completed", "failed", "processing"])
def test_the_known_one_of_two_state_words_is_used(word: str, state: str) -> None:
    row = {"id": "a", "status": word, "state": state}
    assert response_of(row).for_task("a").states == {"a": State(state)}
    assert response_of([row]).for_tasks(["a"]).states == {"a": State(state)}


ROWS = ("completed", "failed", "processing", "pending")


@pytest.mark.parametrize("pair", list(permutations(ROWS, 2)), ids="-".join)
@pytest.mark.parametrize("wrapped", [False, True])
def test_the_more_advanced_one_of_two_rows_of_a_task_is_used(
    pair: tuple[str, str], wrapped: bool
) -> None:
    rows: list[dict[str, Any]] = [{"id": "a", "state": one} for one in pair]
    if wrapped:
        rows = [{"task_id": "a", "status": one["state"].upper(), "data": one} for one in rows]
    response = response_of(rows).for_tasks(["a"])
    best = min(pair, key=ROWS.index)
    assert response.states == {"a": State(best)}
    assert response.generation("a").state is State(best)


class TestIds:
    @pytest.mark.parametrize("name", ["ABC-1", "abc-1", "aBc-1"])
    def test_an_id_in_another_case_matches_if_it_matches_one_open_id(self, name: str) -> None:
        row = {"id": name, "state": "completed", "video": {"url": LINK}}
        for response in (
            response_of(row).for_task("Abc-1"),
            response_of([row]).for_tasks(["Abc-1", "d"]),
        ):
            assert response.states == {"Abc-1": State.COMPLETED}
            assert response.generation("Abc-1").id == "Abc-1"

    def test_an_id_that_matches_two_open_ids_matches_none(self) -> None:
        row = {"id": "abc", "state": "completed"}
        assert response_of([row]).for_tasks(["ABC", "Abc"]).states == {}
        with pytest.raises(DecodeError):
            response_of(row).for_task("ABC", lambda _: ["ABC", "Abc"])
        assert (
            response_of([row, row]).for_tasks(["ABC", "d"], lambda _: ["ABC", "aBC"]).states == {}
        )

    def test_an_exact_id_is_preferred(self) -> None:
        rows = [{"id": "abc", "state": "failed"}, {"id": "ABC", "state": "completed"}]
        assert response_of(rows).for_tasks(["ABC"]).states == {"ABC": State.COMPLETED}

    @pytest.mark.parametrize(
        "plain",
        [
            {"data": {"id": "other-1", "state": "completed", "video": {"url": LINK}}},
            {"data": [{"id": "other-1", "state": "completed"}], "total": 200, "page": 1},
            {"data": [{"id": "other-1", "state": "completed"}], "code": "success"},
            {"data": [{"task_id": "other-1", "status": "SUCCESS"}]},
            [{"task_id": "other-1", "status": "SUCCESS", "data": {"id": "x", "state": "failed"}}],
            [{"id": "other-1", "state": "completed"}, {"id": "other-2", "state": "completed"}],
            {"id": "other-1", "state": "completed"},
        ],
        ids=repr,
    )
    def test_a_response_about_another_task_is_not_used(self, plain: object) -> None:
        with pytest.raises(DecodeError, match="asked about a-1, the relay answers about other"):
            response_of(plain).for_task("a-1")
        try:
            states = response_of(plain).for_tasks(["a-1", "a-2"]).states
        except DecodeError:
            states = {}
        assert states == {}

    def test_a_list_of_videos_is_not_a_list_of_open_tasks(self) -> None:
        plain = {"data": [{"id": "v1", "state": "completed"}, {"id": "b", "state": "completed"}]}
        assert response_of(plain).for_task("a").states == {"a": State.COMPLETED}
        with pytest.raises(DecodeError):
            response_of(plain).for_task("a", lambda name: [name] if name == "b" else [])

    def test_rows_are_preferred_to_the_id_of_their_envelope(self) -> None:
        rows = [{"id": "a", "state": "completed"}]
        plain = {"id": "req-1", "status": "success", "data": rows}
        assert response_of(plain).for_tasks(["a"]).states == {"a": State.COMPLETED}
        assert response_of(plain).for_task("a").states == {"a": State.COMPLETED}


def test_an_unknown_state_is_reported_in_unknown_states() -> None:
    response = response_of([{"id": "a", "state": "polishing"}, {"id": "b", "state": "completed"}])
    assert response.unknown_states == {"a"}
    assert response.states == {"a": State.PROCESSING, "b": State.COMPLETED}
