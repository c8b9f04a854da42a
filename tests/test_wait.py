"""One wait: what it makes the poller do, when it wakes its caller, and what its errors contain."""

import asyncio
from collections.abc import Awaitable, Generator, Iterable, Iterator, Sequence
from functools import partial
from math import inf
from typing import Any

import pytest

from luma_async import (
    Every,
    GenerationsMissing,
    Limits,
    LumaError,
    LumaSession,
    NotFoundError,
    PermissionDeniedError,
    WaitAborted,
    WaitTimeout,
)
from luma_async.polling.chunks import CHUNK_SIZE
from luma_async.polling.interfaces import Watcher
from luma_async.polling.iterator import Reader
from luma_async.polling.poller import Poller
from luma_async.polling.wait import Notify, Wait
from luma_async.protocol.rows import RowText
from luma_async.scheduling.changes import Change, Grace
from luma_async.structs import Generation, State
from luma_async.testing import FakeRelay
from tests.fake_answers import FakeAnswer, generation
from tests.in_memory_relays import ScriptedRelay

pytestmark = pytest.mark.virtual_time


DONE = {task_id: generation(task_id) for task_id in ("a", "slow")}


def now() -> float:
    return asyncio.get_running_loop().time()


class CountingPoller(Poller):
    """A poller that records how many ids each wait adds and removes."""

    def __init__(self, relay: Any, missing_grace: float = 30.0) -> None:
        grace = Grace(missing=missing_grace)
        super().__init__(relay, Every(5.0), Limits(), grace, request_timeout=30.0, roll=lambda: 0.5)
        self.added: list[int] = []
        self.removed: list[int] = []

    def subscribe(
        self, watcher: Watcher, ids: Iterable[str], until: float = inf
    ) -> dict[str, RowText]:
        given = list(ids)
        self.added.append(len(given))
        return super().subscribe(watcher, given, until)

    def unsubscribe(self, watcher: Watcher, ids: Iterable[str]) -> Iterator[None]:
        given = list(ids)
        self.removed.append(len(given))
        return super().unsubscribe(watcher, given)


class TimedRelay(ScriptedRelay):
    """A relay whose tasks end at a time for each, and are running before; "unknown" is unknown.

    A request with an id in `forbidden` is rejected until its time.
    """

    def __init__(self, forbidden: dict[str, float] | None = None, **ends: float) -> None:
        super().__init__(self._state)
        self.ends = ends
        self.forbidden = forbidden or {}

    def _state(self, task_id: str) -> State | None:
        if task_id == "unknown":
            return None
        return State.COMPLETED if now() >= self.ends.get(task_id, inf) else State.PROCESSING

    async def _ask(self, ids: Sequence[str]) -> FakeAnswer:
        if any(now() < self.forbidden.get(one, 0.0) for one in ids):
            raise PermissionDeniedError(403, "not_yours")
        return await super()._ask(ids)

    async def get(self, task_id: str) -> FakeAnswer:
        if task_id == "unknown":
            raise NotFoundError(404, "task_not_exist")
        return await super().get(task_id)


class Steps:
    """An awaitable that counts how often its caller was woken."""

    def __init__(self, inner: Awaitable[object]) -> None:
        self.count = 0
        self._inner = inner

    def __await__(self) -> Generator[Any, None, None]:
        steps: Any = self._inner.__await__()
        resume = partial(next, steps)
        while True:
            try:
                waited_for = resume()
            except StopIteration:
                return
            try:
                yield waited_for
            except BaseException as error:
                resume = partial(steps.throw, error)
            else:
                resume = partial(next, steps)
                self.count += 1


async def started(
    poller: Poller,
    relay: ScriptedRelay,
    *ids: str,
    timeout: float | None = None,
    news: Notify = Notify.NOTHING,
) -> Wait:
    one = Wait(poller, relay, ids, timeout, news)
    await one.start()
    return one


async def outcome(
    relay: ScriptedRelay, *ids: str, missing_grace: float = 30.0
) -> dict[str, Generation] | LumaError:
    """Wait for ids; return the results or the error."""
    one = await started(CountingPoller(relay, missing_grace), relay, *ids)
    try:
        await one.wait_for_news()
        return await one.result()
    except LumaError as error:
        return error
    finally:
        one.stop()
        await asyncio.sleep(0)


