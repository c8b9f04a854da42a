"""How long a direct call waits for a cool-down of the session."""

import pytest

from luma_async import Limits, RateLimitedError
from luma_async.polling.admission import Patience, cooldown_error
from luma_async.scheduling.throttle import Throttle


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
