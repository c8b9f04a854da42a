"""Very many ids: what each costs, and that they do not block the loop."""

import asyncio
import gc
import sys
import tracemalloc
import weakref
from itertools import pairwise
from types import FrameType
from typing import Any

import pytest

from luma_async import (
    Every,
    GenerationsMissing,
    Learned,
    Limits,
    LumaSession,
    Pace,
    SessionClosed,
    WaitAborted,
    WaitTimeout,
)
from luma_async.polling import chunks as chunking
from luma_async.polling import poller as waiting
from luma_async.polling import wait as waits
from luma_async.polling.chunks import AsyncChunks, chunks
from luma_async.polling.iterator import Reader
from luma_async.polling.poller import Poller
from luma_async.polling.wait import Notify, Wait
from luma_async.scheduling.batches import Batch
from luma_async.scheduling.changes import Grace
from luma_async.scheduling.items import Group, Transition
from luma_async.scheduling.scheduler import Scheduler
from luma_async.structs import State
from luma_async.testing import FakeRelay, run_virtual
from tests.fake_answers import FakeAnswer
from tests.in_memory_relays import ScriptedRelay

OPEN = State.PROCESSING
CHUNK = 100  # in TestTheLoop; 2,000 in the package
MANY = 5 * CHUNK + 7
PACES = [Every(5.0), Learned(5.0)]


def names(count: int) -> list[str]:
    return [f"task {number:07}" for number in range(count)]


def take(scheduler: Scheduler[Any], now: float) -> Batch[Any]:
    batch = scheduler.take_batch(now)
    assert batch is not None
    return batch


