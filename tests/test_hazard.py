"""How long tasks take: the counts, and the hazard estimated from them."""

import random
from collections.abc import Callable
from math import exp, isclose, log, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luma_async.scheduling.hazard import (
    CELLS,
    EDGES,
    MEMORY,
    OLDEST,
    DurationCounter,
    DurationCounts,
    Hazard,
    cell_of,
)
from tests.bench.pace import DURATIONS, true_hazard

ages = st.floats(0.0, 2.0**OLDEST)
spans = st.floats(1e-3, 600.0)
rates = st.lists(st.floats(1e-6, 1.0), min_size=CELLS, max_size=CELLS).map(Hazard)
constant = Hazard([0.02] * CELLS)


def lognormal(dice: random.Random) -> float:
    return dice.lognormvariate(log(75.0), 0.35)


def memoryless(dice: random.Random) -> float:
    return dice.expovariate(0.02)


def watched(
    draw: Callable[[random.Random], float],
    tasks: int,
    *,
    first_at: float = 0.0,
    interval: float = 5.0,
) -> DurationCounts:
    """Return the counts of tasks that are polled at an interval from some age on."""
    counter, dice = DurationCounter(DurationCounts()), random.Random(1)
    for _ in range(tasks):
        end, age = draw(dice), first_at
        while age < end:
            polled_at, age = age, age + interval
            if age < end:
                counter.observe_open(polled_at, age)
            else:
                counter.observe_end(polled_at, age)
    return counter.counts()


@given(ages)
def test_an_age_lies_between_the_edges_of_its_cell(age: float) -> None:
    cell = cell_of(age)
    assert EDGES[cell] <= age < EDGES[cell + 1]


def test_a_task_older_than_the_last_edge_lies_in_the_last_cell() -> None:
    assert cell_of(1e12) == CELLS - 1


@given(ages, spans)
def test_time_that_passes_is_counted_once(age: float, span: float) -> None:
    counter = DurationCounter(DurationCounts())
    counter.observe_open(age, age + span)
    assert sum(counter.watched) == pytest.approx(span, rel=1e-6, abs=1e-6)
    assert all(
        seconds <= high - low + 1e-6
        for seconds, low, high in zip(counter.watched, EDGES, EDGES[1:], strict=False)
    )


@given(ages, spans)
def test_an_ended_task_counts_once_halfway_between_two_polls(age: float, span: float) -> None:
    counter = DurationCounter(DurationCounts())
    counter.observe_end(age, age + span)
    assert sum(counter.ended) == pytest.approx(1.0)
    assert sum(counter.watched) == pytest.approx(span / 2, rel=1e-6, abs=1e-6)
    cells = [cell for cell, part in enumerate(counter.ended) if part]
    assert cell_of(age) <= cells[0]
    assert cells[-1] <= cell_of(age + span)


@given(ages, spans, st.integers(1, 100))
def test_tasks_that_end_together_count_as_much_as_one_after_the_other(
    age: float, span: float, tasks: int
) -> None:
    together, singly = DurationCounter(DurationCounts()), DurationCounter(DurationCounts())
    together.observe_end(age, age + span, tasks)
    for _ in range(tasks):
        singly.observe_end(age, age + span)
    assert together.ended == pytest.approx(singly.ended)
    assert together.watched == pytest.approx(singly.watched)
    assert (together.ends, together.news) == (singly.ends, singly.news) == (tasks, tasks)


def test_the_hazard_of_memoryless_tasks_is_the_same_at_all_ages() -> None:
    hazard = watched(memoryless, 4000).hazard()
    for age in (3.0, 10.0, 30.0, 60.0, 100.0):
        assert hazard.rate_at(age) == pytest.approx(0.02, rel=0.25)


@pytest.mark.parametrize("age", [50.0, 75.0, 110.0])
def test_the_hazard_of_lognormal_tasks_is_found(age: float) -> None:
    dice = random.Random(2)
    sample = [lognormal(dice) for _ in range(200_000)]
    left = [sum(taken > at for taken in sample) for at in (0.95 * age, 1.05 * age)]
    true = log(left[0] / left[1]) / (0.1 * age)
    hazard = watched(lognormal, 3000).hazard()
    assert hazard.rate_at(age) == pytest.approx(true, rel=0.2)


def test_tasks_that_were_old_when_first_seen_do_not_bias_the_hazard() -> None:
    hazard = watched(memoryless, 20_000, first_at=60.0).hazard()
    assert hazard.rate_at(80.0) == pytest.approx(0.02, rel=0.15)


def test_an_age_is_averaged_with_two_neighbours_on_each_side() -> None:
    middle = CELLS // 2
    cells = [(edge, 9000.0 * (cell == middle), 1e9) for cell, edge in enumerate(EDGES[:CELLS])]
    hazard = DurationCounter(DurationCounts.of(cells)).hazard()
    rates = [1e6 * rate for rate in hazard.rates[middle - 3 : middle + 4]]
    assert rates == pytest.approx([0.0, 1.0, 2.0, 3.0, 2.0, 1.0, 0.0], abs=0.01)


