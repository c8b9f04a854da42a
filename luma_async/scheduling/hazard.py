"""How long tasks take: the hazard at each age, estimated from the tasks that a session has seen.

The hazard h(age) is the chance that a task ends in the next second, given that it has not ended
yet. It is estimated in cells of age, eight to an octave from a sixteenth of a second to three days:
tasks that ended in a cell, divided by the seconds for which tasks were open in it. Each task counts
only for the ages at which it was watched. So tasks that are still open, were old when first polled,
or lost their watcher do not bias the estimate.

A task ends between two polls; it is spread over the cells between them. Cells are averaged with
their neighbours, and each is drawn towards a hazard that is the same at all ages, as though PRIOR
more tasks had been open in it, so that few observations prove little. Old observations count less:
after MEMORY ended tasks all counts are halved.

It is used for `mean_lateness`: by how many seconds the news of a task is late on average if it is
not polled for d seconds: W(age, d) = ∫ H(age + u) - H(age) du for u from 0 to d, where H is the
cumulative hazard. For a given number of requests, polling all ids at equal W gives the least delay
(Keller, Management Science 21, 1974). H and its integral are kept at the edges of the cells, so
that W and its inverse take two lookups.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from math import exp, expm1, frexp, inf, log1p, sqrt

from msgspec import Struct

PER_OCTAVE = 8
YOUNGEST = -4
OLDEST = 18
CELLS = (OLDEST - YOUNGEST) * PER_OCTAVE
EDGES = (
    0.0,
    *(
        2.0 ** (YOUNGEST + cell // PER_OCTAVE) * (1 + cell % PER_OCTAVE / PER_OCTAVE)
        for cell in range(1, CELLS)
    ),
    inf,
)
WIDTHS = (*(old - young for young, old in pairwise(EDGES[:-1])), EDGES[-2])
REACH = 2  # cells on each side of a cell that its average takes in
PRIOR = 4.0
MEMORY = 4096.0
MOST = 1e12


def cell_of(age: float) -> int:
    """Return the cell that an age lies in."""
    if age < EDGES[1]:
        return 0
    mantissa, exponent = frexp(age)
    cell = (exponent - 1 - YOUNGEST) * PER_OCTAVE + int((2 * mantissa - 1) * PER_OCTAVE)
    return min(cell, CELLS - 1)


class DurationCounts(Struct, frozen=True):
    """What a session has seen of the durations of its tasks.

    For each cell of age: how many tasks ended in it (`end_counts`), and for how many seconds tasks
    were open in it (`exposure`).
    """

    end_counts: tuple[float, ...] = (0.0,) * CELLS
    exposure: tuple[float, ...] = (0.0,) * CELLS

    def __post_init__(self) -> None:
        for counts in (self.end_counts, self.exposure):
            if len(counts) != CELLS or not all(0.0 <= count <= MOST for count in counts):
                raise ValueError(f"counts are not {CELLS} numbers from 0 to {MOST:g}")

    @property
    def ends(self) -> float:
        """How many tasks ended; old ones count less."""
        return sum(self.end_counts)

    def __repr__(self) -> str:
        return f"<DurationCounts: {self.ends:.0f} tasks ended>"

    @classmethod
    def of(cls, ages: Iterable[tuple[float, float, float]]) -> "DurationCounts":
        """Return the counts of rows of age, ended tasks and seconds; ValueError for bad numbers."""
        ended, watched = [0.0] * CELLS, [0.0] * CELLS
        for age, ends, seconds in ages:
            if not 0.0 <= age <= MOST:
                raise ValueError(f"an age is {age!r}")
            ended[cell_of(age)] += ends
            watched[cell_of(age)] += seconds
        return cls(tuple(ended), tuple(watched))

    def ages(self) -> list[tuple[float, float, float]]:
        """Return the cells that are not empty: the age they begin at, ended tasks, seconds."""
        cells = zip(EDGES, self.end_counts, self.exposure, strict=False)
        return [(age, ends, seconds) for age, ends, seconds in cells if ends or seconds]

    def hazard(self) -> "Hazard":
        """Return the hazard at each age."""
        return estimate_hazard(self.end_counts, self.exposure)


def estimate_hazard(ended: Sequence[float], watched: Sequence[float]) -> "Hazard":
    """Estimate the hazard at each age from the counts of each cell.

    All cells beyond the last one that a task has reached have the same hazard, and are one.
    """
    common = (sum(ended) + 1.0) / (sum(watched) + 60.0)
    reached = next(
        (cell for cell in range(CELLS, 0, -1) if watched[cell - 1] or ended[cell - 1]), 0
    )
    used = min(reached + REACH + 1, CELLS)
    cells = zip(WIDTHS, _smooth(ended[:used]), _smooth(watched[:used]), strict=False)
    return Hazard(
        [
            (ends + PRIOR * width * common) / (seconds + PRIOR * width)
            for width, ends, seconds in cells
        ]
    )


def _smooth(counts: Sequence[float]) -> list[float]:
    """Average each count with its neighbours, two on each side, weighed 1 2 3 2 1."""
    padded = (0.0, 0.0, *counts, 0.0, 0.0)
    neighbours = zip(padded, padded[1:], padded[2:], padded[3:], padded[4:], strict=False)
    return [(a + e + 2.0 * (b + d) + 3.0 * c) / 9.0 for a, b, c, d, e in neighbours]


class DurationCounter:
    """Counts of durations, as they grow."""

    __slots__ = ("ended", "ends", "news", "watched")

    def __init__(self, seen: DurationCounts) -> None:
        self.ended: list[float] = list(seen.end_counts)
        self.watched: list[float] = list(seen.exposure)
        self.ends: float = seen.ends
        self.news: float = 0.0

    def counts(self) -> DurationCounts:
        """Return an immutable copy."""
        return DurationCounts(tuple(self.ended), tuple(self.watched))

    def hazard(self) -> "Hazard":
        """Estimate the hazard at each age."""
        return estimate_hazard(self.ended, self.watched)

    def observe_open(self, young: float, old: float, tasks: int = 1) -> None:
        """Count tasks that were open at both of two ages."""
        cell = cell_of(young)
        while old > EDGES[cell + 1]:
            self.watched[cell] += tasks * (EDGES[cell + 1] - young)
            cell += 1
            young = EDGES[cell]
        self.watched[cell] += tasks * (old - young)

    def observe_end(self, young: float, old: float, tasks: int = 1) -> None:
        """Count tasks that were open at one age and had ended at another."""
        # One ended at an age that is uniform between the two. Each cell between them gets its
        # share of the end, and the seconds for which the task was open in it on average: all of
        # the cell if it ended later, half of it if it ended there.
        share = 1.0 / (old - young)
        open_still = 1.0
        cell = cell_of(young)
        while open_still > 0.0:
            upto = min(old, EDGES[cell + 1])
            part = open_still if upto == old else (upto - young) * share
            self.ended[cell] += tasks * part
            self.watched[cell] += tasks * (upto - young) * (open_still - part / 2)
            open_still -= part
            young = upto
            cell += 1
        self.ends += tasks
        self.news += tasks
        if self.ends > MEMORY:
            self._fade()

    def _fade(self) -> None:
        self.ended = [count / 2 for count in self.ended]
        self.watched = [seconds / 2 for seconds in self.watched]
        self.ends /= 2


class Hazard:
    """The hazard in each cell, per second, and its integrals; the last rate is that of all above.

    `mean_sqrt_hazard` is the mean of √h over the time for which a task is open. Polls at equal W
    are √(2·W / h) apart; so polls that are `gap` seconds apart on average over the life of a task
    are at W = (gap * mean_sqrt_hazard)² / 2.
    """

    __slots__ = ("_last", "cumulative", "integral", "mean_sqrt_hazard", "rates")

    def __init__(self, rates: Sequence[float]) -> None:
        self.rates: Sequence[float] = rates
        self._last = len(rates) - 1
        widths = WIDTHS[: self._last]
        self.cumulative: list[float] = list(
            accumulate(map(float.__mul__, rates, widths), initial=0.0)
        )
        steps = (
            width * (risk + rate * width / 2)
            for rate, risk, width in zip(rates, self.cumulative, widths, strict=False)
        )
        self.integral: list[float] = list(accumulate(steps, initial=0.0))
        self.mean_sqrt_hazard: float = self._mean_sqrt_hazard((*widths, inf))

    def _mean_sqrt_hazard(self, spans: Sequence[float]) -> float:
        # The mean time that a task is open in a cell: its chance to reach the cell, e^-H, times
        # the integral of e^(-rate·u) over the cell.
        spent = [
            exp(-risk) * -expm1(-rate * span) / rate
            for risk, rate, span in zip(self.cumulative, self.rates, spans, strict=True)
        ]
        roots = sum(sqrt(rate) * seconds for rate, seconds in zip(self.rates, spent, strict=True))
        return roots / sum(spent)

    def rate_at(self, age: float) -> float:
        """Return the hazard at an age, per second."""
        return self.rates[min(cell_of(age), self._last)]

    def quantile(self, share: float) -> float:
        """Return the age by which this share of tasks has ended."""
        wanted = -log1p(-share)
        low, high = 0.0, 2.0 ** (OLDEST + 1)
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self._cumulative_at(middle) < wanted else (low, middle)
        return high

    def mean_lateness(self, age: float, interval: float) -> float:
        """Return by how many seconds news is late on average with no poll for `interval`."""
        start, end = self._integral_at(age), self._integral_at(age + interval)
        return end - start - interval * self._cumulative_at(age)

    def interval_for(self, age: float, lateness: float, longest: float) -> float:
        """Return the interval whose mean lateness W is `lateness`; `longest` seconds at most."""
        # With I the integral of H: W(age, d) = I(age + d) - I(age) - d·H(age) = lateness, that is
        # I(t) - t·H(age) = line at t = age + d, where line is the same for all t. The left side
        # grows with t, so the cell of t is found by bisection. In it, with h its hazard and
        # t = start + x, the left side is quadratic: what is lacking at start is
        # x·(H(start) - H(age)) + h·x²/2; solve for x.
        first = min(cell_of(age), self._last)
        past = age - EDGES[first]
        risk = self.cumulative[first] + self.rates[first] * past
        line = (
            self.integral[first]
            + past * (self.cumulative[first] + risk) / 2
            - age * risk
            + lateness
        )
        if self._integral_at(age + longest) - (age + longest) * risk <= line:
            return longest
        last = min(cell_of(age + longest), self._last)
        while first < last:
            middle = (first + last) // 2
            if self.integral[middle + 1] - EDGES[middle + 1] * risk < line:
                first = middle + 1
            else:
                last = middle
        start = max(age, EDGES[first])
        lacking = line - (self._integral_at(start) - start * risk)
        slope = self._cumulative_at(start) - risk
        rate = self.rates[first]
        root = sqrt(max(0.0, slope * slope + 2.0 * rate * lacking))
        return min(longest, start - age + max(0.0, root - slope) / rate)

    def _cumulative_at(self, age: float) -> float:
        cell = min(cell_of(age), self._last)
        return self.cumulative[cell] + self.rates[cell] * (age - EDGES[cell])

    def _integral_at(self, age: float) -> float:
        cell = min(cell_of(age), self._last)
        past = age - EDGES[cell]
        return self.integral[cell] + past * (self.cumulative[cell] + self.rates[cell] * past / 2)
