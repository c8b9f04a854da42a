"""Tasks in envelopes: which object is the task, and which one is around it."""

from typing import Any

import pytest

from luma_async import State
from luma_async.protocol.sightings import sightings
from tests.protocol.response_builders import response_of

LINK = "https://cdn.example/a.mp4"


def seen(plain: object, task_id: str = "a") -> tuple[State, object]:
    """Return the state and the object of a task, which the single GET and the batch POST show."""
    alone = response_of(plain).for_task(task_id)
    among = response_of(plain).for_tasks([task_id, "another"])
    assert alone.states == among.states
    one = alone.generation(task_id)
    assert one.state is alone.states[task_id], "the task that is built, and the state of the poll"
    assert one == among.generation(task_id) == alone.row(task_id).generation()
    return one.state, one.raw


@pytest.mark.parametrize("own", [{"id": "req-1"}, {"id": True}, {"id": {}}, {}], ids=str)
@pytest.mark.parametrize("between", [0, 1, 2])
def test_the_status_of_an_envelope_is_not_that_of_the_task_in_it(
    own: dict[str, object], between: int
) -> None:
    task: dict[str, object] = {"id": "a", "state": "processing"}
    plain: dict[str, object] = task
    for _ in range(between):
        plain = {"data": plain}
    assert seen({**own, "status": "success", "data": plain}) == (State.PROCESSING, task)


@pytest.mark.parametrize("key", ["data", "result", "task", "output"])
@pytest.mark.parametrize("name", ["id", "generation_id"])
@pytest.mark.parametrize("word", ["success", "done", "failed"])
def test_the_status_of_an_envelope_that_repeats_the_id_is_not_that_of_the_task(
    key: str, name: str, word: str
) -> None:
    """The request succeeded; the task runs, and its link comes later."""
    for state in State:
        plain = {"id": "a", "status": word, key: {name: "a", "state": state}}
        assert seen(plain) == seen({"code": 0, "data": plain}) == (state, plain)


def test_the_status_of_an_envelope_is_that_of_a_task_which_says_none() -> None:
    for inner in ({"id": "a"}, {"task": {"id": "a", "state": " "}}):
        plain = {"id": "req-1", "status": "SUCCESS", "data": inner}
        assert seen(plain) == (State.COMPLETED, plain)


ROWS: list[dict[str, Any]] = [
    {"id": 13917, "status": "FAILURE", "data": {"id": "a", "state": "processing"}},
    {"task_id": "a", "status": "Failure", "data": {"id": "u", "state": "processing"}},
    {"taskId": "a", "status": "failed", "data": {"id": "u", "state": "processing"}},
    {"task_id": "r", "status": "Failure", "data": {"id": "a", "state": "processing"}},
    {"task_id": "r", "id": "a", "status": "failed", "data": {"id": "a", "state": "processing"}},
    {"id": "a", "status": "failed", "result": {"id": "u", "state": "completed"}},
    {"id": "A", "status": "failed", "result": {"state": "completed"}},
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_final_status_of_the_row_around_a_task_is_that_of_the_task(row: dict[str, Any]) -> None:
    assert seen(row) == seen({"code": 0, "data": row}) == (State.FAILED, row)


def test_the_state_of_a_task_comes_before_its_status_which_may_be_of_the_request() -> None:
    row = {"id": "a", "state": "processing", "status": "success"}
    assert seen(row) == seen({"data": row}) == seen({"data": [row]}) == (State.PROCESSING, row)


def test_the_id_that_was_asked_about_is_that_of_the_task_whichever_object_has_it() -> None:
    row = {"task_id": "row-1", "status": "success", "result": {"id": "a", "state": "completed"}}
    for name in ("row-1", "a"):
        assert seen(row, name) == (State.COMPLETED, row)


@pytest.mark.parametrize(
    "plain",
    [
        {"id": "a", "state": "completed", "data": [{"id": "v-1", "state": "failed"}]},
        {"id": "a", "state": "completed", "data": [{"size": 1}, {"size": 2}]},
        {"task_id": "a", "status": "SUCCESS", "data": [{"id": "v-1", "state": "failed"}]},
    ],
    ids=str,
)
def test_a_task_with_a_list_of_its_own_is_not_an_envelope_of_tasks(plain: object) -> None:
    assert seen(plain) == (State.COMPLETED, plain)


TASK = {"id": "a", "state": "completed"}
BESIDE_OTHERS: list[dict[str, Any]] = [
    {"result": {"took": 1}, "task": TASK},
    {"result": {"took": [1, {}]}, "response": {"data": {"took": 1}}, "task": TASK},
    {"data": {"items": [None, 7, {}, [], TASK]}},
    {"data": {"items": [{"took": 1}, TASK]}},
    {"data": [{"took": 1}, TASK, {"data": {"took": 1}}]},
    {"data": [{"result": {"task": TASK}}]},
]


@pytest.mark.parametrize("plain", BESIDE_OTHERS, ids=str)
def test_what_holds_no_task_is_passed_over(plain: object) -> None:
    assert seen(plain) == (State.COMPLETED, TASK)


def test_an_object_that_has_only_an_id_is_a_task() -> None:
    for name in ("task_id", "taskId", "generation_id", "generationId", "id"):
        assert seen({"data": {"result": {name: "a"}}})[0] is State.PROCESSING


def nested(levels: int, inner: object) -> object:
    """Return something in as many envelopes."""
    for _ in range(levels):
        inner = {"data": inner}
    return inner


def test_a_task_is_found_in_eight_envelopes_and_none_in_more() -> None:
    for depth in range(9):
        (found,) = sightings(nested(depth, TASK))
        assert (found.names, len(found.levels)) == (("a",), depth + 1)
    (found,) = sightings(nested(8, {**TASK, "data": TASK}))
    assert len(found.levels) == 9, "the envelopes and the task, not what is in it"
    for depth in (9, 10, 5000):
        (found,) = sightings(nested(depth, TASK))
        assert (found.names, found.is_task) == ((), False)


@pytest.mark.parametrize("above", [0, 3])
def test_a_list_counts_as_an_envelope(above: int) -> None:
    for below in range(9 - above):
        plain = nested(above, {"data": [nested(below, TASK)]})
        names = [one.names for one in sightings(plain)]
        assert names == ([("a",)] if above + 1 + below <= 8 else [()]), below


def test_a_task_below_eight_envelopes_does_not_replace_the_one_around_it() -> None:
    other = {"id": "b", "state": "failed"}
    (found,) = sightings({**TASK, "data": [nested(8, other)]})
    assert (found.names, len(found.levels)) == (("a",), 1)
    (found,) = sightings({"data": [{**TASK, "data": nested(7, other)}]})
    assert (found.names, len(found.levels)) == (("a",), 1)
    (found,) = sightings({"data": [{**TASK, "data": nested(6, other)}]})
    assert (found.names, len(found.levels)) == (("a", "b"), 8)
