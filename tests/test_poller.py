"""The poller on a relay that is a function: what it does when pace, transport or relay fail."""

import asyncio
import logging
from collections.abc import Sequence
from contextvars import ContextVar
from itertools import pairwise
from math import inf, nan
from typing import Any

import anyio
import pytest

from luma_async import (
    AuthenticationError,
    BadRequestError,
    Every,
    GenerationsMissing,
    Limits,
    LumaError,
    NoSuchRouteError,
    NotFoundError,
    RateLimitedError,
    RelayError,
    WaitAborted,
    WaitTimeout,
)
from luma_async.errors import TooLongError
from luma_async.polling.direct import DirectClient
from luma_async.polling.error_handling import FAST_RETRIES
from luma_async.polling.poller import Poller
from luma_async.polling.wait import Notify, Wait
from luma_async.scheduling.changes import Grace
from luma_async.scheduling.pace import Pace
from luma_async.structs import Generation, State
from tests.fake_answers import FakeAnswer
from tests.in_memory_relays import ScriptedRelay

pytestmark = pytest.mark.virtual_time


def poller_of(relay: Any, pace: Pace = Every(5.0), dice: float = 0.5) -> Poller:
    return Poller(relay, pace, Limits(), Grace(), request_timeout=30.0, roll=lambda: dice)


async def wait(poller: Poller, relay: Any, *ids: str) -> list[str]:
    one = Wait(poller, relay, ids, None, Notify.NOTHING)
    try:
        await one.start()
        await one.wait_for_news()
    finally:
        one.stop()
    return list(await one.result())


def done(_: str) -> State:
    return State.COMPLETED


class FaultyPace(Every, frozen=True):
    """A pace of a user, which works until an id is due again."""

    def rest(self, age: float) -> float:
        if age > 0.0:
            raise ZeroDivisionError("a fault in a pace")
        return self.seconds


async def test_an_error_in_a_pace_aborts_all_waits_and_the_next_wait_works(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "luma_async")
    plays = iter([State.PROCESSING] * 4 + [State.COMPLETED] * 9)
    relay = ScriptedRelay(lambda _: next(plays))
    poller = poller_of(relay, FaultyPace(1.0))
    results = await asyncio.gather(
        wait(poller, relay, "a"), wait(poller, relay, "a", "b"), return_exceptions=True
    )
    for result in results:
        assert isinstance(result, WaitAborted)
        assert isinstance(result.cause, ZeroDivisionError)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert await wait(poller, relay, "a") == ["a"], "the next wait finds a poller that works"
    stats = poller.snapshot()
    assert (stats.open, stats.in_flight) == (0, 0)


async def test_requests_that_an_error_drops_do_not_abort_the_waits_that_follow(
    caplog: pytest.LogCaptureFixture,
) -> None:
    relay = ScriptedRelay(lambda _: State.PROCESSING, latency=1.0)
    poller = poller_of(relay, FaultyPace(1.0))
    with pytest.raises(WaitAborted):
        await wait(poller, relay, *map(str, range(300)))
    assert relay.in_flight, "other requests are dropped"
    relay.play = done
    assert await wait(poller, relay, "a") == ["a"]
    assert [one.levelno for one in caplog.records] == [logging.ERROR]
    assert relay.in_flight == 0


class InvalidPace(Every, frozen=True):
    """A pace of a user, which returns an invalid delay."""

    seconds_returned: float = nan
    age: float = -1.0

    def rest(self, age: float) -> float:
        return self.seconds_returned if age > self.age else self.seconds


@pytest.mark.parametrize("seconds_returned", [nan, inf, -inf, 0.0, -5.0])
async def test_a_pace_that_returns_no_positive_number_is_rejected_by_name(
    seconds_returned: float,
) -> None:
    relay = ScriptedRelay(lambda _: State.PROCESSING)
    with pytest.raises(ValueError, match=r"^InvalidPace.* return a finite number above zero$"):
        await wait(poller_of(relay, InvalidPace(5.0, seconds_returned)), relay, "a")
    assert not relay.asked
    with pytest.raises(WaitAborted, match="return a finite number above zero") as caught:
        await wait(poller_of(relay, InvalidPace(5.0, seconds_returned, age=4.0)), relay, "a")
    assert isinstance(caught.value.cause, ValueError)


