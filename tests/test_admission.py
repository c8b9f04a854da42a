"""How long a direct call waits for a cool-down of the session."""

import asyncio

import pytest

from luma_async import Limits, LumaError, RateLimitedError, RelayError, SessionClosed
from luma_async.polling.admission import AdmissionQueue, Patience, cooldown_error
from luma_async.polling.health import RelayHealth
from luma_async.scheduling.throttle import Throttle
from tests.fake_answers import FakeAnswer


def cooled_down(*, retry_after: float | None = None, until: float | None = None) -> Throttle:
    throttle = Throttle(Limits(), lambda: 0.5)
    throttle.honour_retry_after(retry_after, 0.0)
    if until is not None:
        throttle.cool_down_until(until)
    return throttle


@pytest.mark.parametrize(("now", "is_exceeded"), [(0.0, False), (-0.1, True), (40.0, False)])
def test_a_cooldown_that_is_as_long_as_allowed_is_waited_for(now: float, is_exceeded: bool) -> None:
    for_errors, by_the_relay = cooled_down(until=30.0), cooled_down(retry_after=30.0)
    for throttle in (for_errors, by_the_relay):
        assert Patience(cooldown=30.0).is_exceeded(throttle, now) == is_exceeded
    assert Patience(retry_after=30.0).is_exceeded(by_the_relay, now) == is_exceeded
    assert not Patience(retry_after=30.0).is_exceeded(for_errors, now)


def test_a_cooldown_that_outlasts_the_retry_after_is_waited_for_if_that_is_short() -> None:
    throttle = cooled_down(retry_after=20.0, until=90.0)
    assert not Patience(retry_after=30.0).is_exceeded(throttle, 0.0)
    assert Patience(retry_after=10.0).is_exceeded(throttle, 0.0)


def test_an_impatient_call_without_a_cause_hears_for_how_long_the_relay_wants_a_pause() -> None:
    error = cooldown_error(cooled_down(retry_after=50.0), 10.0)
    assert isinstance(error, RateLimitedError)
    assert error.retry_after == 40.0


@pytest.mark.parametrize(
    ("cause", "retry_after", "until", "is_copy"),
    [
        (None, 30.0, None, False),
        (RelayError(503), 30.0, None, False),
        (RelayError(503), 30.0, 40.0, True),
        (RelayError(503), None, 30.0, True),
        (RateLimitedError(429, message="slow"), 30.0, None, True),
        (RateLimitedError(429, message="slow"), None, 30.0, True),
    ],
)
def test_the_error_of_a_cooldown_is_a_copy_of_its_cause_unless_the_relay_wants_a_pause(
    cause: LumaError | None, retry_after: float | None, until: float | None, is_copy: bool
) -> None:
    throttle = cooled_down(retry_after=retry_after, until=until)
    throttle.cooldown_cause = cause
    error = cooldown_error(throttle, 10.0)
    if is_copy:
        assert error is not cause
        assert (type(error), str(error)) == (type(cause), str(cause))
    else:
        assert isinstance(error, RateLimitedError)
        assert str(error) == "status 429: the relay asks for a pause"
        assert error.retry_after == 20.0


ENDLESS = Patience()


class Line:
    """An admission queue, with the calls that were admitted, in order."""

    def __init__(self) -> None:
        self.throttle = Throttle(Limits(), lambda: 0.5)
        self.health = RelayHealth()
        self.ready = 0
        self.admitted: list[str] = []
        self.queue = AdmissionQueue(self.throttle, self.health, self._on_ready, max_cooldown=30.0)

    def _on_ready(self) -> None:
        self.ready += 1

    async def join(
        self, name: str, patience: Patience = ENDLESS, *, again: bool = False
    ) -> "asyncio.Task[None]":
        """Let a call wait in line."""

        async def call() -> None:
            await self.queue.admission(patience, again=again)
            self.admitted.append(name)

        task = asyncio.create_task(call())
        await asyncio.sleep(0)
        return task

    def admit(self) -> None:
        self.queue.admit(asyncio.get_running_loop().time())


