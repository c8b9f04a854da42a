"""When an outage is logged, and when its end is."""

import logging
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luma_async.polling.health import QUIET_AFTER_OUTAGE, WARN_EVERY, Outage

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
