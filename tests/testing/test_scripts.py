"""What a test gives in advance: scripts of submitted tasks; replies and scripts left unused."""

from itertools import cycle
from typing import Any

import aiohttp
import pytest

from luma_async import GenerationFailed, LumaSession
from luma_async.testing import FakeRelay, Reply, Script, ThreadedRelay


async def submit(relay: FakeRelay) -> str:
    headers = {"Authorization": f"Bearer {relay.api_key}"}
    async with aiohttp.ClientSession(headers=headers) as http:
        url = f"{relay.url}/luma/generations"
        async with http.post(url, json={"prompt": "a cat"}) as response:
            return str((await response.json())["id"])


def ends(relay: FakeRelay, count: int) -> list[tuple[float | None, str]]:
    tasks = [relay.tasks[relay.submit()] for _ in range(count)]
    return [(task.ends_at and task.ends_at - task.submitted_at, task.ends) for task in tasks]


@pytest.mark.virtual_time
async def test_a_task_that_is_submitted_over_http_follows_the_script(
    relay: FakeRelay, luma: LumaSession
) -> None:
    relay.script = Script(duration=60, ends="failed", queued=20, failure_reason="no faces")
    task_id = await submit(relay)
    assert (await luma.get(task_id)).state == "pending"
    failed = await luma.wait_until_done(task_id)
    with pytest.raises(GenerationFailed, match="no faces"):
        failed.raise_for_failed()


async def test_one_script_is_for_all_and_a_list_for_one_task_each(relay: FakeRelay) -> None:
    assert relay.script is None
    relay.script = slow = Script(duration=8)
    assert ends(relay, 3) == [(8.0, "completed")] * 3
    assert relay.script is slow
    relay.script = [Script(duration=8, ends="failed"), Script(ends="never")]
    assert ends(relay, 3) == [(8.0, "failed"), (None, "never"), (0.0, "completed")]
    relay.script = cycle(relay.script)
    assert [end for _, end in ends(relay, 4)] == ["failed", "never"] * 2
    relay.script = None
    assert ends(relay, 1) == [(0.0, "completed")]


async def test_a_scripted_task_draws_no_random_outcome() -> None:
    async with FakeRelay(durations=(1, 9)) as plain, FakeRelay(durations=(1, 9)) as scripted:
        scripted.script = [Script(duration=100)]
        assert ends(scripted, 3)[1:] == ends(plain, 2)


@pytest.mark.parametrize(
    ("script", "error"),
    [(60, TypeError), ("failed", TypeError), ([60], TypeError), ([Script(), None], TypeError)],
)
async def test_another_value_is_rejected_when_it_is_set(
    relay: FakeRelay, script: Any, error: type[Exception]
) -> None:
    relay.script = kept = Script(duration=8)
    with pytest.raises(error, match="give a Script"):
        relay.script = script
    assert relay.script is kept
    assert ends(relay, 1) == [(8.0, "completed")]


@pytest.mark.parametrize(
    "fields",
    [{"ends": "lost"}, {"duration": -1}, {"queued": 2, "duration": 1}, {"link_after": "soon"}],
)
def test_an_invalid_script_is_rejected(fields: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        Script(**fields)


# assert_all_used


async def test_a_reply_that_no_request_received_is_an_error_at_the_end_of_the_block() -> None:
    unused = '2 times 502 on="get", reset on any request'
    with pytest.raises(AssertionError, match=f"no request received: {unused}; remove them, or"):
        async with FakeRelay(assert_all_used=True) as relay:
            relay.reply(Reply(500, b"{}"), on="submit")
            relay.reply(Reply(502), Reply(502), on="get")
            relay.reply(Reply(breakage="reset"))
            with pytest.raises(KeyError, match="id"):
                await submit(relay)


async def test_replies_that_were_all_sent_and_optional_ones_are_no_error() -> None:
    async with FakeRelay(assert_all_used=True) as relay:
        relay.reply(Reply(body=b'{"id": "x"}'), on="submit")
        relay.reply(Reply(503), optional=True)
        assert await submit(relay) == "x"
        relay.assert_all_used()


async def test_a_script_of_a_list_that_no_submission_used_is_an_error() -> None:
    async with FakeRelay(assert_all_used=False) as relay:
        relay.script = [Script(duration=8), Script(ends="failed")]
        relay.submit()
        with pytest.raises(AssertionError, match="no submission used: .*'failed'.*; remove"):
            relay.assert_all_used()
        relay.submit()
        relay.assert_all_used()


@pytest.mark.parametrize("script", [None, Script(duration=8), cycle([Script()])])
async def test_a_script_for_all_submissions_need_not_be_used(script: Any) -> None:
    async with FakeRelay(assert_all_used=True) as relay:
        relay.script = script


async def test_an_exception_of_the_block_is_not_replaced_by_that_of_an_unused_reply() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with FakeRelay(assert_all_used=True) as relay:
            relay.reply(Reply(502))
            raise KeyError("mine")


def test_a_relay_in_a_thread_checks_the_same() -> None:
    with pytest.raises(AssertionError, match="received: 502 on any request"):
        with ThreadedRelay(assert_all_used=True) as relay:
            relay.reply(Reply(502))
    with pytest.raises(KeyError), ThreadedRelay(assert_all_used=True) as relay:
        relay.reply(Reply(502))
        raise KeyError
