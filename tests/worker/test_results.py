"""What is stored of an id: claims about text."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luma_async.protocol.rows import RowText
from luma_async.structs import Generation, State
from luma_async.worker.results import (
    MAX_TOKEN,
    EndState,
    decode_result,
    encode_result,
    end_of,
    state_of,
    subject_token,
    submitted_id,
)
from tests.fake_answers import generation

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
utf8 = st.text(st.characters(codec="utf-8"), min_size=1, max_size=400)


@given(utf8)
def test_any_id_is_one_token_of_a_subject(task_id: str) -> None:
    name = subject_token(task_id)
    assert name
    assert len(name) <= MAX_TOKEN
    assert name.isascii()
    assert not set(name) & set(" .*>\t\r\n")


@given(utf8, utf8)
def test_two_ids_have_two_tokens(one: str, other: str) -> None:
    assert (subject_token(one) == subject_token(other)) == (one == other)


@given(utf8)
def test_an_id_comes_back_from_its_payload_and_a_short_one_from_its_subject(task_id: str) -> None:
    subject = f"luma.wait.{subject_token(task_id)}"
    assert submitted_id(subject, task_id.encode()) == task_id
    if not subject_token(task_id).startswith("~"):
        assert submitted_id(subject, b"") == task_id


def test_a_digest_that_looks_like_an_id_is_not_one() -> None:
    name = subject_token("x" * 300)
    assert name != subject_token(name)
    with pytest.raises(ValueError, match="as the payload"):
        submitted_id(f"luma.wait.{name}", b"")


@pytest.mark.parametrize(("subject", "payload"), [("luma.wait.a", b"\xff"), ("luma.wait.%FF", b"")])
def test_what_is_not_text_is_no_id(subject: str, payload: bytes) -> None:
    with pytest.raises(ValueError, match="utf-8"):
        submitted_id(subject, payload)


def test_a_whole_task_comes_back_with_the_relays_own_object() -> None:
    row = (
        b'{"id": "a", "state": "completed", "video": {"url": "https://cdn/v.mp4", "width": 8},'
        b' "created_at": "2026-11-21T10:00:00Z", "strange": ["\\u00e9", 1e3]}'
    )
    task = RowText("a", row).generation()
    text, whole = encode_result("a", EndState.COMPLETED, task, 3, most=10_000)
    assert whole
    assert decode_result(text).submission == 3
    end = end_of(decode_result(text), 7, NOW)
    assert (end.id, end.state, end.sequence, end.told_at) == ("a", EndState.COMPLETED, 7, NOW)
    assert end.generation is not None
    assert end.generation == task
    assert end.generation.raw["strange"] == ["é", 1000.0]
    plain = json.loads(text)
    assert plain["url"] == "https://cdn/v.mp4"
    assert plain["generation"]["video"]["width"] == 8


def test_an_end_without_a_task_is_told_too() -> None:
    text, whole = encode_result("a", EndState.MISSING, None, 3, most=10_000)
    assert whole
    assert decode_result(text).generation is None


@pytest.mark.parametrize("most", [900, 300, 10])
def test_what_is_too_long_is_told_in_part_and_never_without_its_id_and_state(most: int) -> None:
    task = Generation(id="a", state=State.FAILED, failure_reason="r" * 500, original="x" * 5000)
    text, whole = encode_result("a", EndState.FAILED, task, 3, most=most)
    assert not whole
    assert len(text) <= max(most, 100)
    end = decode_result(text)
    assert (end.id, end.state) == ("a", EndState.FAILED)
    if most == 900:
        assert end.generation is not None
        assert end.generation.failure_reason == "r" * 500


def test_a_text_that_no_json_can_carry_costs_itself_alone() -> None:
    task = Generation(id="a", state=State.FAILED, failure_reason="\ud800")
    text, whole = encode_result("a", EndState.FAILED, task, 3, most=10_000)
    assert not whole
    assert decode_result(text).state is EndState.FAILED


@pytest.mark.parametrize("payload", [b"", b"{}", b"[]", b'{"id": "a", "state": "odd"}', b"\xff"])
def test_what_is_no_end_says_so(payload: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - msgspec's words
        decode_result(payload)


def test_each_end_of_a_task_has_its_state() -> None:
    assert state_of(generation("a")) is EndState.COMPLETED
    assert state_of(generation("a", State.FAILED)) is EndState.FAILED
    assert state_of(None) is EndState.MISSING
