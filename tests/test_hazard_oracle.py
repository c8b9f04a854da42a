"""The hazard of durations, compared with lifelines: counts, quantiles, tasks seen between polls.

lifelines finds the hazard of each cell by maximum likelihood, and quantiles by Kaplan and Meier.
"""

import random
from math import log
from typing import Any

import pytest
from msgspec import Struct

from luma_async.scheduling.hazard import EDGES, DurationCounter, DurationCounts, cell_of
from tests import optional

pytestmark = pytest.mark.filterwarnings("ignore")  # of lifelines and pandas

CELLS = range(cell_of(40.0), cell_of(110.0))
TASKS = 2000
INTERVAL = 8.0  # seconds between polls; edges of cells from 64 s are that far apart


class Observed(Struct, frozen=True):
    """A task that was watched from one age to another, and whether it ended then."""

    watched_from: float
    until: float
    has_ended: bool


def observations() -> list[Observed]:
    """Return tasks of about 75 s; some are old when first seen, some lose their watcher."""
    dice, seen = random.Random(25), list[Observed]()
    while len(seen) < TASKS:
        end = dice.lognormvariate(log(75.0), 0.35)
        first = dice.choice((0.0, dice.uniform(0.0, 90.0)))
        leaves = dice.choice((float("inf"), dice.uniform(20.0, 200.0)))
        if first < min(end, leaves):
            seen.append(Observed(first, min(end, leaves), end <= leaves))
    return seen


def counted(tasks: list[Observed]) -> DurationCounter:
    """Return the counts of tasks whose end is known to a microsecond."""
    counter = DurationCounter(DurationCounts())
    for task in tasks:
        counter.observe_open(task.watched_from, task.until)
        if task.has_ended:
            counter.observe_end(task.until, task.until + 1e-6)
    return counter


def fitted(fitter: Any, tasks: list[Observed]) -> Any:
    return fitter.fit(
        [task.until for task in tasks],
        [task.has_ended for task in tasks],
        entry=[task.watched_from for task in tasks],
    )


def test_ends_by_exposure_are_the_most_likely_hazard_of_each_cell() -> None:
    lifelines = optional.module("lifelines", "bench")
    tasks = observations()
    counter = counted(tasks)
    edges = [EDGES[cell] for cell in (*CELLS, CELLS.stop)]
    piecewise = fitted(lifelines.PiecewiseExponentialFitter(edges), tasks)
    for number, cell in enumerate(CELLS, 1):
        theirs = 1.0 / getattr(piecewise, f"lambda_{number}_")
        assert counter.ended[cell] / counter.watched[cell] == pytest.approx(
            theirs, rel=0.02
        )  # as its search ends


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.75, 0.9])
def test_quantiles_are_those_of_kaplan_and_meier(share: float) -> None:
    lifelines = optional.module("lifelines", "bench")
    tasks = observations()
    theirs = fitted(lifelines.KaplanMeierFitter(), tasks).percentile(1.0 - share)
    assert counted(tasks).hazard().quantile(share) == pytest.approx(theirs, rel=0.02)


@pytest.mark.parametrize(("young", "old"), [(40.0, 64.0), (64.0, 88.0), (88.0, 112.0)])
def test_tasks_that_ended_between_two_polls_have_the_hazard_of_kaplan_and_meier(
    young: float, old: float
) -> None:
    """Of these tasks only the number that is left at each poll is known."""
    lifelines = optional.module("lifelines", "bench")
    dice, counter, ended_by = random.Random(7), DurationCounter(DurationCounts()), list[float]()
    for _ in range(TASKS):
        end, polled_at = dice.lognormvariate(log(75.0), 0.35), 0.0
        while polled_at + INTERVAL < end:
            counter.observe_open(polled_at, polled_at + INTERVAL)
            polled_at += INTERVAL
        counter.observe_end(polled_at, polled_at + INTERVAL)
        ended_by.append(polled_at + INTERVAL)
    left = lifelines.KaplanMeierFitter().fit(ended_by).survival_function_at_times([young, old])
    ours = sum(
        counter.ended[cell] / counter.watched[cell] * (EDGES[cell + 1] - EDGES[cell])
        for cell in range(cell_of(young), cell_of(old))
    )
    assert ours == pytest.approx(log(left[young] / left[old]), rel=0.01)
