"""Redaction: no secret is left, and the responses parse as they did."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luma_async import LumaError
from luma_async.protocol.decoding import decode_response
from luma_async.recording.redaction import CaptureRedactor, is_known
from luma_async.recording.stand_ins import StandIns
from tests.odd_relays import ERRORS_UNDER_200, HICCUPS, REFUSALS, kling, nested
from tests.properties import examples
from tests.recording.planted_secrets import left_over

DATA = Path(__file__).parents[1] / "data"
BODIES = [
    *((200, file.read_text()) for file in sorted(DATA.glob("*s-*.json"))),
    *((200, file.read_text()) for file in sorted(DATA.glob("get-*.json"))),
    *((one["status"], one["body"]) for one in json.loads((DATA / "errors.json").read_text())),
    *((200, json.dumps(one)) for one in (*HICCUPS.values(), *ERRORS_UNDER_200)),
    *((status, one.decode() if isinstance(one, bytes) else json.dumps(one))
      for status, one in REFUSALS),
    *((200, json.dumps(change({"id": "a1-b2", "state": state, "video": {"url": "https://a.b/c"}})))
      for change in (kling, nested(3)) for state in ("completed", "processing")),
    (200, '{"id": "x1", "state": "completed"}\n{"detail": {"reason": "x"}}'),
    (200, '{"id": "x1", "state": NaN}'),
    (200, '[{"id":"a1","state":"pend'),
]  # fmt: skip
KEY = "sk-test-key"


def redactor(*literals: str) -> CaptureRedactor:
    return CaptureRedactor(StandIns(b"fixed"), literals)


def outcome(status: int, body: str) -> object:
    """Return what the library reads in a response, without what differs by design."""
    try:
        response = decode_response(status, {}, body.encode())
    except LumaError as error:
        return type(error), getattr(error, "about_task", None), getattr(error, "in_json", None)
    tasks = [response.generation(name) for name in response.states]
    return [
        (task.state, len(task.id), bool(task.url), task.created_at, bool(task.failure_reason))
        for task in tasks
    ], list(response.states.values())


@pytest.mark.parametrize(("status", "body"), BODIES)
def test_a_redacted_body_parses_as_it_did(status: int, body: str) -> None:
    redacted = redactor().body(body)
    assert outcome(status, redacted) == outcome(status, body), redacted
    assert len(redacted.replace(" ", "").replace("\n", "")) == pytest.approx(
        len(body.replace(" ", "").replace("\n", "")), abs=4
    )


@settings(max_examples=examples(40))
@given(st.integers(min_value=0))
def test_no_planted_secret_is_left(seed: int) -> None:
    planted, left = left_over(random.Random(seed))
    assert planted
    assert not left


def test_the_same_text_has_the_same_stand_in_in_any_case_and_two_texts_have_two() -> None:
    ids = [f"{number:08x}-aaaa-4bbb-8ccc-0123456789ab" for number in range(500)]
    stand_ins = StandIns(b"fixed")
    made = [stand_ins.word(one) for one in ids]
    assert len(set(made)) == len(ids)
    assert [stand_ins.word(one) for one in ids] == made
    assert [stand_ins.word(one.upper()) for one in ids] == [one.upper() for one in made]
    assert StandIns(b"other").word(ids[0]) != made[0]


@pytest.mark.parametrize(
    "text",
    [
        "5ae1aa80-0a1e-4a4f-a1c4-8c1e1c2c2c2c", "task_AbC123xyz", "sk-AbC123", "13800138000",
        "Ünïcödé", "王小明的视频", "𝒜𝒷", "alice.b@example.com", "a%2Fb",
    ],
)  # fmt: skip
def test_a_stand_in_has_the_kind_and_the_length_of_the_text(text: str) -> None:
    made = redactor().strict(text)
    assert made != text
    assert len(made) == len(text)
    assert len(made.encode()) == len(text.encode())
    for new, old in zip(made, text, strict=True):
        assert (new.isdigit(), new.isupper() and new.isascii()) == (
            old.isdigit(),
            old.isupper() and old.isascii(),
        )


def test_a_known_secret_goes_even_if_all_its_words_are_known() -> None:
    body = f'{{"message":"invalid token {KEY}","error":"video of a cat"}}'
    assert is_known("sk-test-key")
    assert KEY not in redactor(KEY).body(body)
    headers = redactor(KEY).headers({"Server": KEY, f"X-{KEY}": "1", "Location": f"/a?k={KEY}"})
    assert KEY not in json.dumps(headers)


def test_a_prompt_that_an_error_quotes_goes_even_if_all_its_words_are_known() -> None:
    body = '{"prompt":"video of a user","message":"video of a user rejected by moderation"}'
    redacted = json.loads(redactor().body(body))
    assert redacted["message"].endswith(" rejected by moderation")
    assert "video of a user" not in json.dumps(redacted)


def test_an_id_has_the_same_stand_in_in_the_request_and_in_the_message() -> None:
    ours = redactor("video-1")
    assert ours.strict("video-1") in ours.body('{"message":"task video-1 not found"}')


def test_words_of_errors_states_times_and_sizes_stay() -> None:
    for body in (
        '{"code":"task_not_exist","message":"task_not_exist","data":null}',
        '{"error":{"message":"当前分组上游负载已饱和，请稍后再试","type":"new_api_error"}}',
        '{"state":"processing","created_at":"2024-12-22T13:38:40.139Z","progress":"100%"}',
        '{"status":"IN_PROGRESS","submit_time":1734874720,"width":1360,"height":752}',
        "<html><head><title>504 Gateway Time-out</title></head></html>",
    ):
        assert redactor().body(body) == body


def test_hosts_users_and_signatures_go_and_expiry_stays() -> None:
    link = (
        "https://user:pw@api.cdn-luma.com:8080/dream/a1.mp4?X-Amz-Expires=3600"
        "&X-Amz-Date=20241222T133840Z&X-Amz-Signature=0123456789abcdef&Expires=1734874720"
    )
    made = redactor().url(link)
    assert made.startswith("https://")
    for secret in ("user", "pw@", "api.", "cdn-luma", "a1", "0123456789abcdef"):
        assert secret not in made
    for kept in (":8080/dream/", ".mp4?", "X-Amz-Expires=3600", "=20241222T133840Z", "1734874720"):
        assert kept in made


@pytest.mark.parametrize(
    "text",
    ["x" * 60_000, "a." * 30_000, "a@" * 30_000, '{"' * 30_000, "1" * 60_000 + "g", "A" * 60_000,
     "http://" + "a." * 30_000, '"a' * 30_000, "[" * 60_000, "a-" * 30_000 + "!", "%41" * 20_000],
)  # fmt: skip
def test_a_hostile_body_takes_linear_time(text: str) -> None:
    """Quadratic time would take minutes here."""
    assert len(redactor("secret").body(text)) >= len(text) // 3
    json.loads(redactor("secret").body(json.dumps({"message": text, text: text})))
