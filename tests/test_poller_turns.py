"""The poller between its callers: whose turn it is, what it learns, and what it leaves behind."""

import asyncio
import gc
import weakref
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest

from luma_async import (
    Every,
    Following,
    Limits,
    LumaError,
    NoSuchRouteError,
    NotFoundError,
    PermissionDeniedError,
    RelayError,
    SessionClosed,
    WaitAborted,
)
from luma_async.polling.direct import DirectClient
from luma_async.polling.poller import Poller
from luma_async.polling.wait import Notify, Wait
from luma_async.scheduling.changes import Grace
from luma_async.scheduling.pace import Pace
from luma_async.scheduling.slots import Slots
from luma_async.structs import Generation, State
from tests.fake_answers import LINK, FakeAnswer
from tests.in_memory_relays import RuledRelay, ScriptedRelay

pytestmark = pytest.mark.virtual_time


def now() -> float:
    return asyncio.get_running_loop().time()


class CountingPoller(Poller):
    """A poller that counts how often it looks for requests that are due."""

    runs = 0

    def _run_due(self) -> None:
        self.runs += 1
        super()._run_due()


def poller_of(
    relay: Any, pace: Pace = Every(5.0), slots: Slots | None = None, **limits: Any
) -> CountingPoller:
    return CountingPoller(
        relay, pace, Limits(**limits), Grace(), request_timeout=30.0, roll=lambda: 0.5, slots=slots
    )


class PlainWait(Wait):
    """A wait that counts how often it is aborted, and that can be referenced weakly."""

    aborts = 0

    def abort(self, cause: Exception) -> None:
        self.aborts += 1
        super().abort(cause)


async def started(poller: Poller, relay: Any, *ids: str) -> PlainWait:
    one = PlainWait(poller, relay, ids, None, Notify.NOTHING)
    await one.start()
    return one


def timers() -> list[asyncio.TimerHandle]:
    loop: Any = asyncio.get_running_loop()
    return [handle for handle in loop._scheduled if not handle.cancelled()]


class TestTurns:
    async def test_direct_calls_and_polls_take_turns_where_both_wait_for_the_rate_limit(
        self,
    ) -> None:
        relay = RuledRelay()
        poller = poller_of(relay, max_rate=1.0, max_batch=2)
        one = await started(poller, relay, *(f"polled {number}" for number in range(20)))
        await asyncio.sleep(3.0)
        relay.sent.clear()
        client = DirectClient(poller, relay)
        await asyncio.gather(*(client.get(f"direct {number}") for number in range(4)))
        direct = [ids[0].startswith("direct") for _, ids, _ in relay.sent]
        assert direct == [True, False] * 3 + [True]
        one.stop()

    async def test_direct_calls_do_not_wait_for_polls_that_are_not_due(self) -> None:
        relay = RuledRelay()
        poller = poller_of(relay)
        one = await started(poller, relay, "polled")
        await asyncio.sleep(1.0)
        relay.sent.clear()
        client = DirectClient(poller, relay)
        await asyncio.gather(*(client.get(f"direct {number}") for number in range(4)))
        assert [ids[0] for _, ids, _ in relay.sent] == [f"direct {number}" for number in range(4)]
        one.stop()

    async def test_after_ids_were_added_in_one_turn_of_the_loop_the_poller_runs_once(self) -> None:
        relay = RuledRelay(latency=1.0)
        poller = poller_of(relay)
        waits = [await started(poller, relay, str(number)) for number in range(50)]
        await asyncio.sleep(0.5)
        assert poller.runs == 1
        for one in waits:
            one.stop()

    async def test_a_slot_of_a_shared_budget_is_used_as_soon_as_it_is_reserved(self) -> None:
        relay, slots = RuledRelay(), Slots()
        poller = poller_of(relay, slots=slots)
        one = await started(poller, relay, "a")
        await asyncio.sleep(10.0)
        assert relay.sent == []
        slots.add([now()])
        await asyncio.sleep(0.01)
        assert relay.times == [10.0]
        one.stop()