class TestPolling:
    """A wait adds its ids once, and removes those that are open once, however it ends."""

    async def test_a_wait_that_is_never_started_leaves_nothing_to_the_poller(self) -> None:
        relay = TimedRelay()
        poller = CountingPoller(relay)
        one = Wait(poller, relay, ["a", "b"], 60.0, Notify.NOTHING)
        one.detach()
        one.stop()
        assert (poller.added, poller.removed) == ([], [])

    async def test_a_reader_adds_its_ids_once_however_often_it_is_read(self) -> None:
        relay = TimedRelay(a=1.0, b=12.0, c=12.0)
        poller = CountingPoller(relay)
        reader = Reader(Wait(poller, relay, ["a", "b", "c"], None, Notify.ENDS))
        assert sorted([task.id async for task in reader]) == ["a", "b", "c"]
        assert (poller.added, poller.removed) == ([3], [0]), "nothing was open at the end"
        reader._wait.stop()  # pyright: ignore[reportPrivateUsage]
        assert poller.removed == [0]

    async def test_a_wait_that_is_stopped_early_removes_its_ids_once(self) -> None:
        relay = TimedRelay(a=1.0)
        poller = CountingPoller(relay)
        one = await started(poller, relay, "a", "b", timeout=60.0)
        await asyncio.sleep(10.0)
        one.stop()
        one.detach()
        one.stop()
        assert (poller.added, poller.removed) == ([2], [2])
        await asyncio.sleep(0)
        assert not timers()

    async def test_a_wait_that_is_aborted_is_removed_by_the_poller_alone(self) -> None:
        relay = TimedRelay()
        poller = CountingPoller(relay)
        one = await started(poller, relay, "a", "b")
        poller.abort(ZeroDivisionError("a cause"))
        one.stop()
        assert poller.removed == [2]

    @pytest.mark.parametrize("turns", range(12))
    async def test_a_large_wait_that_is_stopped_while_it_is_added_is_not_polled(
        self, turns: int
    ) -> None:
        relay = TimedRelay()
        poller = CountingPoller(relay)
        one = Wait(poller, relay, map(str, range(3 * CHUNK_SIZE)), 60.0, Notify.NOTHING)
        starting = asyncio.create_task(one.start())
        for _ in range(turns):
            await asyncio.sleep(0)
        one.stop()
        await starting
        await asyncio.sleep(10.0)
        assert poller.snapshot().open == 0

    @pytest.mark.parametrize(("count", "turns"), [(1, 0), (CHUNK_SIZE, 0), (CHUNK_SIZE + 1, 1)])
    async def test_a_wait_of_one_chunk_is_added_at_once_and_a_larger_one_in_turns(
        self, count: int, turns: int
    ) -> None:
        relay = TimedRelay()
        one = Wait(CountingPoller(relay), relay, map(str, range(count)), None, Notify.NOTHING)
        steps = Steps(one.start())
        await steps
        assert steps.count == turns
        one.stop()

    async def test_the_ids_of_a_wait_that_is_stopped_are_freed_in_chunks(self) -> None:
        relay = TimedRelay()
        poller = Poller(relay, Every(5.0), Limits(), Grace(), request_timeout=30.0)
        one = await started(poller, relay, *map(str, range(2 * CHUNK_SIZE)))
        one.stop()
        assert len(one.watched_ids) == CHUNK_SIZE
        await asyncio.sleep(0)
        assert len(one.watched_ids) == 0


def timers() -> list[asyncio.TimerHandle]:
    loop: Any = asyncio.get_running_loop()
    return [handle for handle in loop._scheduled if not handle.cancelled()]


class TestNews:
    async def test_a_wait_for_all_results_wakes_its_caller_once(self) -> None:
        relay = TimedRelay(a=1.0, b=12.0, c=22.0)
        one = await started(CountingPoller(relay), relay, "a", "b", "c")
        steps = Steps(one.wait_for_news())
        await steps
        assert steps.count == 1
        assert [*await one.result()] == ["a", "b", "c"]
        one.stop()

    @pytest.mark.parametrize("end", ["expire", "abort"])
    async def test_a_wait_that_is_over_takes_no_more_results(self, end: str) -> None:
        relay = TimedRelay()
        one = await started(CountingPoller(relay), relay, "a", timeout=60.0, news=Notify.ENDS)
        if end == "abort":
            one.abort(ZeroDivisionError("a cause"))
        else:
            one.expire()
        row = RowText("a", b"", generation("a"))
        one.on_change(Change(task_id="a", row=row, ended=True, state=State.COMPLETED))
        assert not one.ended
        assert await one.result() == {}
        one.stop()


