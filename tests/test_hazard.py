"""How long tasks take: the counts, and the hazard estimated from them."""

import random
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from math import exp, inf, log, nextafter, sqrt

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
constant = Hazard([0.02] * CELLS)


def lognormal(dice: random.Random) -> float:
    return dice.lognormvariate(log(75.0), 0.35)


@cache
def lognormal_sample() -> list[float]:
    dice = random.Random(2)
    return [lognormal(dice) for _ in range(200_000)]


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
    sample = lognormal_sample()
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


def test_after_4096_ended_tasks_all_counts_are_halved() -> None:
    counter = DurationCounter(DurationCounts())
    counter.observe_open(0.0, 100.0, 8192)
    counter.observe_end(100.0, 101.0, 4096)
    assert (counter.ends, sum(counter.ended)) == (4096.0, 4096.0)
    counter.observe_end(100.0, 101.0)
    assert (counter.ends, sum(counter.ended)) == (2048.5, 2048.5)
    assert sum(counter.watched) == pytest.approx(8192 * 50.0 + 4097 / 4)


def test_old_observations_count_less() -> None:
    counter = DurationCounter(DurationCounts())
    for _ in range(10_000):
        counter.observe_end(10.0, 15.0)
    assert MEMORY / 2 <= counter.counts().ends <= MEMORY
    assert counter.counts().ends == pytest.approx(counter.ends)
    for _ in range(10_000):
        counter.observe_end(100.0, 105.0)
    assert counter.ended[cell_of(12.0)] < 0.1 * counter.ended[cell_of(102.0)]


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


def test_counts_are_from_zero_to_their_maximum() -> None:
    """A snapshot with other ones is not restored."""
    most = (1e12,) * CELLS
    assert DurationCounts(most, most).ends == CELLS * 1e12
    assert DurationCounts.of([(1e12, 1.0, 1.0)]).end_counts[-1] == 1.0
    above = nextafter(1e12, inf)
    for wrong in ((above, *most[1:]), (-1.0, *most[1:]), most[1:]):
        with pytest.raises(ValueError, match="counts are not 176 numbers from 0 to 1e"):
            DurationCounts(wrong, most)
        with pytest.raises(ValueError, match="counts are not 176 numbers from 0 to 1e"):
            DurationCounts(most, wrong)
    for age in (above, -1.0):
        with pytest.raises(ValueError, match="an age is "):
            DurationCounts.of([(age, 1.0, 1.0)])


def test_counts_are_shown_by_the_number_of_ended_tasks() -> None:
    assert repr(DurationCounts.of([(3.0, 2.0, 9.0), (4.0, 1.0, 0.0)])) == (
        "<DurationCounts: 3 tasks ended>"
    )


# The hazard as it is defined: cells, averages and integrals are computed one by one.

STARTS = [2.0**octave * (1.0 + part / 8) for octave in range(-4, 18) for part in range(8)]
STARTS[0] = 0.0
LENGTHS = [old - young for young, old in pairwise(STARTS)] + [STARTS[-1]]


def part_in(cell: int, young: float, old: float) -> tuple[float, float]:
    """Return the part of the time from one age to another that lies in a cell; (0, 0) if none."""
    end = STARTS[cell + 1] if cell + 1 < len(STARTS) else inf
    begin, end = max(young, STARTS[cell]), min(old, end)
    return (begin, end) if begin < end else (0.0, 0.0)


def defined_rates(ended: Sequence[float], watched: Sequence[float]) -> list[float]:
    """Return the hazard of each cell, drawn towards the mean as by four more tasks."""
    mean = (sum(ended) + 1.0) / (sum(watched) + 60.0)

    def average(counts: Sequence[float], cell: int) -> float:
        near = [(cell + step, 3 - abs(step)) for step in range(-2, 3)]
        return sum(counts[at] * weight for at, weight in near if 0 <= at < len(STARTS)) / 9

    return [
        (average(ended, cell) + 4.0 * length * mean) / (average(watched, cell) + 4.0 * length)
        for cell, length in enumerate(LENGTHS)
    ]


def defined_cumulative(rates: Sequence[float], age: float) -> float:
    """Return the integral of the hazard up to an age."""
    parts = [part_in(cell, 0.0, age) for cell in range(len(STARTS))]
    return sum(rate * (end - begin) for rate, (begin, end) in zip(rates, parts, strict=True))


def defined_lateness(rates: Sequence[float], age: float, interval: float) -> float:
    """Return ∫ H(age + u) - H(age) du: what a cell adds to H is there from the cell on."""
    late = 0.0
    for cell, rate in enumerate(rates):
        begin, end = part_in(cell, age, age + interval)
        late += rate * (end - begin) * (age + interval - (begin + end) / 2)
    return late


def drawn_counts(cells: Sequence[int], *, exposure: float = 1.0) -> DurationCounts:
    """Return counts of these cells alone, drawn at random."""
    dice = random.Random(len(cells))
    ended, watched = [0.0] * CELLS, [0.0] * CELLS
    for cell in cells:
        ended[cell] = dice.uniform(0.0, 20.0)
        watched[cell] = dice.uniform(0.0, 20.0) * LENGTHS[cell] * exposure
    return DurationCounts(tuple(ended), tuple(watched))


