"""The questions of an examination: never too many, never to another host, never a submission."""

from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luma_async import LumaError
from luma_async.diagnosis.checks import CHECKS
from luma_async.diagnosis.findings import Subject, diagnose
from luma_async.diagnosis.link_checks import expiry
from luma_async.diagnosis.plan import MAX_REQUESTS, Examination, examine, other_bases
from luma_async.diagnosis.questions import Answer, Answers, Question
from luma_async.errors import RequestTimeout
from luma_async.protocol.decoding import decode_response
from tests.properties import examples

BASE = "https://relay.example/v1"
IDS = tuple(f"task-{number}" for number in range(8))
UNKNOWN = tuple(f"unknown-{number}" for number in range(1000))
BODIES = (
    b"", b"[]", b"null", b"<html>", b'{"detail":"Not Found"}', b'{"code":"task_not_exist"}',
    b'{"message":"too many"}', b'[{"id":"task-1","state":"pending"}]',
    b'[{"id":"task-7","state":"completed","video":{"url":"https://cdn.example/a.mp4"}}]',
    b'{"id":"task-0","state":"completed","video":{"url":"https://cdn.example/a.mp4"}}',
)  # fmt: skip
STATUSES = (200, 301, 400, 401, 403, 404, 405, 413, 429, 500, 503)


def answer(question: Question, status: int | None, body: bytes) -> Answer:
    """Return the answer to a question, as the transport would decode it."""
    decoded = Answer(question=question, status=status, body=body, seconds=0.1)
    try:
        if status is None:
            raise RequestTimeout("no answer")
        if question.call == "link":
            return decoded
        response = decode_response(status, {}, body)
        single = question.call == "get"
        decoded.response = (
            response.for_task(question.ids[0]) if single else response.for_tasks(question.ids)
        )
    except LumaError as error:
        decoded.error = error
    return decoded


@settings(max_examples=examples(60))
@given(st.data())
def test_no_answers_lead_to_too_many_requests_or_to_another_host(data: st.DataObject) -> None:
    asking = examine(Examination(BASE, IDS, UNKNOWN, 1000))
    answers, last = Answers(), None
    mood = data.draw(st.lists(st.sampled_from([None, *STATUSES]), min_size=1, max_size=4))
    bodies = data.draw(st.lists(st.sampled_from(BODIES), min_size=1, max_size=4))
    for number in range(500):
        try:
            question = asking.send(last)
        except StopIteration:
            break
        if question.call != "link":
            assert urlsplit(question.base_url).netloc == "relay.example"
            assert question.base_url.startswith("https:")
        assert not question.with_key or question.url.startswith("https://relay.example/")
        last = answer(question, mood[number % len(mood)], bodies[number // 2 % len(bodies)])
        if len(answers) == MAX_REQUESTS:
            last = None
        else:
            answers.append(last)
    else:
        pytest.fail("the examination does not end")
    assert len(answers) <= MAX_REQUESTS
    diagnosis = diagnose(answers, Subject(BASE, IDS, 1000), CHECKS)
    assert all(f.level == "ok" or f.follows for f in diagnosis.findings), diagnosis.findings


def test_other_base_urls_are_shorter_ones_and_that_of_a_redirect() -> None:
    question = Question(call="get", role="first", purpose="", ids=("a b",), base_url=BASE)
    moved = Answer(question=question)
    assert other_bases("https://r.example/pro/v1/luma", moved) == [
        "https://r.example/pro", "https://r.example/pro/v1", "https://r.example",
    ]  # fmt: skip
    moved.headers = {"location": "https://r.example/x/luma/generations/a%20b"}
    assert other_bases("http://r.example", moved) == ["https://r.example/x"]
    assert other_bases("http://other.example", moved) == []
    moved.headers = {"location": "http://r.example/x/luma/generations/a%20b"}
    assert other_bases("https://r.example", moved) == []


@pytest.mark.parametrize(
    ("query", "lifetime", "until"),
    [
        ("X-Amz-Date=20241222T133840Z&X-Amz-Expires=3600", 3600.0, "2024-12-22T14:38:40+00:00"),
        ("X-Goog-Date=20241222T133840Z&X-Goog-Expires=60", 60.0, "2024-12-22T13:39:40+00:00"),
        ("X-Amz-Expires=3600", 3600.0, None),
        ("Expires=1734874720&OSSAccessKeyId=x", None, "2024-12-22T13:38:40+00:00"),
        ("exp=1734874720123", None, "2024-12-22T13:38:40+00:00"),
        ("se=2024-12-22T13%3A38%3A40Z&sig=x", None, "2024-12-22T13:38:40+00:00"),
        ("q-sign-time=1734871120;1734874720", None, "2024-12-22T13:38:40+00:00"),
        ("e=7&Expires=soon", None, None),
        ("", None, None),
    ],
)
def test_the_expiry_of_a_link_is_read_from_its_query(
    query: str, lifetime: float | None, until: str | None
) -> None:
    seconds, moment = expiry(f"https://cdn.example/a.mp4?{query}")
    assert (seconds, moment and moment.isoformat()) == (lifetime, until)