def calls_to_complete(ids: int, pace: Pace) -> int:
    """Count the Python calls that a response without news costs, with so many ids."""
    scheduler: Scheduler[str] = Scheduler(pace, ids, Grace(), phase=1.0)
    scheduler.subscribe("ann", names(ids), 0.0)
    received = FakeAnswer(dict.fromkeys(names(ids), OPEN))
    scheduler.complete(take(scheduler, 0.0), received, 0.1)
    now = scheduler.next_due()
    batch = take(scheduler, now)
    calls = 0

    def count(_: FrameType, event: str, __: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        assert scheduler.complete(batch, received, now + 0.1) == []
    finally:
        sys.setprofile(None)
    return calls


class TestTheScheduler:
    @pytest.mark.parametrize("pace", PACES)
    def test_a_response_without_news_costs_no_call_per_id(self, pace: Pace) -> None:
        assert calls_to_complete(1000, pace) <= calls_to_complete(10, pace)

    @pytest.mark.parametrize("pace", PACES)
    def test_an_open_id_takes_little_memory_besides_its_row(self, pace: Pace) -> None:
        ids = names(20_000)
        scheduler: Scheduler[str] = Scheduler(pace, 100, Grace())
        tracemalloc.start()
        try:
            for part in chunks(ids):
                scheduler.subscribe("ann", part, 0.0)
            for _ in range(len(ids) // 100):
                batch = take(scheduler, 0.0)
                scheduler.complete(batch, FakeAnswer(dict.fromkeys(batch.ids, OPEN)), 0.1)
            spent, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        received = sys.getsizeof(FakeAnswer({"a": OPEN}).generation("a"))
        assert spent / len(ids) - received < 300

    def test_open_ids_are_hidden_from_the_garbage_collector(self) -> None:
        scheduler: Scheduler[str] = Scheduler(Every(5.0), 100, Grace())
        gc.collect()
        before = len(gc.get_objects())
        scheduler.subscribe("ann", names(10_000), 0.0)
        assert len(gc.get_objects()) - before < 20

    def test_watchers_are_freed_without_the_garbage_collector(self) -> None:
        class Watcher:
            pass

        scheduler: Scheduler[Watcher] = Scheduler(Every(5.0), 100, Grace())
        watchers = [Watcher() for _ in range(4)]
        gone = [weakref.ref(watcher) for watcher in watchers]
        for place, task_id in enumerate("abcd"):
            scheduler.subscribe(watchers[place], [task_id], 0.0)
        batch = take(scheduler, 0.0)
        scheduler.subscribe(watchers[3], ["e"], 0.0)
        scheduler.complete(
            batch, FakeAnswer({"a": State.FAILED, "b": OPEN, "c": OPEN, "d": OPEN}), 0.1
        )
        scheduler.unsubscribe(watchers[1], ["b"])
        scheduler.unsubscribe(watchers[3], ["d", "e"])
        scheduler.clear()
        gc.disable()
        try:
            del watchers, batch, scheduler
            assert [one() for one in gone] == [None] * 4
        finally:
            gc.enable()

    def test_a_watched_id_does_not_keep_removed_ones_in_memory(self) -> None:
        scheduler: Scheduler[str] = Scheduler(Every(5.0), 1000, Grace())
        scheduler.subscribe("ann", names(1000), 0.0)
        batch = take(scheduler, 0.0)
        scheduler.complete(batch, FakeAnswer(dict.fromkeys(names(1000), OPEN)), 0.1)
        scheduler.unsubscribe("ann", names(1000)[1:])
        (item,) = scheduler._items.values()  # pyright: ignore[reportPrivateUsage]
        assert item.group
        assert len(item.group.items) <= 2

    def test_an_anomaly_that_is_clear_is_dropped(self) -> None:
        scheduler: Scheduler[str] = Scheduler(Every(5.0), 100, Grace())
        scheduler.subscribe("ann", ["a"], 0.0)
        received = FakeAnswer({"a": OPEN})
        for answer in (received, FakeAnswer({}), received):
            batch = take(scheduler, scheduler.next_due())
            (item,) = batch.items
            scheduler.complete(batch, answer, batch.sent_at + 0.1)
        assert item.anomaly is None

    def test_ids_of_one_age_are_one_group_until_their_ages_differ(self) -> None:
        scheduler: Scheduler[str] = Scheduler(Learned(5.0), 100, Grace())
        now, sizes = 0.0, set[int]()
        for name in ("a", "b"):
            scheduler.subscribe("ann", [name], now)
            scheduler.complete(take(scheduler, now), FakeAnswer({"a": OPEN, "b": OPEN}), now)
            now += 3.0
        while now < 300.0:
            now = max(now, scheduler.next_due())
            batch = take(scheduler, now)
            scheduler.complete(batch, FakeAnswer(dict.fromkeys(batch.ids, OPEN)), now)
            groups = {id(item.group): item.group for item in batch.items}.values()
            sizes.add(len(groups))
            for group in groups:
                assert group is not None
                born = [item.created_at for item in group.items]
                assert (group.oldest, group.youngest) == (min(born), max(born))
        assert sizes == {1, 2}

    def test_an_end_without_a_link_is_learned_once(self) -> None:
        scheduler: Scheduler[str] = Scheduler(Learned(5.0), 100, Grace(link=60.0))
        scheduler.subscribe("ann", ["a"], 0.0)
        now = 0.0
        while now < 50.0 and len(scheduler):
            now = scheduler.next_due()
            state = OPEN if now < 12.0 else State.COMPLETED
            scheduler.complete(take(scheduler, now), FakeAnswer({"a": state}, url=None), now)
        pace = scheduler.schedule.pace
        assert isinstance(pace, Learned)
        assert pace.ends == pytest.approx(1.0)
        assert sum(pace.seen.exposure) < 15.0

    def test_a_subclass_of_every_is_called_for_each_age(self) -> None:
        class Lull(Every, frozen=True):
            def rest(self, age: float) -> float:
                return 60.0 if 10.0 <= age < 30.0 else 5.0

        scheduler: Scheduler[str] = Scheduler(Lull(5.0), 100, Grace(), phase=0.0)
        for since, name in ((0.0, "old"), (20.0, "middle"), (38.0, "young")):
            scheduler.subscribe("ann", [name], since)
        batch = take(scheduler, 40.0)
        scheduler.complete(batch, FakeAnswer(dict.fromkeys(batch.ids, OPEN)), 40.0)
        assert {e.task_id: e.group.due_at for e in batch.items if e.group} == {
            "old": 45.0,
            "middle": 100.0,
            "young": 45.0,
        }

    def test_a_group_allows_only_the_transitions_of_the_table(self) -> None:
        group: Group[str] = Group([], 0.0)
        with pytest.raises(KeyError):
            group.apply(Transition.RESCHEDULE)

    def test_a_later_watcher_receives_the_last_row(self) -> None:
        scheduler: Scheduler[str] = Scheduler(Every(5.0), 100, Grace())
        assert scheduler.subscribe("ann", ["a", "b"], 0.0) == {}
        scheduler.complete(take(scheduler, 0.0), FakeAnswer({"a": OPEN}), 0.1)
        known = scheduler.subscribe("bob", ["a", "b", "c"], 0.2)
        assert list(known) == ["a"]


@pytest.mark.virtual_time
class TestTheLoop:
    @pytest.fixture(autouse=True)
    def short_chunks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let few ids be many: what happens between chunks is the same with chunks of 100."""
        for module in (chunking, waiting, waits):
            monkeypatch.setattr(module, "CHUNK_SIZE", CHUNK)

    async def test_the_loop_has_a_turn_between_two_chunks(self) -> None:
        turns = 0

        async def turning() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.ensure_future(turning())
        parts = [(len(part), turns) async for part in AsyncChunks(range(25), 10)]
        task.cancel()
        assert [size for size, _ in parts] == [10, 10, 5]
        assert parts[0][1] < parts[1][1] < parts[2][1]

    async def test_few_ids_take_no_turn(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(turn.set_result, None)
        assert [part async for part in AsyncChunks("abc", 10)] == [["a", "b", "c"]]
        assert not turn.done()

    @pytest.mark.parametrize("how", ["cancelled", "timed out", "aborted", "closed"])
    async def test_many_ids_are_subscribed_and_unsubscribed_in_chunks(self, how: str) -> None:
        relay = ScriptedRelay(lambda _: OPEN)
        poller = Poller(relay, Every(5.0), Limits(), Grace(), max_cooldown=30.0)
        wait = Wait(poller, relay, names(MANY), 2.0, Notify.NOTHING)

        async def waiting() -> None:
            try:
                await wait.start()
                await wait.wait_for_news()
            finally:
                wait.stop()

        async def steps() -> list[int]:
            sizes: list[int] = []
            for _ in range(50):
                sizes.append(poller.snapshot().open)
                await asyncio.sleep(0)
            return [abs(late - early) for early, late in pairwise(sizes)]

        caller = asyncio.ensure_future(waiting())
        assert max(await steps()) == CHUNK
        assert poller.snapshot().open == MANY
        closing = asyncio.ensure_future(poller.close() if how == "closed" else asyncio.sleep(0))
        if how == "cancelled":
            caller.cancel()
        elif how == "aborted":
            poller.abort(ZeroDivisionError("a cause"))
        elif how == "timed out":
            await asyncio.sleep(2.0)
        assert max(await steps()) < 3 * CHUNK
        assert poller.snapshot().open == 0
        await asyncio.wait([caller, closing])

    async def test_a_bad_id_in_a_late_chunk_is_an_error_before_any_request(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        for bad, error in (("", ValueError), (b"x", TypeError), ("\ud800", ValueError)):
            ids: Any = [*names(MANY), bad]
            with pytest.raises(error):
                await luma.wait_until_done(ids)
            reader = luma.as_completed(ids)
            with pytest.raises(error):
                await anext(reader)
            with pytest.raises(StopAsyncIteration):
                await anext(reader)
        await asyncio.sleep(5.0)
        assert relay.requests == 0

    async def test_the_results_of_many_ids_are_in_the_order_of_the_ids(
        self, relay: FakeRelay
    ) -> None:
        ids = [relay.add(duration=3.0) for _ in range(MANY)]
        limits = Limits(max_batch=1000, max_rate=100.0)
        async with LumaSession(relay.url, api_key=relay.api_key, limits=limits) as luma:
            done = await luma.wait_until_done(reversed(ids))
        assert list(done) == ids[::-1]
        assert all(task_id == generation.id for task_id, generation in done.items())

    async def test_no_id_of_many_is_lost_if_some_are_done_some_open_and_some_unknown(
        self, relay: FakeRelay
    ) -> None:
        done = [relay.add() for _ in range(MANY)]
        pending = [relay.add(ends="never") for _ in range(MANY)]
        missing = names(100)
        limits = Limits(max_batch=1000, max_rate=100.0)
        async with LumaSession(
            relay.url, api_key=relay.api_key, limits=limits, missing_grace=0.0
        ) as luma:
            with pytest.raises(WaitTimeout) as caught:
                await luma.wait_until_done([*missing, *done, *pending], timeout=20.0)
            with pytest.raises(GenerationsMissing):
                await luma.wait_until_done([*missing, *done])
        assert list(caught.value.done) == done
        assert caught.value.missing == tuple(missing)
        assert list(caught.value.pending) == pending
        assert all(one and one.state is OPEN for one in caught.value.pending.values())

    async def test_a_reader_that_continues_while_it_is_unsubscribed_misses_nothing(
        self, relay: FakeRelay
    ) -> None:
        ids = [relay.add(duration=30.0) for _ in range(MANY)]
        limits = Limits(max_batch=1000, max_rate=100.0)
        async with LumaSession(relay.url, api_key=relay.api_key, limits=limits) as luma:
            reader = luma.as_completed(ids)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(5.0):
                    await anext(reader)
            await asyncio.sleep(1.0)
            received = [generation.id async for generation in reader]
        assert sorted(received) == sorted(ids)

    @pytest.mark.parametrize("turns", range(8))
    async def test_a_reader_that_is_cancelled_while_it_subscribes_again_misses_nothing(
        self, relay: FakeRelay, turns: int
    ) -> None:
        async def cancelled_after(turns: int, seconds: float) -> None:
            step = asyncio.ensure_future(anext(reader))
            await asyncio.sleep(seconds)
            for _ in range(turns):
                await asyncio.sleep(0)
            step.cancel()
            await asyncio.wait([step])

        ids = [relay.add(duration=60.0) for _ in range(MANY)]
        limits = Limits(max_batch=1000, max_rate=100.0)
        async with LumaSession(relay.url, api_key=relay.api_key, limits=limits) as luma:
            reader = luma.as_completed(ids)
            await cancelled_after(0, 30.0)
            await asyncio.sleep(5.0)
            assert luma.stats.open == 0
            await cancelled_after(turns, 0.0)
            received = [generation.id async for generation in reader]
        assert sorted(received) == sorted(ids)

    async def test_a_reader_that_is_cancelled_while_it_subscribes_and_not_read_again_unsubscribes(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        reader = luma.as_completed([relay.add(ends="never") for _ in range(MANY)])
        step = asyncio.ensure_future(anext(reader))
        for _ in range(9):
            await asyncio.sleep(0)
        assert luma.stats.open
        step.cancel()
        await asyncio.sleep(2.0)
        assert luma.stats.open == 0

    async def test_close_ends_all_waits_by_the_same_error_and_lists_each_id_once(
        self, relay: FakeRelay
    ) -> None:
        limits = Limits(max_batch=1000, max_rate=100.0)
        parts = [[relay.add(duration=5.0) for _ in range(count)] for count in (MANY, 3000, 7)]
        for turns in range(12):
            luma = LumaSession(relay.url, api_key=relay.api_key, limits=limits)
            async with luma:
                waits = [asyncio.ensure_future(luma.wait_until_done(ids)) for ids in parts]
                for _ in range(turns):
                    await asyncio.sleep(0)
            for ids, wait in zip(parts, waits, strict=True):
                error = (await asyncio.gather(wait, return_exceptions=True))[0]
                assert isinstance(error, WaitAborted | SessionClosed)
                if isinstance(error, WaitAborted):
                    received = len(error.done) + len(error.pending) + len(error.missing)
                    assert received == len(ids)
                else:
                    assert turns == 0, "it had not begun"

    def test_a_session_closed_while_many_ids_are_unsubscribed_leaves_nothing(self) -> None:
        async def leaving() -> None:
            async with FakeRelay() as relay:
                async with LumaSession(relay.url, api_key=relay.api_key) as luma:
                    with pytest.raises(WaitTimeout):
                        await luma.wait_until_done(names(MANY), timeout=3.0)

        def groups() -> int:
            gc.collect()
            return sum(isinstance(one, Group) for one in gc.get_objects())

        before = groups()
        run_virtual(leaving())
        assert groups() == before

    async def test_a_reader_that_is_cancelled_while_it_subscribes_can_be_read_again(self) -> None:
        relay = ScriptedRelay(lambda _: State.COMPLETED)
        poller = Poller(relay, Every(5.0), Limits(max_batch=5000), Grace(), max_cooldown=30.0)
        for turns in range(30):
            reader = Reader(Wait(poller, relay, names(MANY), None, Notify.ENDS))
            first = asyncio.ensure_future(anext(reader))
            for _ in range(turns):
                await asyncio.sleep(0)
            received = [first.result().id] if first.done() else []
            first.cancel()
            await asyncio.wait([first])
            received += [generation.id async for generation in reader]
            assert sorted(received) == names(MANY)
