"""The two requests: method, path and body."""

import json
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luma_async.protocol.requests import batch_request, single_request
from tests.protocol.response_builders import SAMPLE_ID


def test_one_task_is_requested_by_a_get_without_a_body() -> None:
    asked = single_request(SAMPLE_ID)
    assert (asked.method, asked.body) == ("GET", None)
    assert asked.path == f"/luma/generations/{SAMPLE_ID}"


def test_many_tasks_are_requested_by_a_post_of_only_their_ids() -> None:
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
def test_an_id_with_special_characters_stays_one_segment_of_the_path(
    task_id: str, segment: str
) -> None:
    assert single_request(task_id).path == f"/luma/generations/{segment}"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_id_can_be_decoded_from_the_path_and_from_the_body(task_id: str) -> None:
    segment = single_request(task_id).path.removeprefix("/luma/generations/")
    assert unquote(segment) == task_id
    assert segment.isascii()
    assert not set(segment) & set("/?# \r\n")
    assert segment not in (".", "..")
    assert json.loads(batch_request([task_id]).body or b"") == {"ids": [task_id]}


def test_equal_requests_are_equal_and_have_equal_hashes() -> None:
    assert single_request("a") == single_request("a") != single_request("b")
    assert hash(batch_request(["a"])) == hash(batch_request(["a"]))
