"""Subscriptions, on a relay that is a function."""

import asyncio
import gc
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from luma_async import (
    AuthenticationError,
    Ended,
    Every,
    Following,
    Generation,
    LumaSession,
    SessionClosed,
    WaitAborted,
)
from luma_async.polling.following import Feed
from luma_async.protocol.rows import RowText
from luma_async.scheduling.changes import Change
from luma_async.structs import State
from luma_async.testing import FakeRelay
from tests.fake_answers import generation
from tests.in_memory_relays import ScriptedRelay
from tests.test_iterator import callbacks as callbacks
from tests.test_poller import poller_of
from tests.test_wait import CountingPoller, Steps

pytestmark = pytest.mark.virtual_time


def open_until(*ended: str) -> Callable[[str], State]:
    def play(task_id: str) -> State:
        return State.COMPLETED if task_id in ended else State.PROCESSING

    return play


async def read(following: Following, into: list[Ended]) -> None:
    into.extend([end async for end in following])


async def test_ids_added_later_are_reported_as_they_end_and_so_are_missing_ones(
    relay: FakeRelay,
) -> None:
    async with LumaSession(relay.url, api_key=relay.api_key, pace=Every(1.0)) as luma:
        following = luma.follow()
        ends: list[Ended] = []
        reader = asyncio.create_task(read(following, ends))
        following.add(first := relay.add(duration=3.0))
        await asyncio.sleep(2)
        following.add([second := relay.add(duration=0.5, ends="failed"), "unknown", first])
        await asyncio.sleep(60)
        following.close()
        await reader
    states = {end.id: end.generation and end.generation.state for end in ends}
    assert states == {first: State.COMPLETED, second: State.FAILED, "unknown": None}
    assert len(ends) == 3
    assert 0.0 < (ends[0].lag or 0.0) < 2.0


async def test_drop_returns_the_last_state_and_stops_polling() -> None:
    relay = ScriptedRelay(open_until("b"))
    poller = poller_of(relay)
    following = Following(poller)
    following.add(["a", "b", "c"])
    await asyncio.sleep(1)
    seen = following.drop(["a", "a", "b", "stranger"])
    assert list(seen) == ["a"]
    assert seen["a"] is not None
    assert seen["a"].state is State.PROCESSING
    before = len(relay.asked)
    await asyncio.sleep(20)
    assert {i for ids in relay.asked[before:] for i in ids} == {"c"}
    assert len(following) == 1
    assert (await anext(following)).id == "b"
    await poller.close()


async def test_without_last_seen_only_the_state_of_an_open_id_is_kept(relay: FakeRelay) -> None:
    async with LumaSession(relay.url, api_key=relay.api_key, pace=Every(1.0)) as luma:
        task_id = relay.add(duration=20.0, queued=0.0)
        frugal, usual = luma.follow(last_seen=False), luma.follow()
        frugal.add([task_id])
        await asyncio.sleep(3)
        assert luma._poller is not None  # pyright: ignore[reportPrivateUsage]
        (item,) = luma._poller.scheduler._items.values()  # pyright: ignore[reportPrivateUsage]
        assert (item.state, item.last_row) == (State.PROCESSING, None)
        first = await anext(luma.watch(task_id))
        assert (first.state, first.original) == (State.PROCESSING, "{}")
        usual.add([task_id])
        assert frugal.drop([task_id]) == {task_id: Generation(id=task_id, state=State.PROCESSING)}
        ended = await anext(usual)
        assert ended.generation is not None
        assert ended.generation.url
        usual.close()


async def test_a_subscription_that_dropped_ids_is_still_aborted_by_a_rejected_key() -> None:
    refused = AuthenticationError(401, "invalid_api_key")
    relay = ScriptedRelay(open_until())
    poller = poller_of(relay)
    following = Following(poller)
    following.add(["a", "b"])
    await asyncio.sleep(1)
    following.drop(["a"])
    poller.abort(refused)
    with pytest.raises(WaitAborted) as caught:
        await anext(following)
    assert caught.value.cause is refused
    assert list(caught.value.pending) == ["b"]
    with pytest.raises(WaitAborted):
        following.add(["c"])
    assert following.drop(["b"]) == {}
    following.close()
    await poller.close()


