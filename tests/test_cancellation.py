"""Cancellation: at every await, in every way, and nothing is left behind."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from luma_async import Limits, LumaSession, WaitAborted, WaitTimeout
from luma_async.polling.direct import DirectClient
from luma_async.polling.iterator import Reader
from luma_async.polling.poller import Poller
from luma_async.polling.wait import Notify, Wait
from luma_async.scheduling.changes import Grace
from luma_async.scheduling.pace import Every
from luma_async.structs import State
from luma_async.testing import FakeRelay
from tests.in_memory_relays import ScriptedRelay

pytestmark = pytest.mark.virtual_time

IDS = ("a", "b", "c")


def ends_at(seconds: float) -> Callable[[str], State]:
    loop = asyncio.get_running_loop()
    return lambda _: State.COMPLETED if loop.time() >= seconds else State.PROCESSING


def poller_of(relay: ScriptedRelay) -> Poller:
    limits = Limits(max_batch=2, max_in_flight=2, max_rate=10.0)
    return Poller(relay, Every(1.0), limits, Grace(), request_timeout=30.0)


async def wait(poller: Poller, relay: ScriptedRelay, timeout: float | None = None) -> None:
    one = Wait(poller, relay, IDS, timeout, Notify.NOTHING)
    try:
        await one.start()
        await one.wait_for_news()
    finally:
        one.stop()


async def poll_once(poller: Poller, relay: ScriptedRelay) -> None:
    try:
        await wait(poller, relay, timeout=0)
    except WaitTimeout:
        return


async def read(poller: Poller, relay: ScriptedRelay) -> None:
    reader = Reader(Wait(poller, relay, IDS, None, Notify.CHANGES))
    async for _ in reader:
        pass


async def get(poller: Poller, relay: ScriptedRelay) -> None:
    await DirectClient(poller, relay).get("a")


async def get_many(poller: Poller, relay: ScriptedRelay) -> None:
    await DirectClient(poller, relay).get_many(IDS, {})


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def cancel_at(step: int, task: "asyncio.Future[None]") -> None:
    """Cancel the task when the loop has taken `step` more steps."""
    loop: Any = asyncio.get_running_loop()
    run_once, left = loop._run_once, step

    def counted() -> None:
        nonlocal left
        if left == 0:
            loop._run_once = run_once
            task.cancel()
        left -= 1
        run_once()

    loop._run_once = counted


async def assert_idle(poller: Poller, relay: ScriptedRelay, within: float = 0.0) -> None:
    await asyncio.sleep(within)
    await turns(5)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert relay.in_flight == 0
    stats = poller.snapshot()
    assert (stats.in_flight, stats.open) == (0, 0)


@pytest.mark.parametrize("call", [wait, poll_once, read, get, get_many])
async def test_cancelled_at_any_step_of_the_loop_nothing_is_left(
    call: Callable[[Poller, ScriptedRelay], Awaitable[None]],
) -> None:
    loop = asyncio.get_running_loop()
    for step in range(400):
        relay = ScriptedRelay(ends_at(loop.time() + 2.5))
        poller = poller_of(relay)
        task = asyncio.ensure_future(call(poller, relay))
        cancel_at(step, task)
        await asyncio.wait([task])
        cancelled = task.cancelled()
        await assert_idle(poller, relay, within=1.0 if call is read else 0.0)
        if not cancelled:
            break
    else:
        pytest.fail("the last step should let the call end by itself")
    assert step >= 5


@pytest.mark.parametrize("call", [wait, read])
async def test_cancelled_at_any_step_no_other_wait_is_affected(
    call: Callable[[Poller, ScriptedRelay], Awaitable[None]],
) -> None:
    loop = asyncio.get_running_loop()
    for step in range(60):
        relay = ScriptedRelay(ends_at(loop.time() + 2.5))
        poller = poller_of(relay)
        cancelled_wait = asyncio.ensure_future(call(poller, relay))
        other_wait = asyncio.ensure_future(wait(poller, relay))
        cancel_at(step, cancelled_wait)
        await other_wait
        assert relay.cancelled == 0, "a request with a watcher continues"
        await assert_idle(poller, relay)


async def test_a_request_without_a_watcher_is_cancelled() -> None:
    relay = ScriptedRelay(ends_at(99.0), latency=60.0)
    poller = poller_of(relay)
    with anyio.move_on_after(1.0):
        await wait(poller, relay)
    await turns(3)
    assert asyncio.get_running_loop().time() == 1.0
    assert relay.cancelled == 2
    await assert_idle(poller, relay)


@pytest.mark.parametrize(
    "limit", [asyncio.timeout, anyio.fail_after], ids=["asyncio.timeout", "anyio.fail_after"]
)
async def test_a_deadline_of_the_caller_is_kept_to_the_moment(
    relay: FakeRelay, luma: LumaSession, limit: Callable[[float], Any]
) -> None:
    loop = asyncio.get_running_loop()
    with pytest.raises(TimeoutError) as caught:
        cm = limit(7.5)
        if hasattr(cm, "__aenter__"):
            async with cm:
                await luma.wait_until_done(relay.add(ends="never"))
        else:
            with cm:
                await luma.wait_until_done(relay.add(ends="never"))
    assert loop.time() == 7.5
    assert not isinstance(caught.value, WaitTimeout)
    await turns(10)
    assert luma.stats.open == 0


async def test_a_reader_that_leaves_early_stops_the_polling(
    relay: FakeRelay, luma: LumaSession
) -> None:
    ids = [relay.add(), relay.add(ends="never")]
    async for generation in luma.as_completed(ids):
        assert generation.id == ids[0]
        break
    await turns(3)
    assert luma.stats.open == 0
    requests = relay.requests
    await asyncio.sleep(60.0)
    assert relay.requests == requests


async def test_a_reader_that_raises_affects_no_other(relay: FakeRelay, luma: LumaSession) -> None:
    task_id = relay.add(duration=20.0, queued=5.0)
    other = asyncio.ensure_future(luma.wait_until_done(task_id))
    with pytest.raises(ZeroDivisionError):
        async for _ in luma.watch(task_id):
            raise ZeroDivisionError
    assert (await other).is_done


async def test_a_slow_reader_delays_no_other(relay: FakeRelay, luma: LumaSession) -> None:
    loop = asyncio.get_running_loop()
    ids = [relay.add(duration=10.0) for _ in range(20)]
    other = asyncio.ensure_future(luma.wait_until_done(ids))
    other.add_done_callback(lambda _: seen.append(("other", loop.time())))
    seen: list[tuple[str, float]] = []
    async for generation in luma.as_completed(ids):
        seen.append((generation.id, loop.time()))
        await asyncio.sleep(60.0)
    assert dict(seen)["other"] <= 15.1
    assert len(seen) == 21


async def test_a_reader_whose_step_is_cancelled_can_be_read_again(
    relay: FakeRelay, luma: LumaSession
) -> None:
    reader = luma.as_completed([relay.add(duration=12.0)])
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.0):
                await anext(reader)
    assert (await anext(reader)).is_done
    assert relay.requests <= 5, "a cancelled step sends no request"


async def test_a_reader_that_is_kept_and_not_read_again_stops_polling_within_a_second(
    relay: FakeRelay, luma: LumaSession
) -> None:
    ids = [relay.add(), relay.add(duration=90.0)]
    reader = luma.as_completed(ids)
    await anext(reader)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(20.0):
            await anext(reader)
    await asyncio.sleep(1.0)
    assert luma.stats.open == 0
    requests = relay.requests
    await asyncio.sleep(30.0)
    assert relay.requests == requests
    assert (await anext(reader)).id == ids[1], "it may still be read on"


async def test_a_reader_is_left_by_aclose_and_by_async_with(
    relay: FakeRelay, luma: LumaSession
) -> None:
    ids = [relay.add(), relay.add(ends="never")]
    async with luma.as_completed(ids) as reader:
        await anext(reader)
    assert luma.stats.open == 0
    with pytest.raises(StopAsyncIteration):
        await anext(reader)


async def test_closing_a_reader_ends_its_pending_step(relay: FakeRelay, luma: LumaSession) -> None:
    async with luma.as_completed([relay.add(ends="never")], timeout=None) as reader:
        step = asyncio.ensure_future(anext(reader))
        await asyncio.sleep(1.0)
    with pytest.raises(StopAsyncIteration):
        await step


async def test_a_reader_that_is_kept_polls_no_longer_than_its_timeout(
    relay: FakeRelay, luma: LumaSession
) -> None:
    ids = [relay.add(), relay.add(ends="never")]
    reader = luma.as_completed(ids, timeout=60.0)
    await anext(reader)
    await asyncio.sleep(61.0)
    assert luma.stats.open == 0
    with pytest.raises(WaitTimeout) as caught:
        await anext(reader)
    assert caught.value.pending[ids[1]] is not None, "what was seen is remembered"


async def test_a_reader_read_again_after_the_session_closed_has_its_results(
    relay: FakeRelay,
) -> None:
    async with LumaSession(relay.url, api_key=relay.api_key) as luma:
        ids = [relay.add(), relay.add(), relay.add(ends="never")]
        done, open_ = luma.as_completed(ids[:2]), luma.watch(ids[2])
        first, seen = await anext(done), await anext(open_)
        for reader in (done, open_):
            vars(reader)["_wait"].detach_later()
        await asyncio.sleep(2.0)
    assert [first.id, (await anext(done)).id] == ids[:2]
    with pytest.raises(WaitAborted) as caught:
        await anext(open_)
    assert caught.value.pending == {ids[2]: seen}


async def test_a_watch_that_is_read_again_after_a_pause_repeats_no_state(
    relay: FakeRelay, luma: LumaSession
) -> None:
    reader = luma.watch(relay.add(duration=30.0))
    states = [(await anext(reader)).state]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2.0):
            await anext(reader)
    await asyncio.sleep(10.0)
    states += [generation.state async for generation in reader]
    assert states == [State.PROCESSING, State.COMPLETED]


async def test_a_cancelled_wait_with_timeout_zero_keeps_its_results() -> None:
    async with FakeRelay() as relay:
        ids = [relay.add() for _ in range(2)]
        limits = Limits(max_batch=1, max_rate=1.0)
        async with LumaSession(relay.url, api_key=relay.api_key, limits=limits) as luma:
            reader = luma.as_completed(ids, timeout=0)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await anext(reader)
            assert (await anext(reader)).id == ids[0]
            with pytest.raises(WaitTimeout) as caught:
                await anext(reader)
    assert list(caught.value.done) == ids[:1]


async def test_a_reader_that_is_never_read_sends_nothing(
    relay: FakeRelay, luma: LumaSession
) -> None:
    luma.as_completed([relay.add()])
    gc.collect()
    await asyncio.sleep(10.0)
    assert relay.requests == 0


async def test_a_cancelled_close_still_closes() -> None:
    """A ClientSession that is left open warns when it is collected, and warnings are errors."""
    async with FakeRelay(latency=60.0) as relay:
        await _cancel_a_close(relay)
        gc.collect()


async def _cancel_a_close(relay: FakeRelay) -> None:
    luma = await LumaSession(relay.url, api_key=relay.api_key).__aenter__()
    ids = [relay.add(ends="never") for _ in range(10_000)]
    wait = asyncio.ensure_future(luma.wait_until_done(ids))
    await asyncio.sleep(1.0)
    closing = asyncio.ensure_future(luma.close())
    await turns(1)
    closing.cancel()
    await asyncio.wait([closing, wait])
    assert closing.cancelled()
    assert repr(luma).endswith("closed>")
    assert (luma.stats.open, luma.stats.in_flight) == (0, 0)
    await turns(5)
    assert isinstance(wait.exception(), Exception)


async def test_ten_thousand_cancelled_at_once_leave_nothing(
    relay: FakeRelay, luma: LumaSession
) -> None:
    async with asyncio.timeout(3.0):
        waits = [
            asyncio.ensure_future(luma.wait_until_done(f"id {number}")) for number in range(10_000)
        ]
        await asyncio.sleep(1.0)
        for one in waits:
            one.cancel()
        await asyncio.wait(waits)
    await turns(5)
    stats = luma.stats
    assert (stats.open, stats.in_flight) == (0, 0)
    assert (await luma.wait_until_done(relay.add())).is_done
