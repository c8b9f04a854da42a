"""When an outage is logged, and when its end is."""

import logging
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luma_async import AuthenticationError, LumaError, NoSuchRouteError, RelayError, SessionClosed
from luma_async.errors import SetupError
from luma_async.polling.health import QUIET_AFTER_OUTAGE, WARN_EVERY, Outage, RelayHealth
from luma_async.scheduling.error_policy import Action

outcomes = st.lists(st.tuples(st.floats(0.01, 2000.0), st.booleans()), max_size=200)
shared_log = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "luma_async")
    return caplog


def record(outage: Outage, now: float, *, failed: bool) -> None:
    if failed:
        outage.record_failure(now, "status 503")
    else:
        outage.record_response(now)


@shared_log
@given(outcomes)
def test_two_warnings_are_ten_minutes_apart_and_one_recovery_follows_each(
    log: pytest.LogCaptureFixture, requests: list[tuple[float, bool]]
) -> None:
    log.clear()
    outage, now, warned, last_failure = Outage(), 0.0, list[float](), 0.0
    for gap, failed in requests:
        now += gap
        was_on, logged = outage.is_on, len(log.records)
        record(outage, now, failed=failed)
        if not was_on and outage.is_on:
            warned.append(now)
        if was_on and not outage.is_on:
            assert not failed
            assert now - last_failure >= QUIET_AFTER_OUTAGE
        assert len(log.records) - logged == (was_on is not outage.is_on)
        last_failure = now if failed and outage.is_on else last_failure
    for first, second in pairwise(warned):
        assert second - first >= WARN_EVERY


@given(outcomes)
def test_all_requests_of_an_outage_are_counted(requests: list[tuple[float, bool]]) -> None:
    outage, now, seen = Outage(), 0.0, list[bool]()
    for gap, failed in requests:
        now += gap
        record(outage, now, failed=failed)
        seen = [*seen, failed] if outage.is_on else []
        assert (outage.failed, outage.requests) == (sum(seen), len(seen))


def test_the_recovery_is_logged_with_the_number_of_failed_requests(
    log: pytest.LogCaptureFixture,
) -> None:
    outage = Outage()
    for now, failed in ((0.0, True), (1.0, False), (2.0, True), (61.9, False), (62.0, False)):
        record(outage, now, failed=failed)
    assert [one.getMessage() for one in log.records] == [
        "a request failed: status 503",
        "the relay recovered: no failure for 60 s; 2 of 4 requests failed before",
    ]


@pytest.mark.parametrize(("now", "is_on"), [(599.9, False), (600.0, True)])
def test_ten_minutes_after_a_warning_a_failure_begins_an_outage_again(
    log: pytest.LogCaptureFixture, now: float, is_on: bool
) -> None:
    outage = Outage()
    record(outage, 0.0, failed=True)
    record(outage, 60.0, failed=False)
    record(outage, now, failed=True)
    assert outage.is_on == is_on
    assert len(log.records) == 2 + is_on, "the first warning, the recovery, the second warning"


@pytest.mark.parametrize(("now", "is_recent"), [(10.0, True), (39.9, True), (40.0, False)])
def test_a_response_is_recent_for_thirty_seconds(now: float, is_recent: bool) -> None:
    health = RelayHealth()
    assert not health.answered_recently(now)
    health.record_response(10.0)
    assert health.answered_recently(now) == is_recent


def test_the_last_error_is_that_since_the_last_response() -> None:
    health, error = RelayHealth(), RelayError(503)
    health.record_error(error, Action.RETRY, 1.0)
    assert health.last_error is error
    health.record_response(2.0)
    assert health.last_error is None
    assert (health.stats.errors, health.stats.throttled) == (1, 0)


@pytest.mark.parametrize("key", [False, True])
def test_a_response_ends_an_outage_of_the_relay_and_one_of_the_key(
    log: pytest.LogCaptureFixture, key: bool
) -> None:
    health = RelayHealth()
    error = AuthenticationError(401) if key else RelayError(503)
    health.record_error(error, Action.CHECK_KEY if key else Action.RETRY, 0.0)
    if key:
        health.record_key_rejection(error, 0.0)
    health.record_response(60.0)
    assert [one.levelno for one in log.records] == [logging.WARNING, logging.INFO]
    assert log.messages[1].endswith("1 of 1 requests failed before")


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (AuthenticationError(401), "the API key and the account"),
        (SetupError("the proxy is wrong"), "the arguments of the session, and its http="),
        (NoSuchRouteError("a web page"), "the base URL"),
        (SessionClosed(), "the API key and the account"),
    ],
)
def test_what_to_check_after_an_abort_depends_on_the_error(
    log: pytest.LogCaptureFixture, error: LumaError, what: str
) -> None:
    RelayHealth().record_abort(error, 0.0)
    said = str(error) or type(error).__name__
    assert log.messages == [
        f"a request failed: {said}; all waits end with WaitAborted; check {what}"
    ]


@pytest.mark.parametrize(
    ("action", "retry_after", "remedy"),
    [
        (Action.RETRY, None, "retrying with increasing delay"),
        (Action.RETRY, 90.0, "waiting for 90 s, as the relay asks"),
        (Action.RETRY, 1e9, "waiting for 24 h, as the relay asks"),
        (Action.BISECT, 90.0, "retrying with fewer ids per request"),
        (Action.REJECTED, None, "retrying with increasing delay"),
        (Action.CHECK_KEY, None, None),
        (Action.ABORT, None, None),
        (Action.NO_BATCH_ENDPOINT, None, None),
        (Action.NO_SINGLE_ENDPOINT, None, None),
    ],
)
def test_a_failed_request_is_logged_with_what_is_done_unless_the_poller_logs_it(
    log: pytest.LogCaptureFixture, action: Action, retry_after: float | None, remedy: str | None
) -> None:
    error = RelayError(503)
    error.retry_after = retry_after
    RelayHealth().record_error(error, action, 0.0)
    assert log.messages == ([f"a request failed: status 503; {remedy}"] if remedy else [])