async def test_an_error_while_a_response_is_applied_aborts_all_waits_that_have_not_ended() -> None:
    relay = ScriptedRelay(lambda name: State.COMPLETED if name == "a" else State.PROCESSING)
    poller = poller_of(relay, FaultyPace(1.0))
    relay.latency = 0.0
    results = await asyncio.wait_for(
        asyncio.gather(
            *(wait(poller, relay, name) for name in ("a", "b", "c")), return_exceptions=True
        ),
        60.0,
    )
    assert all(isinstance(result, WaitAborted) or result == ["a"] for result in results)


class FailingOnce(ScriptedRelay):
    """A relay whose transport raises an unexpected error, once."""

    async def get(self, task_id: str) -> FakeAnswer:
        if not self.asked:
            self.asked.append((task_id,))
            raise ZeroDivisionError("a fault in a transport")
        return await super().get(task_id)


async def test_an_unexpected_error_in_a_transport_is_logged_and_retried(
    caplog: pytest.LogCaptureFixture,
) -> None:
    relay = FailingOnce(done)
    assert await wait(poller_of(relay), relay, "a") == ["a"]
    assert "unexpected error in a poll" in caplog.text


class Down(ScriptedRelay):
    """A relay that answers nothing but errors."""

    async def get(self, task_id: str) -> FakeAnswer:
        await super().get(task_id)
        raise RelayError(503)


async def test_without_random_delays_a_relay_that_is_down_is_polled_once_an_interval() -> None:
    relay = Down(done, latency=0.0)
    poller = poller_of(relay, dice=0.0)
    with anyio.move_on_after(60.0):
        await wait(poller, relay, "a")
    assert len(relay.asked) <= FAST_RETRIES + 60 / 5 + 1


class RejectingBadId(ScriptedRelay):
    """A relay that rejects each batch with the id "bad", and that id by itself."""

    async def get_many(self, ids: Sequence[str]) -> FakeAnswer:
        answer = await super().get_many(ids)
        if "bad" in ids:
            raise BadRequestError(400)
        return answer

    async def get(self, task_id: str) -> FakeAnswer:
        answer = await super().get(task_id)
        if task_id == "bad":
            raise BadRequestError(400)
        return answer


async def test_one_bad_id_is_found_by_bisection_and_reported_to_its_wait_only() -> None:
    relay = RejectingBadId(done)
    poller = poller_of(relay)
    ids = [f"id {number}" for number in range(99)]
    good = asyncio.ensure_future(wait(poller, relay, *ids))
    bad = asyncio.ensure_future(wait(poller, relay, "bad"))
    assert await good == ids
    assert asyncio.get_running_loop().time() < 5.0
    with pytest.raises(GenerationsMissing) as caught:
        await bad
    assert caught.value.missing == ("bad",)
    assert sum("bad" in asked and len(asked) > 1 for asked in relay.asked) <= 7


async def test_requests_run_in_the_context_in_which_the_session_was_opened() -> None:
    user: ContextVar[str] = ContextVar("user", default="none")
    seen: list[str] = []

    def play(_: str) -> State:
        seen.append(user.get())
        return State.COMPLETED if len(seen) > 2 else State.PROCESSING

    relay = ScriptedRelay(play)
    user.set("the owner")
    poller = poller_of(relay)
    user.set("a caller")
    await wait(poller, relay, "a")
    assert seen == ["the owner"] * 3


