"""The limits of a session, over any interleaving of events."""

from math import inf, nan
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from luma_async.errors import LumaError, RateLimitedError, RelayError
from luma_async.scheduling.slots import Slots
from luma_async.scheduling.throttle import SPACING_SECOND, ExponentialBackoff, Limits, Throttle
from tests.properties import examples

spans = st.one_of(st.sampled_from([0.0, 0.001, 0.02, 0.5, 1.0]), st.floats(0.0, 3.0))
dice = st.floats(0.0, 1.0, exclude_max=True)


def fixed(limits: Limits = Limits()) -> Throttle:
    """Return a throttle whose random delays are the longest ones."""
    return Throttle(limits, lambda: 1.0)


def error_of(throttled: bool) -> LumaError:
    return RateLimitedError(429) if throttled else RelayError(503)


class ThrottleMachine(RuleBasedStateMachine):
    """Sends only when a slot is free, and keeps its own count."""

    def __init__(self) -> None:
        super().__init__()
        self.dice = 0.0
        self.throttle = Throttle(Limits(), self.roll)
        self.now = 0.0
        self.sends: list[float] = []
        self.quiet_until = -inf
        self.in_flight = 0
        self.failures = 0
        self.failed_at = -inf

    def roll(self) -> float:
        return self.dice

    @initialize(rate=st.integers(1, 6), slots=st.integers(1, 8), now=st.floats(0.0, 1e6))
    def start(self, rate: int, slots: int, now: float) -> None:
        self.throttle = Throttle(Limits(max_in_flight=slots, max_rate=rate), self.roll)
        self.now = now

    @rule(span=spans)
    def time_passes(self, span: float) -> None:
        self.now += span

    @rule(most=st.integers(1, 8), late=st.sampled_from([0.0, 0.0, 0.001, 0.015, 0.1]))
    def send_as_soon_as_a_slot_is_free(self, most: int, late: float) -> None:
        for _ in range(most):
            opens_at = self.throttle.next_slot_at()
            if opens_at == inf:
                return
            self.now = max(self.now, opens_at + late)
            self.send()

    @precondition(lambda self: self.throttle.next_slot_at() <= self.now)
    @rule()
    def send(self) -> None:
        assert self.now >= self.quiet_until
        self.throttle.acquire(self.now)
        self.sends.append(self.now)
        self.in_flight += 1

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def return_some(self, data: st.DataObject) -> None:
        for _ in range(data.draw(st.integers(1, self.in_flight))):
            self.throttle.release()
            self.in_flight -= 1

    @rule()
    def succeed(self) -> None:
        self.throttle.record_response(self.now, self.now)
        self.failures = 0

    @rule(throw=dice, throttled=st.booleans(), data=st.data())
    def fail(self, throw: float, throttled: bool, data: st.DataObject) -> None:
        sent_at = data.draw(st.sampled_from([*self.sends[-9:], self.now]))
        self.dice = throw
        self.throttle.back_off(error_of(throttled), sent_at, self.now)
        if sent_at < self.failed_at:
            return
        self.failed_at = self.now
        ceiling = min(20.0, (1.0 if throttled else 0.5) * 2**self.failures)
        self.failures += 1
        self.quiet_until = max(self.quiet_until, self.now + throw * ceiling)

    @rule(span=st.floats(-3.0, 3.0))
    def cool_down(self, span: float) -> None:
        self.throttle.cool_down_until(self.now + span)
        self.quiet_until = max(self.quiet_until, self.now + span)

    @invariant()
    def never_more_in_flight_than_slots(self) -> None:
        assert self.throttle.in_flight == self.in_flight <= self.throttle.limits.max_in_flight
        assert (self.throttle.next_slot_at() == inf) == (
            self.in_flight == self.throttle.limits.max_in_flight
        )

    @invariant()
    def never_more_sends_in_a_second_than_the_rate(self) -> None:
        if self.sends:
            last = self.sends[-1]
            assert sum(last - one < 1.0 for one in self.sends) <= self.throttle.limits.max_rate

    @invariant()
    def the_cool_down_is_kept_and_only_grows(self) -> None:
        assert self.throttle.cooldown_until == self.quiet_until
        assert self.throttle.next_slot_at() >= self.quiet_until