async def test_results_from_before_an_abort_are_read_before_it() -> None:
    poller = poller_of(ScriptedRelay(open_until("a")))
    following = Following(poller)
    following.add(["a", "b"])
    await asyncio.sleep(1)
    poller.abort(AuthenticationError(401))
    assert (await anext(following)).id == "a"
    with pytest.raises(WaitAborted):
        await anext(following)
    await poller.close()


async def test_many_tasks_may_read_and_each_result_goes_to_one_of_them() -> None:
    poller = poller_of(ScriptedRelay(open_until(*map(str, range(50)))))
    following = Following(poller)
    ends: list[Ended] = []
    readers = [asyncio.create_task(read(following, ends)) for _ in range(5)]
    await asyncio.sleep(0)
    following.add(map(str, range(50)))
    await asyncio.sleep(1)
    following.close()
    await asyncio.gather(*readers)
    assert sorted(end.id for end in ends) == sorted(map(str, range(50)))
    await poller.close()


async def test_a_reader_that_is_cancelled_as_it_is_woken_passes_the_news_on() -> None:
    poller = poller_of(ScriptedRelay(open_until("a")))
    following = Following(poller)
    first, second = (asyncio.ensure_future(anext(following)) for _ in range(2))
    await asyncio.sleep(0)
    following.add("a")
    row = RowText("a", b"", generation("a", State.COMPLETED))
    feed = following._feed  # pyright: ignore[reportPrivateUsage]
    feed.on_change(Change(task_id="a", row=row, ended=True))
    first.cancel()
    assert (await second).id == "a"
    await poller.close()


async def test_a_closed_subscription_polls_nothing_and_accepts_no_ids() -> None:
    relay = ScriptedRelay(open_until())
    poller = poller_of(relay)
    following = Following(poller)
    following.add("a")
    following.close()
    following.close()
    await asyncio.sleep(20)
    assert relay.asked == []
    assert [end async for end in following] == []
    with pytest.raises(RuntimeError, match="follow\\(\\) again"):
        following.add("b")
    await poller.close()


async def test_after_a_close_or_an_abort_a_later_one_changes_nothing() -> None:
    poller = poller_of(ScriptedRelay(open_until()))
    closed, aborted = Feed(poller, needs_rows=False), Feed(poller, needs_rows=False)
    first, second = ZeroDivisionError("first"), ZeroDivisionError("second")
    closed.close()
    closed.abort(first)
    with pytest.raises(StopAsyncIteration):
        await closed.next()
    aborted.abort(first)
    aborted.abort(second)
    with pytest.raises(WaitAborted) as caught:
        await aborted.next()
    assert caught.value.cause is first


async def test_closing_the_session_ends_the_iteration(relay: FakeRelay) -> None:
    async with LumaSession(relay.url, api_key=relay.api_key) as luma:
        following = luma.follow()
        following.add(task_id := relay.add(duration=100))
    with pytest.raises(WaitAborted) as caught:
        await anext(following)
    assert list(caught.value.pending) == [task_id]


@pytest.mark.parametrize("ids", ["", ["a", ""], [1], b"bytes", None])
async def test_an_invalid_id_is_rejected_and_no_id_of_the_call_is_added(ids: Any) -> None:
    poller = poller_of(ScriptedRelay(open_until()))
    following = Following(poller)
    with pytest.raises((ValueError, TypeError)):
        following.add(ids)
    assert len(following) == 0
    await poller.close()