@pytest.mark.parametrize(("dice", "first"), [(0.0, 2.5), (0.5, 3.75), (0.999, 4.9975)])
async def test_the_first_delay_is_between_half_an_interval_and_a_whole_one(
    dice: float, first: float
) -> None:
    loop = asyncio.get_running_loop()
    times: list[float] = []

    def play(_: str) -> State:
        times.append(loop.time())
        return State.COMPLETED if len(times) > 2 else State.PROCESSING

    relay = ScriptedRelay(play, latency=0.0)
    await wait(poller_of(relay, dice=dice), relay, "a")
    assert times == pytest.approx([0.0, first, first + 5.0])


async def test_waits_started_in_one_turn_of_the_loop_share_one_request() -> None:
    relay = ScriptedRelay(done)
    poller = poller_of(relay)
    await asyncio.gather(*(wait(poller, relay, f"id {number}") for number in range(100)))
    assert [len(ids) for ids in relay.asked] == [100]


async def test_a_request_that_hangs_delays_new_ids_for_a_second_at_most() -> None:
    loop = asyncio.get_running_loop()
    relay = ScriptedRelay(done, latency=20.0)
    poller = poller_of(relay)
    hanging = asyncio.ensure_future(wait(poller, relay, "a"))
    await asyncio.sleep(0.5)
    relay.latency = 0.1
    await wait(poller, relay, "b")
    assert loop.time() == pytest.approx(1.6)
    await hanging


def timers() -> list[asyncio.TimerHandle]:
    loop: Any = asyncio.get_running_loop()
    return [handle for handle in loop._scheduled if not handle.cancelled()]


async def test_no_timer_is_left_after_the_last_wait() -> None:
    relay = ScriptedRelay(lambda _: State.PROCESSING)
    poller = poller_of(relay)
    with anyio.move_on_after(2.0):
        await wait(poller, relay, "a")
    assert not timers()


async def test_no_timer_is_left_after_the_last_direct_call_is_cancelled() -> None:
    relay = ScriptedRelay(done)
    poller = poller_of(relay)
    poller.throttle.honour_retry_after(20.0, asyncio.get_running_loop().time())
    with anyio.move_on_after(2.0):
        await DirectClient(poller, relay).get("a")
    await asyncio.sleep(0)
    assert not timers()


@pytest.mark.parametrize(
    ("error", "times"),
    [(RelayError(502), [0.0, 0.25, 0.75]), (RateLimitedError(429), [0.0, 0.5, 1.5])],
)
async def test_direct_calls_are_retried_with_increasing_delay(
    error: LumaError, times: list[float]
) -> None:
    relay = Failing(error)
    with pytest.raises(type(error)):
        await DirectClient(poller_of(relay), relay).get("a")
    assert relay.times == pytest.approx(times)


def no_such_task() -> NotFoundError:
    error = NotFoundError(404, "task_not_exist")
    error.about_task = True
    return error


@pytest.mark.parametrize(
    ("error", "errors"),
    [(no_such_task(), 0), (NotFoundError(404), 1), (AuthenticationError(401), 1)],
)
async def test_an_unknown_id_is_no_error_in_the_stats_and_a_rejected_key_is_one(
    error: LumaError, errors: int
) -> None:
    relay = Failing(error)
    poller = poller_of(relay)
    with pytest.raises(type(error)):
        await DirectClient(poller, relay).get("a")
    assert poller.snapshot().errors == errors


class Failing(ScriptedRelay):
    """A relay that answers with one error at once, and records when."""

    def __init__(self, error: LumaError) -> None:
        super().__init__(done, latency=0.0)
        self.error = error
        self.times: list[float] = []

    async def _ask(self, ids: Sequence[str]) -> FakeAnswer:
        self.times.append(asyncio.get_running_loop().time())
        raise self.error


async def test_a_retry_after_is_obeyed_for_a_day_at_most() -> None:
    poller = poller_of(ScriptedRelay(done))
    poller.throttle.honour_retry_after(1e9, asyncio.get_running_loop().time())
    assert poller.snapshot().quiet_for == 86_400.0