class TestLearning:
    @pytest.mark.parametrize(("max_batch", "asked_by_batch"), [(1, False), (2, True)])
    async def test_an_id_that_fails_alone_is_asked_by_a_batch_where_batches_are_allowed(
        self, max_batch: int, asked_by_batch: bool
    ) -> None:
        relay = RuledRelay(lambda ids, many: None if many else RelayError(500))
        one = await started(poller_of(relay, max_batch=max_batch), relay, "a")
        await asyncio.sleep(120.0)
        assert bool(relay.batch_times) == asked_by_batch
        one.stop()

    async def test_a_missing_batch_endpoint_is_tried_after_twice_as_long_each_time(self) -> None:
        """The answers of single requests show nothing about it."""
        relay = RuledRelay(lambda ids, many: NoSuchRouteError("a page") if many else None)
        one = await started(poller_of(relay, Every(30.0)), relay, "a", "b")
        await asyncio.sleep(520.0)
        pauses = [later - at for at, later in pairwise(relay.batch_times)]
        assert pauses == pytest.approx([60.0, 120.0, 240.0], abs=30.0)
        one.stop()

    async def test_a_batch_of_two_that_is_answered_shows_a_batch_endpoint(self) -> None:
        batches: list[int] = []

        def rule(ids: tuple[str, ...], many: bool) -> LumaError | None:
            batches.append(len(ids))
            return NotFoundError(404) if many and batches.count(2) % 2 else None

        relay = RuledRelay(rule)
        poller = poller_of(relay)
        one = await started(poller, relay, "a", "b")
        await asyncio.sleep(60.0)
        assert batches.count(2) > 3
        assert poller.batch_size == 100
        one.stop()

    async def test_after_a_response_the_next_failure_counts_as_the_first(self) -> None:
        failing = iter([True, True, False, True, True, False])
        relay = RuledRelay(lambda ids, many: RelayError(503) if next(failing) else None)
        one = await started(poller_of(relay), relay, "a")
        await asyncio.sleep(8.0)
        times = relay.times
        pauses = [later - at for at, later in pairwise(times)]
        assert pauses[:2] == pauses[3:5] == pytest.approx([0.25, 0.5])
        one.stop()

    async def test_the_oldest_id_is_as_old_as_the_seconds_it_has_been_watched(self) -> None:
        relay = RuledRelay()
        poller = poller_of(relay)
        await asyncio.sleep(100.0)
        first = await started(poller, relay, "a")
        await asyncio.sleep(20.0)
        second = await started(poller, relay, "b")
        await asyncio.sleep(10.0)
        assert poller.snapshot().oldest == pytest.approx(30.0)
        first.stop()
        second.stop()