class TestErrors:
    async def test_a_timeout_has_what_an_earlier_wait_saw_of_an_open_task(self) -> None:
        relay = TimedRelay()
        poller = CountingPoller(relay)
        first = await started(poller, relay, "a")
        await asyncio.sleep(1.0)
        second = await started(poller, relay, "a", timeout=1.0)
        with pytest.raises(WaitTimeout) as caught:
            await second.wait_for_news()
        assert len(relay.asked) == 1
        assert caught.value.pending == {"a": generation("a", State.PROCESSING)}
        first.stop()
        second.stop()

    async def test_a_timeout_has_the_whole_row_that_another_wait_received(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        task_id = relay.add(ends="never")
        first = asyncio.ensure_future(luma.wait_until_done(task_id))
        await asyncio.sleep(1.0)
        with pytest.raises(WaitTimeout) as caught:
            await luma.wait_until_done(task_id, timeout=1.0)
        assert relay.requests == 1
        seen = caught.value.pending[task_id]
        assert seen is not None
        assert seen.original == (await luma.get(task_id)).original != "{}"
        first.cancel()

    async def test_an_id_that_the_key_may_not_see_ends_the_wait_with_what_the_relay_said(
        self,
    ) -> None:
        relay = TimedRelay({"bad": inf}, good=50.0)
        error = await outcome(relay, "bad", "good")
        assert isinstance(error, WaitAborted)
        assert str(error).startswith("the key may not see 1 of the ids (status 403: not_yours): ")
        assert isinstance(error.cause, PermissionDeniedError)
        assert (list(error.done), error.pending) == (["good"], {"bad": None})
        assert 50.0 <= now() < 56.0, "the others are waited for"

    async def test_all_ids_that_the_key_may_not_see_are_counted_and_wake_the_caller_once(
        self,
    ) -> None:
        relay = TimedRelay(good=20.0)
        one = await started(CountingPoller(relay), relay, "first", "second", "good")
        steps = Steps(one.wait_for_news())
        waiting = asyncio.ensure_future(steps)
        errors = [PermissionDeniedError(403, name) for name in ("first", "second")]
        for error in errors:
            await asyncio.sleep(1.0)
            one.on_change(Change(task_id=str(error.code), row=None, forbidden=True, error=error))
        with pytest.raises(WaitAborted, match="the key may not see 2 of the ids") as caught:
            await waiting
        assert caught.value.cause is errors[0]
        assert list(caught.value.pending) == ["first", "second"]
        assert steps.count == 1
        one.stop()

    async def test_an_id_that_the_key_may_see_after_all_is_waited_for(self) -> None:
        relay = TimedRelay({"a": 50.0}, a=50.0, slow=100.0)
        assert await outcome(relay, "a", "slow") == {"a": DONE["a"], "slow": DONE["slow"]}
        begun = now()
        relay = TimedRelay({"a": begun + 50.0}, a=begun + 150.0, slow=begun + 100.0)
        assert await outcome(relay, "a", "slow") == {"a": DONE["a"], "slow": DONE["slow"]}
        assert now() >= begun + 150.0

    async def test_a_missing_id_is_reported_with_what_the_relay_said_of_it(self) -> None:
        relay = TimedRelay(a=60.0)
        error = await outcome(relay, "unknown", "a")
        assert isinstance(error, GenerationsMissing)
        assert str(error).startswith("the relay does not know some ids (status 404: task_not_exi")
        assert isinstance(error.__cause__, NotFoundError)
        assert (list(error.done), error.pending, error.missing) == (["a"], {}, ("unknown",))

    async def test_a_missing_id_of_which_the_relay_said_nothing_is_reported_without_words(
        self,
    ) -> None:
        relay = ScriptedRelay(lambda _: None)
        error = await outcome(relay, "a", missing_grace=0.0)
        assert isinstance(error, GenerationsMissing)
        assert str(error).startswith("the relay does not know some ids: 0 done, ")
        assert error.__cause__ is None
