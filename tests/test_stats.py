"""What a session has done so far, as a value."""

from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luma_async import State, Stats

seconds = st.floats(min_value=0.0, max_value=1e5)
ends = st.sampled_from([State.COMPLETED, State.FAILED, None])


@pytest.mark.parametrize("name", Stats.__struct_fields__)
def test_a_snapshot_starts_at_zero_and_cannot_be_set(name: str) -> None:
    stats = Stats()
    assert getattr(stats, name) == (None if name == "learned" else 0)
    with pytest.raises(AttributeError):
        setattr(stats, name, 1)


def test_asking_counts_the_request_and_each_id() -> None:
    assert Stats().asked(3).asked(2) == Stats(requests=2, ids_asked=5)


def test_an_error_is_counted_and_the_throttled_twice() -> None:
    stats = Stats().erred(throttled=False).erred(throttled=True)
    assert stats == Stats(errors=2, throttled=1)


def test_counting_leaves_the_earlier_snapshot_as_it_was() -> None:
    stats = Stats(requests=1)
    stats.asked(1)
    stats.erred(throttled=True)
    stats.ended(State.COMPLETED, 1.0)
    assert stats == Stats(requests=1)


@given(st.lists(ends))
def test_each_end_is_counted_as_what_it_is(told: list[State | None]) -> None:
    stats = Stats()
    for state in told:
        stats = stats.ended(state, None)
    assert stats == Stats(
        completed=told.count(State.COMPLETED),
        failed=told.count(State.FAILED),
        missing=told.count(None),
    )


@given(st.lists(st.tuples(seconds, st.sampled_from([State.COMPLETED, State.FAILED])), min_size=1))
def test_the_lag_is_the_mean_and_the_most_is_the_greatest(told: list[tuple[float, State]]) -> None:
    stats = Stats()
    for lag, state in told:
        stats = stats.ended(state, lag)
    lags = [lag for lag, _ in told]
    assert stats.lag == pytest.approx(mean(lags), rel=1e-9, abs=1e-9)
    assert stats.lag_most == max(lags)
    assert stats.lags == len(lags) == stats.completed + stats.failed


def test_an_end_that_was_never_seen_open_has_no_lag() -> None:
    stats = Stats().ended(State.COMPLETED, 4.0).ended(State.COMPLETED, None)
    assert (stats.lag, stats.lag_most, stats.lags) == (4.0, 4.0, 1)


def test_a_missing_task_has_no_lag() -> None:
    assert Stats().ended(None, 30.0) == Stats(missing=1)
