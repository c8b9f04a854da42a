"""What operators put in front of a relay: a real nginx, in real time."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest

from luma_async import Every, Limits, LumaSession, State
from luma_async.protocol.requests import single_request
from luma_async.testing import FakeRelay
from tests.nginx import Nginx, find_nginx

PACE = Every(0.2)
PATIENCE = 30.0
CLOCKS_DIFFER = 0.01
IDS = ["a/b", "a/../b", "..", ".", "a b", "ü", "任务", "%2F", "a%20b", "?x=1", "#", "a//b", "+&;="]
Call = Callable[[], Awaitable[None]]


@pytest.fixture(autouse=True)
def _nginx_is_here() -> None:
    if find_nginx() is None:
        pytest.skip("nginx: apt-get install nginx-light")


def session(relay: FakeRelay, nginx: Nginx, limits: Limits) -> LumaSession:
    return LumaSession(nginx.url, api_key=relay.api_key, pace=PACE, limits=limits)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        pause = 0.001
        while not condition():
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.05)


async def through_an_outage(relay: FakeRelay, nginx: Nginx, stop: Call, start: Call) -> LumaSession:
    """Wait for 200 tasks, none of which ends before `stop` was felt twice and `start` called.

    One request is under way at most, so the second that fails has departed after `stop`.
    """
    limits = Limits(max_batch=20, max_in_flight=1, max_rate=100.0)
    ids = [relay.add(ends="never") for _ in range(200)]
    async with session(relay, nginx, limits) as luma, asyncio.TaskGroup() as group:
        wait = group.create_task(luma.wait_until_done(ids, timeout=PATIENCE))
        await until(lambda: relay.requests >= 15)
        await stop()
        await until(lambda: luma.stats.errors >= 2)
        await start()
        for task_id in ids:
            relay.finish(task_id)
    assert list(wait.result()) == ids
    return luma


async def test_a_relay_that_throttles_loses_no_task_and_is_left_alone_as_it_asks(
    relay: FakeRelay,
) -> None:
    limits = Limits(max_batch=20, max_in_flight=1, max_rate=20.0)
    async with Nginx(relay.url, rate=8, burst=3) as nginx, session(relay, nginx, limits) as luma:
        ids = [relay.add(duration=0.5) for _ in range(200)]
        assert list(await luma.wait_until_done(ids, timeout=PATIENCE)) == ids
    served = nginx.served
    statuses = Counter(each.status for each in served)
    assert statuses == {200: relay.requests, 429: luma.stats.throttled}
    assert luma.stats.throttled == luma.stats.errors > 0
    rests = [then.arrived - each.ended for each, then in pairwise(served) if each.status == 429]
    assert min(rests) >= 1.0 - CLOCKS_DIFFER


async def test_a_relay_that_dies_behind_its_proxy_and_comes_back_loses_no_task(port: str) -> None:
    async with FakeRelay(port=int(port)) as relay, Nginx(relay.url) as nginx:
        luma = await through_an_outage(relay, nginx, relay.close, relay.start)
    statuses = Counter(each.status for each in nginx.served)
    assert statuses.keys() == {200, 502}
    assert luma.stats.errors == statuses[502]


async def test_a_proxy_that_is_stopped_and_started_again_loses_no_task(relay: FakeRelay) -> None:
    async with Nginx(relay.url) as nginx:
        luma = await through_an_outage(relay, nginx, nginx.stop, nginx.start)
    assert luma.stats.errors >= 2
    assert {each.status for each in nginx.served} == {200}


async def test_a_connection_that_the_proxy_ends_after_five_requests_is_no_error() -> None:
    limits = Limits(max_batch=10, max_rate=20.0)
    async with (
        FakeRelay(latency=0.05) as relay,
        Nginx(relay.url, keepalive_requests=5) as nginx,
        session(relay, nginx, limits) as luma,
    ):
        ids = [relay.add(duration=1.2) for _ in range(200)]
        assert list(await luma.wait_until_done(ids, timeout=PATIENCE)) == ids
    requests = len(nginx.served)
    assert luma.stats.errors == 0
    assert luma.stats.requests == relay.requests == requests > limits.max_rate
    by_connection = Counter(each.connection for each in nginx.served)
    assert max(by_connection.values()) == 5
    assert len(by_connection) <= requests // 5 + limits.max_in_flight


async def test_answers_that_the_proxy_compresses_are_read(relay: FakeRelay) -> None:
    ids = [relay.add(ends=end) for end in ("completed", "failed")]
    async with (
        Nginx(relay.url, gzip=True) as nginx,
        session(relay, nginx, Limits(max_rate=1000.0)) as luma,
    ):
        done = await luma.wait_until_done(ids, timeout=PATIENCE)
        assert await luma.get(ids[0]) == done[ids[0]]
    assert [done[task_id].state for task_id in ids] == [State.COMPLETED, State.FAILED]
    assert [each.encoding for each in nginx.served] == ["gzip", "gzip"]


async def test_any_id_arrives_through_the_proxy_as_it_was_sent(relay: FakeRelay) -> None:
    """Not those whose dots lead out of the path, such as `../../../a`: nginx refuses them."""
    for task_id in IDS:
        relay.add(task_id)
    async with Nginx(relay.url) as nginx, session(relay, nginx, Limits(max_rate=1000.0)) as luma:
        for task_id in IDS:
            assert (await luma.get(task_id)).id == task_id
        assert list(await luma.get_many(IDS)) == IDS
    sent = [single_request(task_id).path for task_id in IDS]
    assert [asked.path for asked in relay.log] == [*sent, "/luma/tasks"]
    assert [asked.ids for asked in relay.log] == [*[(each,) for each in IDS], tuple(IDS)]


async def test_a_proxy_that_takes_short_requests_only_is_asked_in_short_ones(
    relay: FakeRelay,
) -> None:
    ids = [relay.add(duration=0.5) for _ in range(200)]
    async with (
        Nginx(relay.url, max_body=1000) as nginx,
        session(relay, nginx, Limits(max_in_flight=1, max_rate=1000.0)) as luma,
    ):
        assert list(await luma.wait_until_done(ids, timeout=PATIENCE)) == ids
    statuses = [each.status for each in nginx.served]
    refused, passed = statuses.count(413), statuses.count(200)
    assert refused <= 6, "two of 100 ids, four of 50"
    assert passed == relay.requests
    assert {len(asked.ids) for asked in relay.log} == {25}
