"""Estimate when half of the open tasks, and when all of them, will have ended.

If all tasks were submitted together, each open one is older than any that has ended, so this is an
extrapolation. A lognormal curve is fitted to the durations of the ended tasks and to the ages of
the open ones. Without the open ones, the first results, which are the quick ones, would make it too
optimistic. When the last task ends depends on the tail of the curve: it is right within a factor of
about two.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from math import erfc, exp, log, pi, sqrt

from msgspec import Struct

from luma_async.scheduling.hazard import EDGES, DurationCounts, cell_of

MIN_ENDS = 5.0
MAX_ESTIMATE = 3 * 86_400.0
STEPS = 40
USUAL_SPREAD, SURENESS = 0.5, 2.0
_FLOOR = 1e-300


class Curve(Struct, frozen=True):
    """How long tasks take: its logarithm has this `middle` and this `spread`."""

    middle: float
    spread: float

    def open(self, age: float) -> float:
        """Return the share of tasks that are open at an age."""
        return max(erfc(self._from_middle(age) / sqrt(2.0)) / 2.0, _FLOOR) if age > 0.0 else 1.0

    def hazard(self, age: float) -> float:
        """Return the chance per second that a task of an age ends."""
        bell = exp(-(self._from_middle(age) ** 2) / 2.0) / sqrt(2.0 * pi)
        return max(bell / (self.spread * age * self.open(age)), _FLOOR)

    def _from_middle(self, age: float) -> float:
        return max(min((log(age) - self.middle) / self.spread, 37.0), -37.0)


def remaining(seen: DurationCounts, ages: Iterable[float]) -> tuple[float, float] | None:
    """Return the seconds until half of the open tasks have ended, and until all have.

    None where too few ends were seen to say so. Tasks in one cell of age count as equally old.
    """
    cells = Counter(cell_of(max(age, 0.0)) for age in ages)
    if seen.ends < MIN_ENDS or not cells:
        return None
    curve = fitted(seen)
    at = [(_middle(cell), count) for cell, count in cells.items()]
    half = sum(cells.values()) / 2

    def left(seconds: float) -> float:
        return sum(count * curve.open(age + seconds) / curve.open(age) for age, count in at)

    return _first(lambda seconds: left(seconds) <= half), _first(
        lambda seconds: left(seconds) <= 0.5
    )


def fitted(seen: DurationCounts) -> Curve:
    """Lay a curve through what was seen: the likeliest one, found by halving steps."""
    rows = [
        (_middle(cell), ends, seconds)
        for cell, (ends, seconds) in enumerate(zip(seen.end_counts, seen.exposure, strict=True))
        if seconds
    ]
    middle = sum(log(age) * ends for age, ends, _ in rows) / seen.ends
    best = Curve(middle, USUAL_SPREAD)
    step = 1.0
    while step > 0.01:
        near = [
            Curve(best.middle + a * step, best.spread * exp(b * step))
            for a in (-1, 0, 1)
            for b in (-1, 0, 1)
        ]
        better = max(near, key=lambda curve: _likelihood(curve, rows))
        step = step / 2 if better == best else step
        best = better
    return best


def _likelihood(curve: Curve, rows: list[tuple[float, float, float]]) -> float:
    """Return how well a curve fits; of few ends it is drawn towards the usual spread."""
    known = sum(
        ends * log(rate) - seconds * rate
        for age, ends, seconds in rows
        for rate in (curve.hazard(age),)
    )
    return known - SURENESS * log(curve.spread / USUAL_SPREAD) ** 2


def _middle(cell: int) -> float:
    return (EDGES[cell] + min(EDGES[cell + 1], 2.0 * EDGES[cell] or EDGES[1])) / 2


def _first(true: Callable[[float], bool]) -> float:
    """Return the seconds from which on something is true."""
    low, high = 0.0, MAX_ESTIMATE
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if true(middle) else (middle, high)
    return high
