"""Very many ids: what each costs, and that none of it holds up the loop."""

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
from luma_async.polling import chunks as slicing
from luma_async.polling import poller as waiting
from luma_async.polling import wait as waits
from luma_async.polling.chunks import AsyncChunks, chunks
from luma_async.polling.iterator import Reader
from luma_async.polling.poller import Poller
from luma_async.polling.wait import Notify, Wait
from luma_async.scheduling.changes import Grace
from luma_async.scheduling.items import Batch, Group, Transition
from luma_async.scheduling.scheduler import Scheduler
from luma_async.structs import State
from luma_async.testing import FakeRelay, run_virtual
from tests.fake_answers import Told
from tests.in_memory_relays import ScriptedRelay

OPEN = State.PROCESSING
SLICE = 100  # in TestTheLoop; 2,000 in the package
MANY = 5 * SLICE + 7
PACES = [Every(5.0), Learned(5.0)]


def names(count: int) -> list[str]:
    return [f"task {number:07}" for number in range(count)]


def taken(book: Scheduler[Any], now: float) -> Batch[Any]:
    call = book.take_batch(now)
    assert call is not None
    return call


def calls_to_settle(ids: int, pace: Pace) -> int:
    """Count the Python calls that an answer about so many ids costs, which tells nothing new."""
    book: Scheduler[str] = Scheduler(pace, ids, Grace(), phase=1.0)
    book.subscribe("ann", names(ids), 0.0)
    told = Told(dict.fromkeys(names(ids), OPEN))
    book.complete(taken(book, 0.0), told, 0.1)
    now = book.next_due()
    call = taken(book, now)
    calls = 0

    def count(_: FrameType, event: str, __: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        assert book.complete(call, told, now + 0.1) == []
    finally:
        sys.setprofile(None)
    return calls


class TestTheBook:
    @pytest.mark.parametrize("pace", PACES)
    def test_an_answer_that_shows_nothing_new_is_no_work_for_each_id(self, pace: Pace) -> None:
        assert calls_to_settle(1000, pace) <= calls_to_settle(10, pace)

    @pytest.mark.parametrize("pace", PACES)
    def test_an_open_id_costs_little_memory_beside_its_text(self, pace: Pace) -> None:
        ids = names(20_000)
        book: Scheduler[str] = Scheduler(pace, 100, Grace())
        tracemalloc.start()
        try:
            for part in chunks(ids):
                book.subscribe("ann", part, 0.0)
            for _ in range(len(ids) // 100):
                call = taken(book, 0.0)
                book.complete(call, Told(dict.fromkeys(call.ids, OPEN)), 0.1)
            spent, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        told = sys.getsizeof(Told({"a": OPEN}).generation("a"))
        assert spent / len(ids) - told < 300

    def test_open_ids_are_nothing_for_the_collector_to_look_at(self) -> None:
        book: Scheduler[str] = Scheduler(Every(5.0), 100, Grace())
        gc.collect()
        before = len(gc.get_objects())
        book.subscribe("ann", names(10_000), 0.0)
        assert len(gc.get_objects()) - before < 20

    def test_who_waited_is_forgotten_without_the_collector(self) -> None:
        class Watcher:
            pass

        book: Scheduler[Watcher] = Scheduler(Every(5.0), 100, Grace())
        watchers = [Watcher() for _ in range(4)]
        gone = [weakref.ref(watcher) for watcher in watchers]
        for place, task_id in enumerate("abcd"):
            book.subscribe(watchers[place], [task_id], 0.0)
        call = taken(book, 0.0)
        book.subscribe(watchers[3], ["e"], 0.0)
        book.complete(call, Told({"a": State.FAILED, "b": OPEN, "c": OPEN, "d": OPEN}), 0.1)
        book.unsubscribe(watchers[1], ["b"])
        book.unsubscribe(watchers[3], ["d", "e"])
        book.clear()
        gc.disable()
        try:
            del watchers, call, book
            assert [one() for one in gone] == [None] * 4
        finally:
            gc.enable()

    def test_who_stays_keeps_nobody_who_left(self) -> None:
        book: Scheduler[str] = Scheduler(Every(5.0), 1000, Grace())
        book.subscribe("ann", names(1000), 0.0)
        call = taken(book, 0.0)
        book.complete(call, Told(dict.fromkeys(names(1000), OPEN)), 0.1)
        book.unsubscribe("ann", names(1000)[1:])
        (item,) = book._items.values()  # pyright: ignore[reportPrivateUsage]
        assert item.group
        assert len(item.group.items) <= 2

    def test_what_was_odd_and_is_over_is_no_work_any_more(self) -> None:
        book: Scheduler[str] = Scheduler(Every(5.0), 100, Grace())
        book.subscribe("ann", ["a"], 0.0)
        told = Told({"a": OPEN})
        for answer in (told, Told({}), told):
            call = taken(book, book.next_due())
            (entry,) = call.items
            book.complete(call, answer, call.sent_at + 0.1)
        assert entry.anomaly is None

    def test_those_of_one_age_travel_together_until_their_ages_differ(self) -> None:
        book: Scheduler[str] = Scheduler(Learned(5.0), 100, Grace())
        now, sizes = 0.0, set[int]()
        for name in ("a", "b"):
            book.subscribe("ann", [name], now)
            book.complete(taken(book, now), Told({"a": OPEN, "b": OPEN}), now)
            now += 3.0
        while now < 300.0:
            now = max(now, book.next_due())
            call = taken(book, now)
            book.complete(call, Told(dict.fromkeys(call.ids, OPEN)), now)
            cohorts = {id(entry.group): entry.group for entry in call.items}.values()
            sizes.add(len(cohorts))
            for cohort in cohorts:
                assert cohort is not None
                born = [entry.created_at for entry in cohort.items]
                assert (cohort.oldest, cohort.youngest) == (min(born), max(born))
        assert sizes == {1, 2}

    def test_an_end_without_a_link_teaches_once(self) -> None:
        book: Scheduler[str] = Scheduler(Learned(5.0), 100, Grace(link=60.0))
        book.subscribe("ann", ["a"], 0.0)
        now = 0.0
        while now < 50.0 and len(book):
            now = book.next_due()
            state = OPEN if now < 12.0 else State.COMPLETED
            book.complete(taken(book, now), Told({"a": state}, url=None), now)
        pace = book.schedule.pace
        assert isinstance(pace, Learned)
        assert pace.ends == pytest.approx(1.0)
        assert sum(pace.seen.exposure) < 15.0

    def test_a_pace_of_ones_own_that_is_a_kind_of_every_is_asked_for_each_age(self) -> None:
        class Lull(Every, frozen=True):
            def rest(self, age: float) -> float:
                return 60.0 if 10.0 <= age < 30.0 else 5.0

        book: Scheduler[str] = Scheduler(Lull(5.0), 100, Grace(), phase=0.0)
        for since, name in ((0.0, "old"), (20.0, "middle"), (38.0, "young")):
            book.subscribe("ann", [name], since)
        call = taken(book, 40.0)
        book.complete(call, Told(dict.fromkeys(call.ids, OPEN)), 40.0)
        assert {e.task_id: e.group.due_at for e in call.items if e.group} == {
            "old": 45.0,
            "middle": 100.0,
            "young": 45.0,
        }

    def test_a_cohort_goes_only_where_the_table_leads(self) -> None:
        cohort: Group[str] = Group([], 0.0)
        with pytest.raises(KeyError):
            cohort.apply(Transition.RESCHEDULE)

    def test_what_was_told_before_is_told_to_who_comes_later(self) -> None:
        book: Scheduler[str] = Scheduler(Every(5.0), 100, Grace())
        assert book.subscribe("ann", ["a", "b"], 0.0) == {}
        book.complete(taken(book, 0.0), Told({"a": OPEN}), 0.1)
        known = book.subscribe("bob", ["a", "b", "c"], 0.2)
        assert list(known) == ["a"]


@pytest.mark.virtual_time
class TestTheLoop:
    @pytest.fixture(autouse=True)
    def short_slices(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let few ids be many: what happens between slices is the same with slices of 100."""
        for module in (slicing, waiting, waits):
            monkeypatch.setattr(module, "CHUNK_SIZE", SLICE)

    async def test_parts_leave_the_loop_a_turn_between_them(self) -> None:
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

    async def test_few_are_done_without_a_turn(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(turn.set_result, None)
        assert [part async for part in AsyncChunks("abc", 10)] == [["a", "b", "c"]]
        assert not turn.done()

    @pytest.mark.parametrize("how", ["cancelled", "timed out", "aborted", "closed"])
    async def test_many_ids_are_taken_in_and_let_go_slice_by_slice(self, how: str) -> None:
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
        assert max(await steps()) == SLICE
        assert poller.snapshot().open == MANY
        closing = asyncio.ensure_future(poller.close() if how == "closed" else asyncio.sleep(0))
        if how == "cancelled":
            caller.cancel()
        elif how == "aborted":
            poller.abort(ZeroDivisionError("a cause"))
        elif how == "timed out":
            await asyncio.sleep(2.0)
        assert max(await steps()) < 3 * SLICE
        assert poller.snapshot().open == 0
        await asyncio.wait([caller, closing])

    async def test_a_bad_id_in_a_late_slice_is_an_error_before_anything_is_asked(
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

    async def test_the_end_of_many_is_told_in_the_order_asked(self, relay: FakeRelay) -> None:
        ids = [relay.add(duration=3.0) for _ in range(MANY)]
        limits = Limits(max_batch=1000, max_rate=100.0)
        async with LumaSession(relay.url, api_key=relay.api_key, limits=limits) as luma:
            done = await luma.wait_until_done(reversed(ids))
        assert list(done) == ids[::-1]
        assert all(task_id == generation.id for task_id, generation in done.items())

    async def test_nothing_of_many_is_lost_where_some_are_done_some_open_and_some_unknown(
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

    async def test_a_reader_who_comes_back_while_it_is_let_go_misses_nothing(
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
            told = [generation.id async for generation in reader]
        assert sorted(told) == sorted(ids)

    @pytest.mark.parametrize("turns", range(8))
    async def test_a_reader_that_is_cancelled_while_it_begins_anew_misses_nothing(
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
            told = [generation.id async for generation in reader]
        assert sorted(told) == sorted(ids)

    async def test_a_reader_that_is_cancelled_while_it_begins_and_not_read_on_leaves(
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

    async def test_close_ends_all_waits_by_the_same_error_and_nothing_is_told_twice(
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
                    told = len(error.done) + len(error.pending) + len(error.missing)
                    assert told == len(ids)
                else:
                    assert turns == 0, "it had not begun"

    def test_a_session_that_was_closed_while_many_were_let_go_leaves_nothing(self) -> None:
        async def leaving() -> None:
            async with FakeRelay() as relay:
                async with LumaSession(relay.url, api_key=relay.api_key) as luma:
                    with pytest.raises(WaitTimeout):
                        await luma.wait_until_done(names(MANY), timeout=3.0)

        def cohorts() -> int:
            gc.collect()
            return sum(isinstance(one, Group) for one in gc.get_objects())

        before = cohorts()
        run_virtual(leaving())
        assert cohorts() == before

    async def test_a_reader_that_is_cancelled_while_it_begins_begins_again(self) -> None:
        relay = ScriptedRelay(lambda _: State.COMPLETED)
        poller = Poller(relay, Every(5.0), Limits(max_batch=5000), Grace(), max_cooldown=30.0)
        for turns in range(30):
            reader = Reader(Wait(poller, relay, names(MANY), None, Notify.ENDS))
            first = asyncio.ensure_future(anext(reader))
            for _ in range(turns):
                await asyncio.sleep(0)
            told = [first.result().id] if first.done() else []
            first.cancel()
            await asyncio.wait([first])
            told += [generation.id async for generation in reader]
            assert sorted(told) == names(MANY)