def test_ages_without_observations_have_the_mean_hazard() -> None:
    hazard = watched(memoryless, 1000).hazard()
    assert hazard.rate_at(50_000.0) == pytest.approx(0.02, rel=0.1)


@given(st.lists(st.floats(0.1, 2000.0), max_size=30), st.floats(0.0, 1e4), st.floats(1e-3, 10.0))
def test_cells_that_no_task_has_reached_are_computed_as_one(
    durations: list[float], age: float, threshold: float
) -> None:
    counter = DurationCounter(DurationCounts())
    for duration in durations:
        counter.observe_open(0.0, duration)
        counter.observe_end(duration, duration + 5.0)
    few = counter.hazard()
    padding = [few.rates[-1]] * (CELLS - len(few.rates))
    whole = Hazard([*few.rates, *padding])
    assert len(few.rates) < CELLS
    assert few.mean_sqrt_hazard == pytest.approx(whole.mean_sqrt_hazard)
    assert few.interval_for(age, threshold, 60.0) == pytest.approx(
        whole.interval_for(age, threshold, 60.0), rel=1e-4
    )
    assert few.quantile(0.9) == pytest.approx(whole.quantile(0.9))


def test_old_observations_count_less() -> None:
    counter = DurationCounter(DurationCounts())
    for _ in range(10_000):
        counter.observe_end(10.0, 15.0)
    assert MEMORY / 2 <= counter.counts().ends <= MEMORY
    assert counter.counts().ends == pytest.approx(counter.ends)
    for _ in range(10_000):
        counter.observe_end(100.0, 105.0)
    assert counter.ended[cell_of(12.0)] < 0.1 * counter.ended[cell_of(102.0)]


@given(rates, st.floats(0.0, 2000.0), st.floats(1e-4, 10.0), st.floats(1.0, 500.0))
def test_the_interval_ends_when_the_mean_lateness_reaches_the_threshold(
    hazard: Hazard, age: float, threshold: float, most: float
) -> None:
    rest = hazard.interval_for(age, threshold, most)
    assert 0.0 < rest <= most
    waiting = hazard.mean_lateness(age, rest)
    if rest < most:
        assert isclose(waiting, threshold, rel_tol=1e-4, abs_tol=1e-7)
    else:
        assert waiting <= threshold * 1.0001


@pytest.mark.parametrize(("age", "rest"), [(0.0, 0.01), (3.0, 40.0), (63.9, 0.2), (64.0, 200.0)])
def test_the_mean_lateness_is_the_integral_of_the_risk_since_the_last_poll(
    age: float, rest: float
) -> None:
    dice = random.Random(3)
    hazard = Hazard([dice.uniform(0.0, 0.1) for _ in range(CELLS)])
    steps = 20_000
    risk = waiting = 0.0
    for step in range(steps):
        here = hazard.rate_at(age + (step + 0.5) * rest / steps) * rest / steps
        waiting += (risk + here / 2) * rest / steps
        risk += here
    assert hazard.mean_lateness(age, rest) == pytest.approx(waiting, rel=1e-3)


@given(st.floats(0.01, 100.0), ages)
def test_with_a_constant_hazard_the_delay_is_the_gap(gap: float, age: float) -> None:
    threshold = (gap * constant.mean_sqrt_hazard) ** 2 / 2
    assert constant.interval_for(age, threshold, 1e4) == pytest.approx(gap, rel=1e-3, abs=1e-3)


def test_the_mean_sqrt_hazard_is_that_of_the_theory() -> None:
    """(∫ √(f S))² / E[T], the least lag at equal polls, is 0.57 for this lognormal."""
    mean = DURATIONS["lognormal"].mean()
    assert true_hazard("lognormal").mean_sqrt_hazard ** 2 * mean == pytest.approx(0.572, abs=0.005)


def test_a_quantile_may_be_beyond_the_oldest_age() -> None:
    median = 1.5 * 2.0**OLDEST
    assert Hazard([log(2.0) / median] * CELLS).quantile(0.5) == pytest.approx(median)


def test_a_quantile_may_be_below_a_second() -> None:
    assert Hazard([50.0] * CELLS).quantile(0.5) == pytest.approx(log(2.0) / 50.0)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.95])
def test_a_quantile_is_the_age_by_which_a_share_has_ended(share: float) -> None:
    assert constant.quantile(share) == pytest.approx(-log(1.0 - share) / 0.02)
    assert 1.0 - exp(-0.02 * constant.quantile(share)) == pytest.approx(share)


def test_the_mean_sqrt_hazard_of_a_constant_hazard_is_its_root() -> None:
    assert constant.mean_sqrt_hazard == pytest.approx(sqrt(0.02))