async def test_a_rejected_key_aborts_the_waits_whose_ids_were_in_no_request_too() -> None:
    relay = Failing(AuthenticationError(401))
    poller = Poller(relay, Every(5.0), Limits(max_batch=1), Grace(), request_timeout=30.0)
    results = await asyncio.gather(
        *(wait(poller, relay, name) for name in "abcde"), return_exceptions=True
    )
    assert [type(result) for result in results] == [WaitAborted] * 5
    assert len(relay.times) <= 4, "max_in_flight"
    assert asyncio.get_running_loop().time() < 1.0


async def test_close_waits_until_the_requests_have_ended() -> None:
    relay = ScriptedRelay(done, latency=60.0)
    poller = poller_of(relay)
    waiting = asyncio.ensure_future(wait(poller, relay, "a", "b"))
    await asyncio.sleep(1.0)
    await poller.close()
    assert relay.in_flight == 0
    assert isinstance((await asyncio.gather(waiting, return_exceptions=True))[0], WaitAborted)


async def test_nothing_is_scheduled_without_a_wait() -> None:
    relay = ScriptedRelay(done)
    poller = poller_of(relay)
    await wait(poller, relay, "a")
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert not timers()
    assert repr(poller) == (
        "<Poller: <Scheduler: 0 open, 0 batches in flight, 100 ids a batch>, 0 requests in flight>"
    )


class BrokenRelay:
    """A relay whose calls fail before they can be awaited."""

    asked = 0

    def get(self, task_id: str) -> Any:
        self.asked += 1
        raise ZeroDivisionError("a fault in a relay")

    get_many = get


async def test_an_error_while_a_request_is_sent_ends_the_wait_and_frees_the_slot() -> None:
    relay = BrokenRelay()
    poller = poller_of(relay)
    for _ in range(6):
        with pytest.raises(WaitAborted) as caught:
            await wait(poller, relay, "a")
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert relay.asked == 6
    assert (poller.snapshot().open, poller.snapshot().in_flight) == (0, 0)
    await poller.close()


async def test_a_stopped_wait_does_not_receive_the_cause_of_an_abort() -> None:
    relay = ScriptedRelay(done)
    poller = poller_of(relay)
    one = Wait(poller, relay, ("a",), None, Notify.NOTHING)
    await one.start()
    one.stop()
    assert await wait(poller, relay, "b") == ["b"]
    poller.abort(ZeroDivisionError("a cause"))
    assert not await one.wait_for_news()
    assert await wait(poller, relay, "a") == ["a"]


async def test_a_wait_that_has_ended_is_not_aborted_before_it_is_read() -> None:
    relay = ScriptedRelay(done)
    one = Wait(poller_of(relay), relay, ("a",), None, Notify.NOTHING)
    await one.start()
    await asyncio.sleep(1.0)
    one.abort(ZeroDivisionError("a cause"))
    assert not await one.wait_for_news()
    assert list(await one.result()) == ["a"]
    one.stop()


async def test_a_wait_that_is_aborted_twice_raises_the_first_cause() -> None:
    relay = ScriptedRelay(lambda _: State.PROCESSING)
    one = Wait(poller_of(relay), relay, ("a",), None, Notify.NOTHING)
    await one.start()
    first = ZeroDivisionError("the first cause")
    one.abort(first)
    one.abort(ZeroDivisionError("a later cause"))
    with pytest.raises(WaitAborted) as caught:
        await one.wait_for_news()
    assert caught.value.cause is first
    one.stop()


async def test_closing_while_a_request_is_in_flight_logs_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    relay = ScriptedRelay(done, latency=1.0)
    poller = poller_of(relay)
    waiting = asyncio.create_task(wait(poller, relay, "a", "b"))
    await asyncio.sleep(0.5)
    assert relay.in_flight, "other requests are dropped"
    await poller.close()
    with pytest.raises(WaitAborted):
        await waiting
    assert relay.cancelled == 1
    assert caplog.records == []


