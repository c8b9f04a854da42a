"""Claims about submitting to the relay on loopback: what it takes, and what becomes of it."""

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


async def test_a_submitted_task_is_answered_as_asking_for_it_would_be(
    http: aiohttp.ClientSession,
) -> None:
    async with (
        FakeRelay(durations=(60, 60)) as relay,
        LumaSession(relay.url, api_key=relay.api_key) as luma,
    ):
        status, told = await submit(http, relay, {"prompt": "a cat", "aspect_ratio": "9:16"})
        assert status == 200
        assert (await luma.get(told["id"])).raw == told
        assert (relay.log[0].path, relay.log[0].ids) == ("/luma/generations", (told["id"],))
        task_id: str = told["id"]
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
async def test_the_prompt_is_told_where_relays_tell_it(
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


async def test_user_prompt_is_a_prompt_and_other_fields_are_not_looked_at(
    relay: FakeRelay, http: aiohttp.ClientSession
) -> None:
    status, told = await submit(http, relay, {"user_prompt": "a dog", "loop": True})
    assert (status, told["request"]["prompt"]) == (200, "a dog")


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
async def test_a_bad_body_is_refused_and_nothing_submitted(
    relay: FakeRelay, http: aiohttp.ClientSession, body: Any
) -> None:
    status, told = await submit(http, relay, body)
    assert (status, told["code"], told["data"]) == (400, "invalid_request", None)
    assert told["message"].endswith(("needed", "in it"))
    assert (dict(relay.tasks), relay.log[0].ids) == ({}, ())


async def test_a_wrong_key_submits_nothing(relay: FakeRelay, http: aiohttp.ClientSession) -> None:
    status, told = await submit(http, relay, {"prompt": "a cat"}, key="sk-other")
    assert (status, told["error"]["type"]) == (401, "new_api_error")
    assert not relay.tasks


async def test_a_submission_can_be_answered_by_script_and_meets_no_fault(
    http: aiohttp.ClientSession,
) -> None:
    async with FakeRelay(faults={"storm": 1.0}) as relay:
        relay.reply(Reply(403, b'{"code":"quota_not_enough"}'), on="submit")
        assert (await submit(http, relay, {"prompt": "a cat"}))[0] == 403
        assert (await submit(http, relay, {"prompt": "a cat"}))[0] == 200
        assert len(relay.tasks) == 1


async def test_what_is_submitted_takes_as_long_and_fails_as_often_as_the_relay_was_told() -> None:
    async with FakeRelay(durations=(10, 20), fails=0.25, seed=1) as relay:
        tasks = [relay.tasks[relay.submit()] for _ in range(400)]
    took = [task.ends_at - task.submitted_at for task in tasks if task.ends_at is not None]
    assert len(took) == 400
    assert 10 <= min(took) < 11
    assert 19 < max(took) <= 20
    assert 70 < Counter(task.ends for task in tasks)["failed"] < 130
    assert all(task.submitted_at <= task.processing_at for task in tasks)


async def test_the_same_seed_submits_the_same_tasks_and_changes_no_other_dice() -> None:
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
def test_senseless_fates_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=r": give "):
        FakeRelay(**arguments)


async def test_a_prompt_that_is_no_text_is_refused() -> None:
    prompt: Any = b"a cat"
    with pytest.raises(TypeError, match=r"give it as text$"):
        FakeRelay().add(prompt=prompt)
