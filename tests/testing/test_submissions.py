"""Submissions to a FakeRelay: which bodies it accepts, and the outcomes of the tasks."""

import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from luma_async import LumaSession
from luma_async.testing import FakeRelay, Reply
from luma_async.testing.simulation import ENVELOPES, Envelope

pytestmark = pytest.mark.virtual_time


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as http:
        yield http


async def submit(
    http: aiohttp.ClientSession, relay: FakeRelay, body: Any, key: str = "sk-fake"
) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {key}"}
    url = f"{relay.url}/luma/generations"
    async with http.post(url, data=data, headers=headers) as answer:
        return answer.status, await answer.json()


async def test_the_response_to_a_submission_is_that_of_a_single_get(
    http: aiohttp.ClientSession,
) -> None:
    async with (
        FakeRelay(durations=(60, 60)) as relay,
        LumaSession(relay.url, api_key=relay.api_key) as luma,
    ):
        status, task = await submit(http, relay, {"prompt": "a cat", "aspect_ratio": "9:16"})
        assert status == 200
        assert (await luma.get(task["id"])).raw == task
        assert (relay.log[0].path, relay.log[0].ids) == ("/luma/generations", (task["id"],))
        task_id: str = task["id"]
        done = await luma.wait_until_done(task_id)
        assert done.request
        assert (done.request.prompt, done.request.aspect_ratio) == ("a cat", "9:16")


@pytest.mark.parametrize("envelope", ENVELOPES)
@pytest.mark.parametrize(
    ("script", "where"),
    [
        ({"queued": 9, "duration": 9}, "prompt"),
        ({"duration": 9}, "prompt"),
        ({}, "request"),
        ({"link_after": 9}, "request"),
        ({"ends": "failed"}, "request"),
    ],
)
async def test_the_prompt_is_where_relays_send_it(
    http: aiohttp.ClientSession, envelope: Envelope, script: dict[str, Any], where: str
) -> None:
    async with (
        FakeRelay(envelope=envelope) as relay,
        LumaSession(relay.url, api_key=relay.api_key) as luma,
    ):
        task_id = relay.add(prompt="<b>狗", aspect_ratio="1:1", **script)
        generation = await luma.get(task_id)
        raw = generation.raw["data"] if envelope == "wrapped" else generation.raw
        assert (
            raw[where]
            == {
                "prompt": "<b>狗",
                "request": {"prompt": "<b>狗", "aspect_ratio": "1:1"},
            }[where]
        )
        assert generation.request
        assert generation.request.prompt == "<b>狗"


async def test_user_prompt_is_accepted_and_other_fields_are_ignored(
    relay: FakeRelay, http: aiohttp.ClientSession
) -> None:
    status, task = await submit(http, relay, {"user_prompt": "a dog", "loop": True})
    assert (status, task["request"]["prompt"]) == (200, "a dog")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 10_000,
        {},
        {"prompt": ""},
        {"prompt": " \n"},
        {"prompt": 5},
        {"prompt": "a cat", "aspect_ratio": "1:7"},
        {"prompt": "a cat", "aspect_ratio": None},
    ],
)
async def test_an_invalid_body_is_refused_and_nothing_is_submitted(
    relay: FakeRelay, http: aiohttp.ClientSession, body: Any
) -> None:
    status, task = await submit(http, relay, body)
    assert (status, task["code"], task["data"]) == (400, "invalid_request", None)
    assert task["message"].endswith("needed")
    assert (dict(relay.tasks), relay.log[0].ids) == ({}, ())


async def test_a_wrong_key_submits_nothing(relay: FakeRelay, http: aiohttp.ClientSession) -> None:
    status, task = await submit(http, relay, {"prompt": "a cat"}, key="sk-other")
    assert (status, task["error"]["type"]) == (401, "new_api_error")
    assert not relay.tasks


async def test_a_submission_can_get_a_scripted_reply_and_meets_no_fault(
    http: aiohttp.ClientSession,
) -> None:
    async with FakeRelay(faults={"storm": 1.0}) as relay:
        relay.reply(Reply(403, b'{"code":"quota_not_enough"}'), on="submit")
        assert (await submit(http, relay, {"prompt": "a cat"}))[0] == 403
        assert (await submit(http, relay, {"prompt": "a cat"}))[0] == 200
        assert len(relay.tasks) == 1


async def test_submitted_tasks_have_the_durations_and_the_share_of_failures_of_the_relay() -> None:
    async with FakeRelay(durations=(10, 20), fails=0.25, seed=1) as relay:
        tasks = [relay.tasks[relay.submit()] for _ in range(400)]
    durations = [task.ends_at - task.submitted_at for task in tasks if task.ends_at is not None]
    assert len(durations) == 400
    assert 10 <= min(durations) < 11
    assert 19 < max(durations) <= 20
    assert 70 < Counter(task.ends for task in tasks)["failed"] < 130
    assert all(task.submitted_at <= task.processing_at for task in tasks)


async def test_the_same_seed_gives_the_same_submitted_tasks_and_ids() -> None:
    async with (
        FakeRelay(durations=(1, 9), seed=7) as one,
        FakeRelay(durations=(1, 9), seed=7) as same,
    ):
        assert one.submit() == same.add()
        assert one.submit() == same.submit()
        ends = [list(relay.tasks.values())[-1].ends_at for relay in (one, same)]
        assert ends[0] != ends[1]


@pytest.mark.parametrize(
    "arguments",
    [
        {"durations": 5},
        {"durations": (5,)},
        {"durations": (2, 1)},
        {"durations": (-1, 1)},
        {"durations": (0, float("inf"))},
        {"fails": 1.5},
        {"fails": "half"},
        {"fails": True},
    ],
)
def test_invalid_outcomes_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=r"[:;] give "):
        FakeRelay(**arguments)


async def test_a_prompt_that_is_not_text_is_refused() -> None:
    prompt: Any = b"a cat"
    with pytest.raises(TypeError, match=r"give it as text$"):
        FakeRelay().add(prompt=prompt)