async def test_a_relay_that_becomes_much_slower_is_answered_again() -> None:
    """A request is given up early by the round trips so far, and later each further time."""
    relay = ScriptedRelay(lambda _: State.PROCESSING, latency=0.2)
    poller = poller_of(relay)
    one = Wait(poller, relay, tuple(map(str, range(300))), 3600.0, Notify.NOTHING)
    await one.start()
    await asyncio.sleep(20.0)
    relay.latency = 25.0
    await asyncio.sleep(20.0)
    relay.play = done
    before = len(relay.asked)
    assert not await one.wait_for_news()
    assert len(relay.asked) - before <= 30
    one.stop()


async def test_a_cap_on_the_rows_of_a_batch_is_logged_once_and_learned_each_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Capped(ScriptedRelay):
        async def get_many(self, ids: Sequence[str]) -> FakeAnswer:
            answer = await super().get_many(ids)
            answer.states = {one: answer.states[one] for one in sorted(answer.states, key=int)[:5]}
            return answer

    relay = Capped(lambda _: State.PROCESSING)
    poller = poller_of(relay, Every(20.0))
    one = Wait(poller, relay, tuple(map(str, range(12))), None, Notify.NOTHING)
    await one.start()
    await asyncio.sleep(590.0)
    before = len(relay.asked)
    await asyncio.sleep(410.0)
    sizes = [len(ids) for ids in relay.asked]
    assert max(sizes[before - 20 : before]) == 5
    assert max(sizes[before:]) > 5, "larger batches are tried after ten minutes"
    assert [record.getMessage() for record in caplog.records] == [
        "batch responses leave out tasks; asking for 5 at a time now"
    ]
    one.stop()


class WithoutSingle(ScriptedRelay):
    """A relay without the single endpoint; its batches leave one id out."""

    tried = 0

    async def get(self, task_id: str) -> FakeAnswer:
        self.tried += 1
        raise NoSuchRouteError("a web page")

    async def get_many(self, ids: Sequence[str]) -> FakeAnswer:
        self.asked.append(tuple(ids))
        return FakeAnswer({one: State.PROCESSING for one in ids if one != "left out"})


async def polled_for(seconds: float, missing_grace: float) -> WithoutSingle:
    relay = WithoutSingle(done)
    grace = Grace(missing=missing_grace)
    poller = Poller(relay, Every(60.0), Limits(), grace, request_timeout=30.0, roll=lambda: 0.5)
    one = Wait(poller, relay, ("a", "b", "left out"), None, Notify.NOTHING)
    await one.start()
    await asyncio.sleep(seconds)
    one.stop()
    return relay


async def test_without_a_single_endpoint_an_id_that_is_left_out_causes_few_requests() -> None:
    relay = await polled_for(3600.0, missing_grace=30.0)
    assert len(relay.asked) <= 60 + 20, "one a minute; every 30 s until the id is missing"


async def test_a_missing_single_endpoint_is_logged_once_however_often_it_is_tried(
    caplog: pytest.LogCaptureFixture,
) -> None:
    relay = await polled_for(4 * 3600.0, missing_grace=1e6)
    assert relay.tried > 1
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("the relay has no single endpoint; ")


async def test_a_rejection_after_another_failure_does_not_reduce_the_batch_size() -> None:
    class Flaky(ScriptedRelay):
        whole = 0

        async def get_many(self, ids: Sequence[str]) -> FakeAnswer:
            answer = await super().get_many(ids)
            if len(ids) == 8:
                self.whole += 1
                if self.whole % 4 == 1:
                    raise RelayError(500)
                if self.whole % 4 == 2:
                    raise BadRequestError(400)
            return answer

    relay = Flaky(lambda _: State.PROCESSING)
    poller = poller_of(relay)
    one = Wait(poller, relay, tuple("abcdefgh"), None, Notify.NOTHING)
    await one.start()
    await asyncio.sleep(300.0)
    assert relay.whole > 20
    assert poller.scheduler.capabilities.max_ids(300.0) == 100
    one.stop()