@pytest.mark.virtual_time
class TestLine:
    async def test_calls_are_admitted_in_their_order_and_retries_before_them(self) -> None:
        line = Line()
        assert not line.queue.has_waiters()
        tasks = [await line.join("first"), await line.join("second")]
        tasks.append(await line.join("retry", again=True))
        assert line.ready == 3
        for _ in tasks:
            assert line.queue.has_waiters()
            line.admit()
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        assert not line.queue.has_waiters()
        assert line.admitted == ["retry", "first", "second"]
        assert line.throttle.in_flight == 3

    async def test_a_call_that_is_cancelled_leaves_the_line_and_takes_no_slot(self) -> None:
        line = Line()
        tasks = [await line.join(name) for name in ("first", "second")]
        tasks[0].cancel()
        assert line.queue.has_waiters(), "before it runs again"
        await asyncio.sleep(0)
        assert line.ready == 3, "the next request may be another one now"
        line.admit()
        await tasks[1]
        assert (line.admitted, line.throttle.in_flight) == (["second"], 1)

    async def test_nothing_is_kept_of_calls_that_are_cancelled_behind_one_that_waits(self) -> None:
        line = Line()
        first = await line.join("first")
        for number in range(100):
            (await line.join(str(number))).cancel()
            await asyncio.sleep(0)
        assert len(line.queue._waiters) == 1  # pyright: ignore[reportPrivateUsage]
        line.admit()
        await first

    async def test_a_call_that_is_cancelled_as_it_is_admitted_frees_its_slot(self) -> None:
        line = Line()
        task = await line.join("first")
        line.admit()
        assert line.throttle.in_flight == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (line.admitted, line.throttle.in_flight, line.ready) == ([], 0, 2)

    async def test_a_call_that_is_rejected_takes_no_slot(self) -> None:
        line = Line()
        line.throttle.honour_retry_after(20.0, 0.0)
        patient = await line.join("patient", Patience(retry_after=30.0))
        impatient = await line.join("impatient", Patience(retry_after=10.0))
        line.queue.reject_impatient(0.0)
        with pytest.raises(RateLimitedError):
            await impatient
        assert line.throttle.in_flight == 0
        assert line.queue.has_waiters()
        line.admit()
        await patient
        assert line.admitted == ["patient"]

    async def test_a_retry_after_that_ends_within_the_cooldown_rejects_no_call_in_line(
        self,
    ) -> None:
        line = Line()
        line.throttle.cool_down_until(10.0)
        task = await line.join("first", Patience(retry_after=1.0))
        for _ in range(2):
            line.queue.reject_impatient(0.0)
            await asyncio.sleep(0)
            line.throttle.honour_retry_after(5.0, 0.0)
        assert line.throttle.cooldown_until == 10.0
        line.admit()
        await task
        assert line.admitted == ["first"]

    async def test_each_longer_cooldown_is_checked_for_the_calls_in_line(self) -> None:
        line = Line()
        tasks = [await line.join(str(most), Patience(cooldown=most)) for most in (5.0, 15.0, 25.0)]
        for until, left in ((10.0, 2), (20.0, 1), (20.0, 1), (30.0, 0)):
            line.throttle.cool_down_until(until)
            line.throttle.cooldown_cause = RelayError(503)
            line.queue.reject_impatient(0.0)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert sum(not task.done() for task in tasks) == left
        assert not line.queue.has_waiters()
        assert all(isinstance(task.exception(), RelayError) for task in tasks)

    @pytest.mark.parametrize("cause", [None, RelayError(503)])
    async def test_a_call_that_waits_too_long_raises_the_cause_of_the_cooldown_or_a_timeout(
        self, cause: LumaError | None
    ) -> None:
        line = Line()
        line.throttle.cooldown_cause = cause
        task = await line.join("first", Patience(seconds=7.0))
        with pytest.raises(LumaError) as caught:
            await task
        assert asyncio.get_running_loop().time() == 7.0
        assert caught.value is not cause
        assert str(caught.value) == (
            str(cause)
            if cause
            else "the rate limit allowed no request in time; raise max_rate or max_in_flight"
        )
        assert not line.queue.has_waiters()

    async def test_closing_rejects_the_calls_in_line_and_later_ones_and_frees_their_slots(
        self,
    ) -> None:
        line = Line()
        tasks = [await line.join("admitted"), await line.join("in line")]
        cancelled = await line.join("cancelled")
        cancelled.cancel()
        line.admit()
        line.queue.close()
        ready = line.ready
        tasks.append(await line.join("later"))
        outcomes = await asyncio.gather(*tasks, cancelled, return_exceptions=True)
        assert [type(one) for one in outcomes] == [*[SessionClosed] * 3, asyncio.CancelledError]
        assert (line.admitted, line.throttle.in_flight) == ([], 0)
        assert line.ready == ready + 2, "of the two that were in line"

    async def test_a_request_is_counted_and_its_slot_freed_however_it_ends(self) -> None:
        line = Line()

        async def answered() -> FakeAnswer:
            await asyncio.sleep(2.0)
            answer = FakeAnswer({})
            answer.retry_after = 8.0
            return answer

        async def failed() -> FakeAnswer:
            raise RelayError(503)

        line.throttle.back_off(RelayError(503), 0.0, 0.0)
        line.throttle.acquire(0.0)
        await line.queue.send(answered, 3)
        assert line.health.answered_at == 2.0
        assert line.throttle.cooldown_cause is None, "the response is recorded"
        assert line.throttle.cooldown_until == 10.0
        line.throttle.acquire(2.0)
        with pytest.raises(RelayError):
            await line.queue.send(failed, 1)
        assert (line.health.stats.requests, line.health.stats.ids_asked) == (2, 4)
        assert (line.throttle.in_flight, line.ready) == (0, 2)

    async def test_a_request_in_flight_is_cancelled_by_a_close(self) -> None:
        line = Line()

        async def hangs() -> FakeAnswer:
            await asyncio.sleep(100.0)
            raise AssertionError("it was not cancelled")

        async def quick() -> FakeAnswer:
            return FakeAnswer({})

        for _ in range(2):
            line.throttle.acquire(0.0)
        await line.queue.send(quick, 1)
        assert not line.queue._in_flight  # pyright: ignore[reportPrivateUsage]
        sending = asyncio.create_task(line.queue.send(hangs, 1))
        await asyncio.sleep(1.0)
        line.queue.close()
        with pytest.raises(SessionClosed, match="open another one"):
            await sending
        assert asyncio.get_running_loop().time() == 1.0
        assert (line.throttle.in_flight, line.health.answered_at) == (0, 0.0)