TestThrottle = ThrottleMachine.TestCase
TestThrottle.settings = settings(max_examples=examples(25), stateful_step_count=40)


def sends(limits: Limits, until: float, late: float = 0.0) -> list[float]:
    """Return when requests are sent as early as possible, with timers that are late."""
    throttle, now, found = fixed(limits), 0.0, list[float]()
    while now < until:
        found.append(now)
        throttle.acquire(now)
        throttle.release()
        if throttle.next_slot_at() > now:
            now = throttle.next_slot_at() + late
    return found


@pytest.mark.parametrize("rate", [1, 2, 10, 100, 1000])
@pytest.mark.parametrize("late", [0.0, 0.01])
def test_a_rate_is_reached_and_never_exceeded(rate: int, late: float) -> None:
    found = sends(Limits(max_rate=rate), 5.0, late)
    assert len(found) >= 5.0 * rate / SPACING_SECOND - 1, (
        "a timer that is a little late costs nothing"
    )
    spans = [later - earlier for earlier, later in zip(found, found[rate:], strict=False)]
    assert min(spans) >= 1.0


def test_a_rate_below_one_is_spaced_by_its_inverse() -> None:
    first, second = sends(Limits(max_rate=0.1), 11.0)
    assert second - first >= 10.0


def test_an_unused_second_is_not_saved_up() -> None:
    throttle = fixed(Limits(max_rate=10.0))
    throttle.acquire(0.0)
    throttle.release()
    throttle.acquire(100.0)
    assert throttle.next_slot_at() > 100.0


def test_an_infinite_rate_delays_no_request() -> None:
    throttle = fixed(Limits(max_in_flight=1000, max_rate=inf))
    for _ in range(999):
        throttle.acquire(1.0)
        assert throttle.next_slot_at() <= 1.0


def test_a_new_throttle_is_open() -> None:
    assert fixed().next_slot_at() == -inf


@pytest.mark.parametrize(
    ("throttled", "ceilings"),
    [
        (False, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0]),
        (True, [1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0, 20.0]),
    ],
)
def test_failures_in_a_row_increase_the_delay_up_to_a_cap(
    throttled: bool, ceilings: list[float]
) -> None:
    throttle = fixed()
    for number, ceiling in enumerate(ceilings):
        now = 100.0 * number
        throttle.back_off(error_of(throttled), now, now)
        assert throttle.cooldown_until == now + ceiling


@pytest.mark.parametrize(("throttled", "first"), [(False, 0.5), (True, 1.0)])
def test_after_a_success_the_next_failure_is_the_first(throttled: bool, first: float) -> None:
    throttle = fixed()
    for _ in range(9):
        throttle.back_off(error_of(False), 0.0, 0.0)
    throttle.record_response(1.0, 1.0)
    throttle.back_off(error_of(throttled), 100.0, 100.0)
    assert throttle.cooldown_until == 100.0 + first


def test_one_outage_counts_once_however_many_requests_were_in_flight() -> None:
    throttle = fixed()
    throttle.back_off(error_of(False), 9.0, 10.0)
    throttle.back_off(error_of(False), 9.1, 10.1)
    assert throttle.cooldown_until == 10.5
    throttle.back_off(error_of(False), 10.6, 11.0)
    assert throttle.cooldown_until == 12.0


def test_the_error_behind_a_cool_down_is_known_until_a_response_after_it() -> None:
    throttle, error = fixed(), error_of(False)
    throttle.back_off(error, 10.0, 10.0)
    throttle.record_response(9.9, 10.2)
    assert throttle.cooldown_cause is error
    throttle.record_response(9.9, 10.5)
    assert throttle.cooldown_cause is None, "the cool-down is over"


