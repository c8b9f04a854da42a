"""What a session has done so far, as a value."""

from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from luma_async import State, Stats
from luma_async.text import format_duration

seconds = st.floats(min_value=0.0, max_value=1e5)
ends = st.sampled_from([State.COMPLETED, State.FAILED, None])


@pytest.mark.parametrize("name", Stats.__struct_fields__)
def test_a_snapshot_starts_at_zero_and_cannot_be_set(name: str) -> None:
    stats = Stats()
    assert str(stats) == "0 open, 0 in flight, 0 requests; 0 completed, 0 failed, 0 missing"
    assert getattr(stats, name) == (None if name == "learned" else 0)
    with pytest.raises(AttributeError):
        setattr(stats, name, 1)


def test_a_request_counts_once_and_each_id_of_it_too() -> None:
    assert Stats().after_request(3).after_request(2) == Stats(requests=2, ids_asked=5)


def test_an_error_is_counted_and_the_throttled_twice() -> None:
    stats = Stats().after_error(throttled=False).after_error(throttled=True)
    assert stats == Stats(errors=2, throttled=1)


def test_counting_leaves_the_earlier_snapshot_as_it_was() -> None:
    stats = Stats(requests=1)
    stats.after_request(1)
    stats.after_error(throttled=True)
    stats.after_end(State.COMPLETED, 1.0)
    assert stats == Stats(requests=1)


@given(st.lists(ends))
def test_each_end_is_counted_as_what_it_is(reported: list[State | None]) -> None:
    stats = Stats()
    for state in reported:
        stats = stats.after_end(state, None)
    assert stats == Stats(
        completed=reported.count(State.COMPLETED),
        failed=reported.count(State.FAILED),
        missing=reported.count(None),
    )


@given(st.lists(st.tuples(seconds, st.sampled_from([State.COMPLETED, State.FAILED])), min_size=1))
def test_the_lag_is_the_mean_and_the_most_is_the_greatest(
    reported: list[tuple[float, State]],
) -> None:
    stats = Stats()
    for lag, state in reported:
        stats = stats.after_end(state, lag)
    lags = [lag for lag, _ in reported]
    assert stats.lag == pytest.approx(mean(lags), rel=1e-9, abs=1e-9)
    assert stats.lag_most == max(lags)
    assert stats.lags == len(lags) == stats.completed + stats.failed


@given(st.lists(st.tuples(ends, st.none() | seconds)))
def test_ends_that_are_counted_together_count_as_one_after_the_other(
    reported: list[tuple[State | None, float | None]],
) -> None:
    singly, together = Stats(), Stats().after_ends(reported)
    for state, lag in reported:
        singly = singly.after_end(state, lag)
    assert together.lag == pytest.approx(singly.lag)
    assert replace(together, lag=0.0) == replace(singly, lag=0.0)


def test_an_end_that_was_never_seen_open_has_no_lag() -> None:
    stats = Stats().after_end(State.COMPLETED, 4.0).after_end(State.COMPLETED, None)
    assert (stats.lag, stats.lag_most, stats.lags) == (4.0, 4.0, 1)


def test_a_missing_task_has_no_lag() -> None:
    assert Stats().after_end(None, 30.0) == Stats(missing=1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (0.04, "0.0 s"),
        (0.4, "0.4 s"),
        (0.99, "1 s"),
        (12.3, "12 s"),
        (99.0, "99 s"),
        (180.0, "3 min"),
        (7199.0, "120 min"),
        (18_000.0, "5 h"),
        (200_000.0, "2 d"),
    ],
)
def test_a_duration_is_formatted_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_a_snapshot_is_one_line_for_people() -> None:
    calm = Stats(requests=7, completed=3)
    assert str(calm) == "0 open, 0 in flight, 7 requests; 3 completed, 0 failed, 0 missing"
    trouble = Stats(
        open=2, oldest=200.0, in_flight=1, requests=9, errors=3, throttled=2, quiet_for=12.0,
        completed=1, failed=1, lag=2.2, lag_most=4.0, lags=2,
    )  # fmt: skip
    assert str(trouble) == (
        "2 open, oldest 3 min, 1 in flight, 9 requests, 3 errors, 2 throttled, quiet for 12 s; "
        "1 completed, 1 failed, 0 missing, news at most 2 s late on average"
    )