async def test_ids_that_are_rejected_alone_hold_back_all_requests() -> None:
    class Rejecting(ScriptedRelay):
        async def _ask(self, ids: Sequence[str]) -> FakeAnswer:
            self.asked.append(tuple(ids))
            raise BadRequestError(400)

    relay = Rejecting(done)
    poller = poller_of(relay)
    one = Wait(poller, relay, tuple(map(str, range(40))), None, Notify.NOTHING)
    await one.start()
    await asyncio.sleep(300.0)
    assert len(relay.asked) < 300.0 / 0.25 + 2
    alone = sum(len(ids) == 1 for ids in relay.asked)
    assert 100 < alone < 300.0 / 0.25, "a quarter of a second after each one"
    one.stop()


async def test_a_rejected_batch_holds_back_all_requests_for_a_moment() -> None:
    loop, times = asyncio.get_running_loop(), list[float]()

    class Rejecting(ScriptedRelay):
        async def get_many(self, ids: Sequence[str]) -> FakeAnswer:
            times.append(loop.time())
            if len(ids) > 1:
                raise BadRequestError(400)
            return await super().get_many(ids)

    relay = Rejecting(done)
    assert len(await wait(poller_of(relay), relay, *map(str, range(8)))) == 8
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert min(pauses) >= 0.25


async def test_a_wait_that_is_stopped_while_its_ids_are_checked_polls_nothing() -> None:
    relay = ScriptedRelay(done)
    poller = poller_of(relay)
    one = Wait(poller, relay, tuple(map(str, range(9000))), 60.0, Notify.NOTHING)
    starting = asyncio.create_task(one.start())
    await asyncio.sleep(0)
    one.stop()
    await starting
    await asyncio.sleep(10.0)
    assert relay.asked == []
    assert poller.snapshot().open == 0


async def test_a_request_that_other_code_cancels_is_retried_with_growing_delays() -> None:
    class Cancelling(ScriptedRelay):
        async def _ask(self, ids: Sequence[str]) -> FakeAnswer:
            self.asked.append(tuple(ids))
            raise asyncio.CancelledError

    relay = Cancelling(done)
    poller = poller_of(relay)
    one = Wait(poller, relay, ["a"], 60.0, Notify.NOTHING)
    await one.start()
    with pytest.raises(WaitTimeout) as caught:
        await one.wait_for_news()
    one.stop()
    assert "other code cancelled the request" in str(caught.value.__cause__)
    assert poller.snapshot().errors == len(relay.asked) <= 20


async def test_each_direct_call_in_a_cooldown_raises_an_error_of_its_own() -> None:
    class Throttling(ScriptedRelay):
        async def get(self, task_id: str) -> FakeAnswer:
            error = RateLimitedError(429, retry_after=3600.0)
            error.retry_after = 3600.0
            raise error

    relay = Throttling(done)
    poller = poller_of(relay)
    client = DirectClient(poller, relay)
    errors: list[RateLimitedError] = []
    for _ in range(10):
        with pytest.raises(RateLimitedError) as caught:
            await client.get("a")
        errors.append(caught.value)
    assert len(set(map(id, errors))) == 10
    assert errors[-1].args == errors[0].args
    assert errors[-1].__traceback__


async def test_a_look_without_retries_does_not_wait_for_a_cooldown_that_begins_in_line() -> None:
    class Throttling(ScriptedRelay):
        async def get(self, task_id: str) -> FakeAnswer:
            error = RateLimitedError(429)
            error.retry_after = 25.0
            raise error

    loop = asyncio.get_running_loop()
    relay = Throttling(done, latency=0.5)
    poller = poller_of(relay)
    looks = [DirectClient(poller, relay, tries=1).get(str(number)) for number in range(20)]
    begun = loop.time()
    errors = await asyncio.gather(*looks, return_exceptions=True)
    assert {type(error) for error in errors} == {RateLimitedError}
    assert loop.time() - begun < 3.0