def test_a_request_uses_up_one_slot_of_a_shared_budget() -> None:
    slots = Slots()
    slots.add([10.0, 11.0])
    throttle = Throttle(Limits(), lambda: 1.0, slots)
    assert throttle.next_send_at(9.9, 9.9, 7) == 10.0
    assert slots.held == 7
    throttle.acquire(10.0)
    assert throttle.next_send_at(10.0, 10.0, 7) == 11.0


@pytest.mark.parametrize(("throttled", "shared"), [(True, [11.0, 13.0]), (False, [])])
def test_a_backoff_is_shared_with_other_sessions_if_the_relay_limits_the_rate(
    throttled: bool, shared: list[float]
) -> None:
    """An outage of this session's connection holds back no other one."""
    slots, received = Slots(), list[float]()
    slots.on_quiet = received.append
    throttle = Throttle(Limits(), lambda: 1.0, slots)
    for now in (10.0, 11.0):
        throttle.back_off(error_of(throttled), now, now)
    assert received == shared


def test_a_success_does_not_shorten_the_cool_down() -> None:
    throttle = fixed()
    throttle.cool_down_until(60.0)
    throttle.record_response(1.0, 1.0)
    assert throttle.cooldown_until == 60.0


def test_in_a_long_cool_down_one_request_is_sent_every_ten_minutes() -> None:
    throttle = fixed()
    throttle.acquire(0.0)
    throttle.release()
    throttle.honour_retry_after(86_400.0, 1.0)
    assert throttle.next_slot_at() == 601.0
    throttle.acquire(601.0)
    assert throttle.next_slot_at() == 86_401.0, "one at a time"
    throttle.release()
    assert throttle.next_slot_at() == 1201.0


def test_a_request_that_is_answered_in_a_cool_down_ends_it() -> None:
    throttle = fixed()
    throttle.honour_retry_after(86_400.0, 1.0)
    for sent_at in (0.5, 1.0):
        throttle.record_response(sent_at, 1.1)
        assert throttle.cooldown_until == 86_401.0, "it was sent before"
    throttle.record_response(601.0, 602.0)
    assert throttle.cooldown_until == 602.0


def test_a_short_cool_down_is_kept() -> None:
    throttle = fixed()
    throttle.honour_retry_after(599.0, 0.0)
    assert throttle.next_slot_at() == 599.0


@given(failures=st.integers(1, 10**9), throw=dice)
def test_the_delay_is_a_share_of_the_ceiling(failures: int, throw: float) -> None:
    """Full jitter: callers that failed together do not retry together."""
    whole = ExponentialBackoff().delay(failures, 1.0)
    assert ExponentialBackoff().delay(failures, throw) == pytest.approx(throw * whole)
    assert (
        ExponentialBackoff().delay(failures, throw)
        <= whole
        <= ExponentialBackoff().delay(failures + 1, 1.0)
        <= 20.0
    )


def test_the_limits_are_those_of_the_contract() -> None:
    assert Limits() == Limits(max_batch=100, max_in_flight=4, max_rate=10.0, max_body=8 * 2**20)


@pytest.mark.parametrize("name", ["max_batch", "max_in_flight", "max_rate", "max_body"])
@pytest.mark.parametrize("value", [0, -1])
def test_a_limit_is_above_zero(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"^{name}={value}; give a (whole )?number [a-z0-9 ]+$"):
        Limits(**{name: value})


@pytest.mark.parametrize("name", ["max_batch", "max_in_flight", "max_rate", "max_body"])
@pytest.mark.parametrize("value", [True, None, "4", [4]])
def test_a_limit_is_a_number(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=rf"^{name} is .*; give a (whole )?number$"):
        Limits(**{name: value})


@pytest.mark.parametrize("name", ["max_batch", "max_in_flight", "max_body"])
@pytest.mark.parametrize("value", [1.5, 4.0, inf, nan])
def test_a_limit_that_counts_is_whole(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match="give a whole number$"):
        Limits(**{name: value})


def test_a_rate_is_not_nan() -> None:
    with pytest.raises(ValueError, match="give a number$"):
        Limits(max_rate=nan)
