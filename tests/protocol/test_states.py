"""The words for the state of a task, and the warnings about unknown ones."""

import logging
from typing import Any
from uuid import uuid4

import pytest

from luma_async import State
from luma_async.protocol import states
from luma_async.protocol.states import warn_once
from tests.protocol.response_builders import response_of, table_row, wrapped

STATE_WORDS = {
    State.PENDING: ["pending", "queued", "submitted", "not_start"],
    State.PROCESSING: ["processing", "in_progress", "dreaming", "running"],
    State.COMPLETED: ["completed", "success", "succeeded"],
    State.FAILED: ["failed", "failure", "error", "canceled", "cancelled", "expired"],
}
WORDS = [(word, state) for state, words in STATE_WORDS.items() for word in words]


@pytest.mark.parametrize("bend", [str.lower, str.upper, str.title], ids=["lower", "upper", "title"])
@pytest.mark.parametrize(("word", "state"), WORDS)
def test_each_state_word_is_known_in_any_case(
    word: str, state: State, bend: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert response_of({"id": "a", "state": bend(word)}).states == {"a": state}
    assert response_of([{"id": "a", "state": bend(word)}]).states == {"a": state}
    assert wrapped([table_row(bend(word))]).states == {"a": state}
    assert not caplog.records


def test_unknown_means_processing_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert wrapped([table_row("UNKNOWN")]).states == {"a": State.PROCESSING}
    assert not caplog.records


def test_an_unrecognized_state_means_processing_and_is_warned_about_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second = f"word-{uuid4()}", f"word-{uuid4()}"
    for word in (first, second, first, second, first):
        rows = [{"id": "a", "state": word}, {"id": "b", "state": word}]
        assert response_of(rows).states == dict.fromkeys("ab", State.PROCESSING)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert {record.name for record in caplog.records} == {"luma_async"}
    assert first in caplog.messages[0]
    assert second in caplog.messages[1]


def test_an_unrecognized_state_of_a_task_without_an_id_is_warned_about(
    caplog: pytest.LogCaptureFixture,
) -> None:
    word = f"word-{uuid4()}"
    response = response_of({"state": word}).for_task("a")
    assert response.unknown_states == {"a"}
    assert response.generation("a").state is State.PROCESSING
    assert caplog.messages == [f"unknown state {word!r} is taken as still running"]


def test_a_long_state_word_is_cut_in_the_warning(caplog: pytest.LogCaptureFixture) -> None:
    response_of([{"id": "a", "state": f"{uuid4()}" * 1000}])
    (message,) = caplog.messages
    assert len(message) < 200


def test_the_number_and_the_length_of_warnings_are_limited(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "_warned", set[str]())
    for number in range(2000):
        warn_once("odd word %s", f"{number} {'x' * 10_000}")
    assert len(caplog.messages) == states.MAX_WARNINGS
    assert max(map(len, caplog.messages)) < 200


def test_the_warning_names_the_first_word_that_is_not_blank(
    caplog: pytest.LogCaptureFixture,
) -> None:
    row = {"id": "a", "state": " ", "status": "simmering"}
    assert response_of([row]).states == {"a": State.PROCESSING}
    assert caplog.messages == ["unknown state 'simmering' is taken as still running"]


@pytest.mark.parametrize(
    "word", ["TASK_STATUS_SUCCESS", "task_success", "generation_state_completed", "video_completed"]
)
def test_a_word_with_the_prefix_of_an_enumeration_is_known(word: str) -> None:
    assert states.known_state(word) is State.COMPLETED