class TestReaders:
    """Three tasks that read one subscription."""

    @staticmethod
    async def reading(following: Following) -> tuple[list[Steps], list[asyncio.Task[None]]]:
        steps = [Steps(following.__anext__()) for _ in range(3)]
        tasks = [asyncio.ensure_future(one) for one in steps]
        await asyncio.sleep(0)
        return steps, tasks

    async def test_a_result_wakes_the_reader_that_has_waited_longest_and_no_other(self) -> None:
        poller = poller_of(ScriptedRelay(open_until("a")))
        following = Following(poller)
        steps, tasks = await self.reading(following)
        following.add("a")
        await asyncio.sleep(1.0)
        assert [one.count for one in steps] == [1, 0, 0]
        following.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        await poller.close()

    @pytest.mark.parametrize(("is_woken", "counts"), [(False, [0, 0, 0]), (True, [0, 1, 0])])
    async def test_a_reader_that_is_cancelled_wakes_the_next_one_if_it_was_woken_itself(
        self, is_woken: bool, counts: list[int]
    ) -> None:
        poller = poller_of(ScriptedRelay(open_until()))
        following = Following(poller)
        following.add("a")
        steps, tasks = await self.reading(following)
        if is_woken:
            row = RowText("a", b"", generation("a", State.COMPLETED))
            feed = following._feed  # pyright: ignore[reportPrivateUsage]
            feed.on_change(Change(task_id="a", row=row, ended=True))
        tasks[0].cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [one.count for one in steps] == counts
        following.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        await poller.close()


class TestLeaving:
    async def test_a_subscription_without_ids_is_aborted_too(self) -> None:
        poller = poller_of(ScriptedRelay(open_until()))
        following = Following(poller)
        poller.abort(AuthenticationError(401))
        with pytest.raises(WaitAborted, match="401"):
            await anext(following)
        await poller.close()
        with pytest.raises(SessionClosed):
            Following(poller)

    async def test_an_id_that_was_never_answered_is_dropped_without_a_state(self) -> None:
        poller = poller_of(ScriptedRelay(open_until()))
        following = Following(poller)
        following.add(["a", "b"])
        assert following.drop(["b", "a"]) == {"b": None, "a": None}
        await poller.close()

    async def test_what_was_seen_last_is_kept_unless_it_is_not_wanted(self) -> None:
        poller = poller_of(ScriptedRelay(open_until()))
        kept, forgotten = Following(poller), Following(poller, last_seen=False)
        kept.add("a")
        forgotten.add("b")
        await asyncio.sleep(1.0)
        items = poller.scheduler._items  # pyright: ignore[reportPrivateUsage]
        assert [items[one].last_row is None for one in "ab"] == [False, True]
        await poller.close()

    @pytest.mark.parametrize("is_aborted", [False, True])
    async def test_a_subscription_leaves_the_poller_once(self, is_aborted: bool) -> None:
        poller = CountingPoller(ScriptedRelay(open_until()))
        following = Following(poller)
        following.add(["a", "b"])
        if is_aborted:
            poller.abort(AuthenticationError(401))
        following.close()
        following.close()
        assert poller.removed == [2]
        await poller.close()

    async def test_a_subscription_that_is_dropped_is_closed_and_one_that_is_over_needs_nothing(
        self, callbacks: list[object], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        poller = poller_of(ScriptedRelay(open_until()))
        closed, dropped, inherited = Following(poller), Following(poller), Following(poller)
        closed.close()
        del closed
        gc.collect()
        assert callbacks == []
        del dropped
        gc.collect()
        assert len(callbacks) == 1
        child = os.getpid() + 1
        monkeypatch.setattr(os, "getpid", lambda: child)
        del inherited
        gc.collect()
        assert len(callbacks) == 1, "in a forked process it is not closed"
        await poller.close()

    async def test_a_subscription_that_could_not_be_made_is_dropped_without_a_fault(self) -> None:
        poller, faults = poller_of(ScriptedRelay(open_until())), list[object]()
        await poller.close()
        hook, sys.unraisablehook = sys.unraisablehook, faults.append
        try:
            with suppress(SessionClosed):
                Following(poller)
            gc.collect()
        finally:
            sys.unraisablehook = hook
        assert faults == []
