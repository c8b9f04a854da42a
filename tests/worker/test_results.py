"""Subject tokens of ids, and results as JSON."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luma_async.protocol.rows import RowText
from luma_async.structs import Generation, State, Video
from luma_async.worker.storage.results import (
    MAX_TOKEN_LENGTH,
    EndState,
    decode_result,
    encode_result,
    make_end,
    state_of,
    subject_token,
    submitted_id,
)
from luma_async.worker.storage.submissions import Submission
from tests.fake_answers import generation

FIRST = Submission(3, 1_790_000_000_000_000)
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
utf8 = st.text(st.characters(codec="utf-8"), min_size=1, max_size=400)


def test_an_id_of_two_hundred_characters_is_its_own_token_and_a_longer_one_is_hashed() -> None:
    assert subject_token("x" * 200) == "x" * 200
    assert subject_token("x" * 201).startswith("~")


@given(utf8)
def test_any_id_becomes_one_subject_token(task_id: str) -> None:
    token = subject_token(task_id)
    assert token
    assert len(token) <= MAX_TOKEN_LENGTH
    assert token.isascii()
    assert not set(token) & set(" .*>\t\r\n")


@given(utf8, utf8)
def test_different_ids_have_different_tokens(one: str, other: str) -> None:
    assert (subject_token(one) == subject_token(other)) == (one == other)


@given(utf8)
def test_an_id_is_read_from_its_payload_and_a_short_one_from_its_subject(task_id: str) -> None:
    subject = f"luma.wait.{subject_token(task_id)}"
    assert submitted_id(subject, task_id.encode()) == task_id
    if not subject_token(task_id).startswith("~"):
        assert submitted_id(subject, b"") == task_id


def test_a_hashed_token_is_not_an_id() -> None:
    token = subject_token("x" * 300)
    assert token != subject_token(token)
    with pytest.raises(ValueError, match="as the payload"):
        submitted_id(f"luma.wait.{token}", b"")


@pytest.mark.parametrize(("subject", "payload"), [("luma.wait.a", b"\xff"), ("luma.wait.%FF", b"")])
def test_bytes_that_are_not_text_are_not_an_id(subject: str, payload: bytes) -> None:
    with pytest.raises(ValueError, match="utf-8"):
        submitted_id(subject, payload)


def test_a_stored_task_keeps_the_original_object_of_the_relay() -> None:
    row = (
        b'{"id": "a", "state": "completed", "video": {"url": "https://cdn/v.mp4", "width": 8},'
        b' "created_at": "2026-11-21T10:00:00Z", "strange": ["\\u00e9", 1e3]}'
    )
    task = RowText("a", row).generation()
    text, is_complete = encode_result("a", EndState.COMPLETED, task, FIRST, max_bytes=10_000)
    assert is_complete
    assert decode_result(text, "luma.done.a").key == FIRST
    end = make_end(decode_result(text, "luma.done.a"), 7, NOW)
    assert (end.id, end.state, end.sequence, end.told_at) == ("a", EndState.COMPLETED, 7, NOW)
    assert end.generation is not None
    assert end.generation == task
    assert end.generation.raw["strange"] == ["é", 1000.0]
    plain = json.loads(text)
    assert plain["url"] == "https://cdn/v.mp4"
    assert plain["generation"]["video"]["width"] == 8


def test_a_result_without_a_task_is_stored() -> None:
    text, is_complete = encode_result("a", EndState.MISSING, None, FIRST, max_bytes=10_000)
    assert is_complete
    assert decode_result(text, "luma.done.a").generation is None


@pytest.mark.parametrize("max_bytes", [9000, 2000, 10])
def test_a_result_that_is_too_large_keeps_id_state_link_reason_and_time(max_bytes: int) -> None:
    task = Generation(
        id="a", state=State.FAILED, failure_reason="r" * 5000, original="x" * 50_000,
        result_url="https://cdn/v.mp4", prompt="p" * 9000, created_at=NOW,
    )  # fmt: skip
    text, is_complete = encode_result("a", EndState.FAILED, task, FIRST, max_bytes=max_bytes)
    assert not is_complete
    assert len(text) <= max(max_bytes, 200)
    end = decode_result(text, "luma.done.a")
    assert (end.id, end.state, end.key) == ("a", EndState.FAILED, FIRST)
    assert end.generation is not None
    assert end.generation.state is State.FAILED
    if max_bytes > 10:
        assert end.url == end.generation.url == "https://cdn/v.mp4"
        assert end.generation.created_at == NOW
        assert end.generation.failure_reason == "r" * (5000 if max_bytes == 9000 else 1000)


def test_a_character_that_json_cannot_encode_is_replaced() -> None:
    task = Generation(
        id="a", state=State.FAILED, failure_reason="no \ud800", result_url="https://cdn/v.mp4"
    )
    text, is_complete = encode_result("a", EndState.FAILED, task, FIRST, max_bytes=10_000)
    assert not is_complete
    generation = decode_result(text, "luma.done.a").generation
    assert generation is not None
    assert (generation.failure_reason, generation.url) == ("no ?", "https://cdn/v.mp4")


def kept(task: Generation | None, state: EndState, max_bytes: int) -> tuple[set[str], bool]:
    """Return which parts of a task are in its result of this size, and whether that is all."""
    text, is_complete = encode_result("a", state, task, FIRST, max_bytes=max_bytes)
    assert len(text) <= max(max_bytes, 200)
    stored = json.loads(text)
    fields: dict[str, Any] = stored["generation"] or {}
    assert stored["url"] == (fields["video"]["url"] if fields.get("video") else None)
    return {name for name, value in fields.items() if value not in (None, "{}")}, is_complete


def test_a_result_is_complete_up_to_the_size_of_a_message() -> None:
    task = Generation(id="a", state=State.FAILED, original='{"id": "a"}')
    text, _ = encode_result("a", EndState.FAILED, task, FIRST, max_bytes=9999)
    assert encode_result("a", EndState.FAILED, task, FIRST, max_bytes=len(text))[1]
    assert not encode_result("a", EndState.FAILED, task, FIRST, max_bytes=len(text) - 1)[1]


def test_the_smaller_a_result_must_be_the_less_of_the_task_is_in_it() -> None:
    task = Generation(
        id="a", state=State.FAILED, failure_reason="r" * 1500, original="x" * 50_000,
        video=Video(url="https://cdn/" + "v" * 3000), prompt="p" * 9000, created_at=NOW,
    )  # fmt: skip
    short = {"id", "state", "failure_reason", "created_at"}
    sizes = (70_000, 20_000, 8_500, 7_900, 2_000, 900)
    assert [kept(task, EndState.FAILED, size) for size in sizes] == [
        (short | {"video", "prompt", "original"}, True),
        (short | {"video", "prompt"}, False),
        (short | {"video"}, False),
        (short | {"video"}, False),
        (short, False),
        ({"id", "state"}, False),
    ]
    assert kept(task, EndState.FAILED, 10) == (set(), False)
    assert kept(None, EndState.MISSING, 10) == (set(), False)


def test_a_task_without_a_link_has_no_video_after_it_was_shortened() -> None:
    task = Generation(id="a", state=State.FAILED, original="x" * 5000, prompt="p" * 5000)
    assert kept(task, EndState.FAILED, 1000) == ({"id", "state"}, False)


NESTED = b'{"id": "a", "state": ' + b"[" * 100_000
NESTED_ELSEWHERE = b'{"id": "a", "strange": ' + b"[" * 100_000
OTHER_ID = b'{"id": "b", "state": "missing", "url": null, "submission": 1, "generation": null}'


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b"[]",
        b'{"id": "a", "state": "odd"}',
        b"\xff",
        NESTED,
        NESTED_ELSEWHERE,
        OTHER_ID,
    ],
    ids=range(8),
)
def test_a_payload_that_is_not_a_result_raises_a_value_error(payload: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - msgspec's words
        decode_result(payload, "luma.done.a")


def test_each_final_task_has_its_end_state() -> None:
    assert state_of(generation("a")) is EndState.COMPLETED
    assert state_of(generation("a", State.FAILED)) is EndState.FAILED
    assert state_of(None) is EndState.MISSING
