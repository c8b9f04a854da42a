"""SharedBudget on a real server: sessions with connections of their own share one rate limit."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from luma_async import Every, Limits, LumaSession, WaitTimeout
from luma_async.testing import FakeRelay, Reply
from luma_async.worker import Queue, SharedBudget, shared_budget
from tests.worker.worker_processes import until

RATE = 20.0


class Sessions:
    """Starts sessions that poll ids which never end, each with a budget and a connection."""

    def __init__(self, relay: FakeRelay, server: str, stack: AsyncExitStack) -> None:
        self._relay = relay
        self._server = server
        self._stack = stack
        self.queues: list[Queue] = []

    async def start(self, ids: int, rate: float = RATE) -> asyncio.Task[None]:
        queue = await self._stack.enter_async_context(Queue(self._server))
        self.queues.append(queue)
        luma = await self._stack.enter_async_context(
            LumaSession(
                self._relay.url,
                api_key=self._relay.api_key,
                limits=Limits(max_rate=rate, max_batch=5),
                pace=Every(0.5),
                budget=SharedBudget(queue),
            )
        )
        task_ids = [self._relay.add(duration=1000) for _ in range(ids)]
        task = asyncio.create_task(self._poll(luma, task_ids))
        self._stack.callback(task.cancel)
        return task

    async def _poll(self, luma: LumaSession, ids: list[str]) -> None:
        with pytest.raises(WaitTimeout):
            await luma.wait_until_done(ids, timeout=60)


@pytest.fixture
async def sessions(relay: FakeRelay, server: str) -> AsyncIterator[Sessions]:
    """Yield Sessions."""
    async with AsyncExitStack() as stack:
        yield Sessions(relay, server, stack)


def sent_since(relay: FakeRelay, start: float) -> int:
    return sum(asked.at >= start for asked in relay.log)


async def test_two_sessions_together_send_up_to_the_total(
    sessions: Sessions, relay: FakeRelay
) -> None:
    loop = asyncio.get_running_loop()
    await sessions.start(100)
    await sessions.start(100)
    await until(lambda: relay.requests > 5)
    start = loop.time()
    await asyncio.sleep(2.0)
    assert relay.busiest_second() <= RATE
    assert sent_since(relay, start) >= 0.75 * RATE * 2  # a busy machine misses some slots


async def test_a_session_that_joins_later_shares_and_one_that_leaves_frees_its_slots(
    sessions: Sessions, relay: FakeRelay
) -> None:
    first = await sessions.start(100)
    await until(lambda: relay.requests > 5)
    await sessions.start(100)
    await until(lambda: len({asked.ids for asked in relay.log}) > 25)
    first.cancel()
    asked = relay.requests
    await until(lambda: relay.requests > asked + 20)
    assert relay.busiest_second() <= RATE


async def test_the_lowest_rate_of_all_sessions_counts(sessions: Sessions, relay: FakeRelay) -> None:
    await sessions.start(100, rate=5.0)
    await until(lambda: relay.requests > 2)
    await sessions.start(100)
    await asyncio.sleep(1.5)
    assert relay.busiest_second() <= 5


async def test_a_rejected_request_quiets_the_other_session(
    sessions: Sessions, relay: FakeRelay
) -> None:
    await sessions.start(100)
    await sessions.start(100)
    await until(lambda: relay.requests > 10)
    relay.reply(Reply(429, headers={"Retry-After": "2"}))
    await until(lambda: any(asked.status == 429 for asked in relay.log))
    (rejected,) = [asked.at for asked in relay.log if asked.status == 429]
    await until(lambda: relay.log[-1].at > rejected + 2.0)
    # A request that was under way when the 429 came does not count.
    assert not [a for a in relay.log if rejected + 0.3 < a.at < rejected + 2.0]


async def test_a_record_that_is_lost_stops_the_sessions_for_a_moment_only(
    sessions: Sessions, relay: FakeRelay, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a restart of the server; then as after a message of another client."""
    await sessions.start(100)
    await sessions.start(100)
    await until(lambda: relay.requests > 10)
    js = sessions.queues[0].js
    await js.delete_stream(shared_budget.STREAM)
    asked = relay.requests
    await until(lambda: relay.requests > asked + 10)
    names = [message async for message in subjects(sessions.queues[0])]
    for _ in range(3):
        await js.publish(names[0], b'{"last_slot": 1e300}')
    asked = relay.requests
    await until(lambda: relay.requests > asked + 10)
    assert relay.busiest_second() <= RATE
    assert "is not a timetable" in caplog.text


async def test_a_record_with_an_endless_quiet_time_does_not_stop_the_sessions(
    sessions: Sessions, relay: FakeRelay
) -> None:
    await sessions.start(100)
    await until(lambda: relay.requests > 5)
    names = [message async for message in subjects(sessions.queues[0])]
    await sessions.queues[0].js.publish(names[0], b'{"quiet_until": 99999999999}')
    asked = relay.requests
    await until(lambda: relay.requests > asked + 5)


async def subjects(queue: Queue) -> AsyncIterator[str]:
    """Yield the subjects of all records."""
    info = await queue.js.stream_info(shared_budget.STREAM, subjects_filter=">")
    for subject in info.state.subjects or {}:
        yield subject


async def test_sessions_of_another_key_have_a_budget_of_their_own(
    relay: FakeRelay, server: str
) -> None:
    async with Queue(server) as queue:
        for key in ("sk-a", "sk-b"):
            async with LumaSession(relay.url, api_key=key, budget=SharedBudget(queue)) as luma:
                with pytest.raises(WaitTimeout):
                    await luma.wait_until_done(["x"], timeout=0.05)
        await asyncio.sleep(0.1)
        names = [name async for name in subjects(queue)]
        assert not [name for name in names if "sk-" in name]
        assert len(set(names)) >= 2