async def test_a_direct_call_in_line_does_not_wait_for_a_long_retry_after() -> None:
    class Throttling(ScriptedRelay):
        async def get(self, task_id: str) -> FakeAnswer:
            await asyncio.sleep(0.5)
            error = RateLimitedError(429)
            error.retry_after = 3600.0
            raise error

    loop = asyncio.get_running_loop()
    relay = Throttling(done)
    poller = poller_of(relay)
    begun = loop.time()
    calls = [DirectClient(poller, relay).get(str(number)) for number in range(50)]
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(error) for error in errors} == {RateLimitedError}
    assert loop.time() - begun < 2.0
    assert not poller.queue.has_waiters()


async def test_a_retry_that_does_not_wait_any_longer_raises_its_own_first_error() -> None:
    class Failing(ScriptedRelay):
        async def get(self, task_id: str) -> FakeAnswer:
            await asyncio.sleep(0.5 if task_id == "a" else 0.6)
            error = RelayError(502) if task_id == "a" else RateLimitedError(429)
            error.retry_after = None if task_id == "a" else 3600.0
            raise error

    relay = Failing(done)
    client = DirectClient(poller_of(relay), relay)
    errors = await asyncio.gather(client.get("a"), client.get("b"), return_exceptions=True)
    assert [type(error) for error in errors] == [RelayError, RateLimitedError]


async def test_a_direct_batch_with_a_too_long_response_is_sent_twice_and_then_in_halves() -> None:
    class TooLong(ScriptedRelay):
        async def get_many(self, ids: Sequence[str]) -> FakeAnswer:
            self.asked.append(tuple(ids))
            raise TooLongError("too long")

    relay = TooLong(done)
    found: dict[str, Generation] = {}
    await DirectClient(poller_of(relay), relay).get_many(["a", "b"], found)
    assert relay.asked == [("a", "b"), ("a", "b"), ("a",), ("b",)]


async def test_direct_calls_pause_after_each_batch_that_is_rejected() -> None:
    class Rejecting(ScriptedRelay):
        async def get_many(self, ids: Sequence[str]) -> FakeAnswer:
            self.asked.append(tuple(ids))
            raise BadRequestError(400)

    loop = asyncio.get_running_loop()
    relay = Rejecting(done, latency=0.0)
    begun = loop.time()
    found: dict[str, Generation] = {}
    await DirectClient(poller_of(relay), relay).get_many(list(map(str, range(32))), found)
    rejected = sum(len(ids) > 1 for ids in relay.asked)
    assert len(found) == 32
    assert rejected == 31
    assert loop.time() - begun > 0.25 * rejected + 0.5, "longer than max_rate alone demands"


async def test_the_cause_of_a_cooldown_is_forgotten_when_it_is_over() -> None:
    poller = poller_of(ScriptedRelay(done))
    throttle = poller.throttle
    throttle.back_off(RelayError(502), 0.0, 0.0)
    assert throttle.cooldown_cause
    throttle.record_response(50.0, 50.1)
    assert throttle.cooldown_cause is None


async def test_a_rejected_key_is_believed_at_the_second_request_of_one_at_a_time() -> None:
    loop, times = asyncio.get_running_loop(), list[float]()

    class Rejecting(ScriptedRelay):
        async def get_many(self, ids: Sequence[str]) -> FakeAnswer:
            self.asked.append(tuple(ids))
            times.append(loop.time())
            raise AuthenticationError(401)

    relay = Rejecting(done)
    limits = Limits(max_in_flight=1)
    poller = Poller(relay, Every(5.0), limits, Grace(), request_timeout=30.0, roll=lambda: 0.5)
    with pytest.raises(WaitAborted):
        await wait(poller, relay, *map(str, range(200)))
    assert len(relay.asked) == 2
    assert set(relay.asked[0]).isdisjoint(relay.asked[1])
    assert times[1] - times[0] == pytest.approx(0.25), "after a short pause"