class TestReports:
    async def test_an_id_that_the_key_may_not_see_is_logged(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        relay = RuledRelay(lambda ids, _: PermissionDeniedError(403) if "bad" in ids else None)
        one = await started(poller_of(relay), relay, "bad", "good")
        await asyncio.sleep(31.0)
        assert caplog.messages == ["bad: status 403; other ids are answered"]
        one.stop()

    async def test_a_task_in_an_unknown_state_with_a_link_is_logged_when_it_counts_as_completed(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Unknown(ScriptedRelay):
            async def get(self, task_id: str) -> FakeAnswer:
                answer = Linked({task_id: State.PROCESSING})
                answer.unknown_states = frozenset({task_id})
                return answer

        relay = Unknown(lambda _: State.PROCESSING)
        one = await started(poller_of(relay), relay, "a")
        assert not await one.wait_for_news()
        assert 60.0 <= now() < 70.0
        assert caplog.messages == [
            "a: its state is unknown, but it has a link to a video; it counts as completed"
        ]
        one.stop()

    async def test_the_row_of_an_open_id_is_kept_as_long_as_one_of_its_watchers_needs_it(
        self,
    ) -> None:
        relay = RuledRelay()
        poller = poller_of(relay)
        frugal = Following(poller, last_seen=False)
        frugal.add("a")
        first = await started(poller, relay, "a")
        await asyncio.sleep(1.0)
        (known,) = poller.scheduler.subscribe(first, ["a"], now()).values()
        assert known.generation() == (await relay.get("a")).generation("a")
        item = poller.scheduler._items["a"]  # pyright: ignore[reportPrivateUsage]
        assert item.last_row is not None
        first.stop()
        frugal.close()


class Linked(FakeAnswer):
    """A response whose tasks have a link in any state."""

    def generation(self, task_id: str) -> Generation:
        return Generation(id=task_id, state=self.states[task_id], result_url=LINK)


class TestClose:
    async def test_a_poller_is_closed_at_once_however_many_ids_are_open(self) -> None:
        relay = RuledRelay()
        poller = poller_of(relay)
        large = await started(poller, relay, *map(str, range(5000)))
        await poller.close()
        assert (now(), poller.snapshot().open) == (0.0, 0)
        with pytest.raises(WaitAborted):
            await large.wait_for_news()
        large.stop()

    async def test_no_id_is_open_after_a_close_that_follows_the_end_of_a_large_wait(self) -> None:
        relay = RuledRelay()
        poller = poller_of(relay)
        large = await started(poller, relay, *map(str, range(5000)))
        large.stop()
        assert poller.snapshot().open == 3000, "they are removed in chunks"
        await poller.close()
        assert poller.snapshot().open == 0

    async def test_a_closed_poller_has_no_timer_and_does_not_run_again(self) -> None:
        relay = RuledRelay(latency=20.0)
        poller = poller_of(relay)
        one = await started(poller, relay, "a")
        await asyncio.sleep(1.0)
        direct = asyncio.ensure_future(DirectClient(poller, relay).get("b"))
        await asyncio.sleep(1.0)
        poller.throttle.honour_retry_after(20.0, now())
        waiting = asyncio.ensure_future(DirectClient(poller, relay).get("c"))
        late = await started(poller, relay, "d")
        await asyncio.sleep(1.0)
        assert timers()
        runs = poller.runs
        await poller.close()
        for call in (direct, waiting):
            with pytest.raises(SessionClosed):
                await call
        for wait in (one, late):
            with suppress(WaitAborted):
                await wait.wait_for_news()
            wait.stop()
        await asyncio.sleep(0)
        assert not timers()
        assert poller.runs == runs

    async def test_the_poller_keeps_nothing_of_a_wait_that_was_stopped(self) -> None:
        relay = RuledRelay()
        poller = poller_of(relay)
        one = await started(poller, relay, "a")
        await asyncio.sleep(1.0)
        one.stop()
        poller.abort(ZeroDivisionError("a cause"))
        assert one.aborts == 0
        left = weakref.ref(one)
        del one
        gc.collect()
        assert left() is None


class FaultyPace(Every, frozen=True):
    """A pace of a user that raises for a task which is older than three seconds."""

    def rest(self, age: float) -> float:
        if age > 3.0:
            raise ZeroDivisionError("a fault in a pace")
        return self.seconds


class TestFaults:
    async def test_after_an_error_nothing_is_left_of_the_waits_and_what_was_learned_is_kept(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        relay = RuledRelay(latency=2.0)
        poller = poller_of(relay, FaultyPace(1.0), max_batch=50)
        poller.scheduler.capabilities = poller.scheduler.capabilities.reduced_to(10, 0.0)
        one = await started(poller, relay, *map(str, range(40)))
        with pytest.raises(WaitAborted, match="a fault in a pace"):
            await one.wait_for_news()
        one.stop()
        assert (poller.batch_size, poller.snapshot().open) == (10, 0)
        await asyncio.sleep(10.0)
        poller.abort(ZeroDivisionError("a later cause"))
        assert one.aborts == 1
        left = weakref.ref(one)
        del one
        caplog.clear()
        gc.collect()
        assert left() is None

    async def test_after_an_error_new_ids_do_not_wait_for_requests_that_were_dropped(self) -> None:
        relay = RuledRelay(latency=2.0)
        poller = poller_of(relay, FaultyPace(1.0), max_batch=10)
        one = await started(poller, relay, *map(str, range(40)))
        with pytest.raises(WaitAborted):
            await one.wait_for_news()
        one.stop()
        await asyncio.sleep(10.0)
        relay.sent.clear()
        begun = now()
        two = await started(poller, relay, "new")
        await asyncio.sleep(0.5)
        assert [(at, ids) for at, ids, _ in relay.sent] == [(round(begun, 2), ("new",))]
        two.stop()

    async def test_direct_calls_in_line_are_served_after_an_error_of_a_poll(self) -> None:
        class BrokenBatches(RuledRelay):
            def get_many(self, ids: Sequence[str]) -> Any:
                raise ZeroDivisionError("a fault in a relay")

            async def get(self, task_id: str) -> FakeAnswer:
                await asyncio.sleep(50.0 if task_id == "slow" else 0.0)
                return await super().get(task_id)

        relay = BrokenBatches()
        poller = poller_of(relay)
        client = DirectClient(poller, relay)
        one = await started(poller, relay, "a", "b")
        slow = asyncio.ensure_future(client.get("slow"))
        await client.get("quick")
        assert now() < 1.0
        with pytest.raises(WaitAborted, match="a fault in a relay"):
            await one.wait_for_news()
        one.stop()
        await slow
