"""Faults of submissions to a FakeRelay: whether a task is made, and what the client receives."""

from collections import Counter
from typing import Any

import aiohttp
import pytest
from yarl import URL

from luma_async.testing import SUBMIT_FAULTS, FakeRelay, Reply, SubmitFault
from tests.testing.test_submissions import submit

pytestmark = pytest.mark.virtual_time

RECEIVED: dict[SubmitFault, int | None] = {
    "lost_before": None,
    "lost_after": None,
    "cut_after": None,
    "silent_after": None,
    "gateway_timeout_after": 504,
    "insert_failed_after": 500,
    "saturated": 429,
    "no_channel": 503,
    "quota": 401,
    "moderated": 400,
    "double_document": 400,
}


async def received(relay: FakeRelay) -> int | None:
    timeout = aiohttp.ClientTimeout(total=60)
    headers = {"Authorization": f"Bearer {relay.api_key}"}
    url = f"{relay.url}/luma/generations"
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as http,
            http.post(url, json={"user_prompt": "a cat"}, headers=headers) as answer,
        ):
            await answer.read()
            return answer.status
    except (TimeoutError, aiohttp.ClientError):
        return None


@pytest.mark.parametrize("fault", SUBMIT_FAULTS)
async def test_a_fault_makes_a_task_only_if_its_name_says_so(fault: SubmitFault) -> None:
    async with FakeRelay(submit_faults={fault: 1.0}) as relay:
        assert await received(relay) == RECEIVED[fault]
        assert len(relay.created) == len(relay.tasks) == fault.endswith("_after")
        assert relay.log[0].submit_fault == fault
        relay.submit_faults = None
        assert await received(relay) == 200
        assert len(relay.created) == 1 + fault.endswith("_after")


async def test_a_share_of_the_submissions_meets_a_fault_by_the_seed() -> None:
    async def faults(seed: int) -> list[SubmitFault | None]:
        async with FakeRelay(submit_faults={"saturated": 0.5}, seed=seed) as relay:
            for _ in range(40):
                await received(relay)
        return [record.submit_fault for record in relay.log]

    assert await faults(1) == await faults(1)
    assert await faults(1) != await faults(2)
    assert 10 < Counter(await faults(1))["saturated"] < 30


async def test_a_scripted_reply_makes_no_task_and_what_is_added_is_not_created() -> None:
    async with FakeRelay() as relay:
        relay.add()
        relay.submit()
        relay.reply(Reply(200, b'{"id":"a","state":"pending"}'), on="submit")
        assert await received(relay) == 200
        assert relay.created == []


async def test_an_extension_needs_a_task_that_exists() -> None:
    async with FakeRelay() as relay, aiohttp.ClientSession() as http:
        status, answer = await extend(http, relay, "a")
        assert (status, answer["code"]) == (400, "task_origin_not_exist")
        status, answer = await extend(http, relay, relay.add("a/b"))
        assert (status, relay.created) == (200, [answer["id"]])
        assert relay.log[-1].ids == ("a/b", answer["id"])


async def extend(http: aiohttp.ClientSession, relay: FakeRelay, task_id: str) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {relay.api_key}"}
    url = f"{relay.url}/luma/generations/{task_id.replace('/', '%2F')}/extend"
    async with http.post(
        URL(url, encoded=True), json={"user_prompt": "more"}, headers=headers
    ) as answer:
        return answer.status, await answer.json()


async def test_a_submission_by_the_helper_of_other_tests_is_created() -> None:
    async with FakeRelay() as relay, aiohttp.ClientSession() as http:
        _, task = await submit(http, relay, {"user_prompt": "a cat"})
        assert relay.created == [task["id"]]


@pytest.mark.parametrize(
    "arguments",
    [
        {"submit_faults": {"storm": 0.1}},
        {"submit_faults": {"quota": 2}},
        {"submit_faults": {"quota": 0.6, "moderated": 0.6}},
        {"submit_faults": "quota"},
        {"submit_shape": "list"},
    ],
)
def test_invalid_faults_and_shapes_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=": give "):
        FakeRelay(**arguments)