DRAWN = {
    "nothing": drawn_counts([]),
    "the youngest age": drawn_counts([0]),
    "the next age": drawn_counts([1]),
    "the oldest age": drawn_counts([CELLS - 1]),
    "two ages": drawn_counts([40, 77]),
    "two ages, three apart": drawn_counts([59, 62]),
    "ends without exposure": drawn_counts([80, 90], exposure=0.0),
    "ages up to a day": drawn_counts(range(160)),
    "all but the last three ages": drawn_counts(range(CELLS - 3)),
    "all but the last two ages": drawn_counts(range(CELLS - 2)),
    "all ages": drawn_counts(range(CELLS)),
}
POLLS = [
    (0.0, 0.01), (0.0, 5.0), (0.07, 0.0703125), (0.0703125, 0.078125), (1.0, 1.0625),
    (3.1, 3.2), (10.0, 15.0), (63.9, 64.1), (64.0, 72.0), (71.0, 80.5), (20.0, 300.0),
    (2.0**18 - 9.0, 2.0**18 - 1.0), (1.0, 2.0**18 + 100.0), (2.0**18, 2.0**18 + 5.0),
]  # fmt: skip


def test_cells_are_an_eighth_of_an_octave_from_a_sixteenth_of_a_second_to_three_days() -> None:
    assert [*STARTS, inf] == list(EDGES)


def test_a_cell_begins_at_its_edge() -> None:
    cells = range(1, CELLS)
    assert [cell_of(EDGES[cell]) for cell in cells] == list(cells)
    assert [cell_of(nextafter(EDGES[cell], 0.0)) for cell in cells] == list(range(CELLS - 1))


@pytest.mark.parametrize(("young", "old"), POLLS)
def test_an_open_task_counts_in_each_cell_for_the_seconds_that_it_was_watched(
    young: float, old: float
) -> None:
    counter = DurationCounter(DurationCounts())
    counter.observe_open(young, old)
    counter.observe_open(young, old, 2)
    parts = [part_in(cell, young, old) for cell in range(CELLS)]
    assert counter.watched == pytest.approx([3 * (end - begin) for begin, end in parts])
    assert (sum(counter.ended), counter.ends, counter.news) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(("young", "old"), POLLS)
def test_a_task_that_ended_between_two_polls_may_have_ended_at_any_age_between(
    young: float, old: float
) -> None:
    counter = DurationCounter(DurationCounts())
    counter.observe_end(young, old)
    counter.observe_end(young, old, 2)
    parts = [part_in(cell, young, old) for cell in range(CELLS)]
    shares = [(end - begin) / (old - young) for begin, end in parts]
    later = [(old - end) / (old - young) for _, end in parts]
    assert counter.ended == pytest.approx([3 * share for share in shares])
    assert counter.watched == pytest.approx(
        [
            3 * (end - begin) * (after + share / 2)  # whole if it ended later, half if here
            for (begin, end), share, after in zip(parts, shares, later, strict=True)
        ]
    )
    assert (counter.ends, counter.news) == (3.0, 3.0)


@pytest.mark.parametrize("counts", DRAWN.values(), ids=DRAWN)
def test_the_hazard_is_that_of_its_definition(counts: DurationCounts) -> None:
    rates = defined_rates(counts.end_counts, counts.exposure)
    hazard = counts.hazard()
    assert [hazard.rate_at(age) for age in STARTS] == pytest.approx(rates, rel=1e-9)
    assert hazard.cumulative == pytest.approx(
        [defined_cumulative(rates, age) for age in STARTS[: len(hazard.rates)]]
    )
    assert hazard.integral == pytest.approx(
        [defined_lateness(rates, 0.0, age) for age in STARTS[: len(hazard.rates)]]
    )


@pytest.mark.parametrize(
    ("cells", "computed"), [([], 3), ([0], 4), ([7], 11), ([7, 50], 54), ([173], 176), ([175], 176)]
)
def test_cells_three_and_more_beyond_the_last_one_with_a_count_are_computed_as_one(
    cells: list[int], computed: int
) -> None:
    assert len(drawn_counts(cells).hazard().rates) == computed


@pytest.mark.parametrize("counts", DRAWN.values(), ids=DRAWN)
@pytest.mark.parametrize("age", [0.0, 0.03, 3.1, 64.0, 71.9, 1000.0, 2e5])
def test_the_interval_ends_when_the_mean_lateness_of_the_definition_is_reached(
    counts: DurationCounts, age: float
) -> None:
    rates = defined_rates(counts.end_counts, counts.exposure)
    hazard = counts.hazard()
    for lateness in (1e-4, 0.01, 0.3, 3.0, 20.0):
        for longest in (0.5, 20.0, 400.0):
            interval = hazard.interval_for(age, lateness, longest)
            defined = defined_lateness(rates, age, interval)
            assert hazard.mean_lateness(age, interval) == pytest.approx(defined, abs=1e-5)
            assert 0.0 < interval <= longest
            if interval < longest:
                assert defined == pytest.approx(lateness, rel=1e-5, abs=1e-5)
            else:
                assert defined <= lateness + 1e-5


@pytest.mark.parametrize("counts", DRAWN.values(), ids=DRAWN)
def test_a_quantile_is_where_the_cumulative_hazard_of_the_definition_says(
    counts: DurationCounts,
) -> None:
    rates = defined_rates(counts.end_counts, counts.exposure)
    for share in (0.001, 0.5, 0.99):
        age = counts.hazard().quantile(share)
        ended = 1.0 - exp(-defined_cumulative(rates, age))
        assert ended == pytest.approx(share) or (ended < share and age == 2.0**19)
