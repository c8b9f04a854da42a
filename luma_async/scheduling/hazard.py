"""How long do tasks take? What the ends that a session saw say about the ends to come.

The chance that a task ends in the next second, given that it has not ended yet, is its hazard at
its age. It is estimated in cells of age, eight to an octave from a sixteenth of a second to three
days: ends seen in a cell, over the seconds for which open tasks were seen to pass through it. A
task that has not ended yet, one that was old when first seen, and one that nobody wants any more
each count for just the ages at which they were watched, so none of them bends the estimate.

An end is known to lie between two looks; it is spread over the cells between them. Cells are
averaged with their neighbours, and each is drawn towards a hazard that is the same at all ages, as
though PRIOR more tasks had passed through it, so that nothing is concluded from next to nothing.
What is old counts less: after MEMORY ends all counts are halved.

What it is for is `waiting`: the seconds that news of a task of some age is late on average if it is
not asked about for so long: W(age, rest), the integral of H(age + u) - H(age) over the rest, with H
the cumulative hazard. Asking about all ids at equal W is the best that any number of requests can
buy (Keller, Management Science 21, 1974). H and its integral are kept at the edges of the cells, so
that W and its inverse cost a look into two tables.
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
SPANS = (*WIDTHS[:-1], inf)
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
    """What was seen of how long tasks take.

    For each cell of age, how many tasks `ended` in it, and for how many seconds open ones were
    `watched` there.
    """

    end_counts: tuple[float, ...] = (0.0,) * CELLS
    exposure: tuple[float, ...] = (0.0,) * CELLS

    def __post_init__(self) -> None:
        for counts in (self.end_counts, self.exposure):
            if len(counts) != CELLS or not all(0.0 <= count <= MOST for count in counts):
                raise ValueError(f"counts are not {CELLS} numbers from 0 to {MOST:g}")

    @property
    def ends(self) -> float:
        """How many ends this is worth; what is old counts less."""
        return sum(self.end_counts)

    def __repr__(self) -> str:
        return f"<Seen: {self.ends:.0f} ends>"

    @classmethod
    def of(cls, ages: Iterable[tuple[float, float, float]]) -> "DurationCounts":
        """Return what rows of age, ends and seconds say; ValueError for what cannot have been."""
        ended, watched = [0.0] * CELLS, [0.0] * CELLS
        for age, ends, seconds in ages:
            if not 0.0 <= age <= MOST:
                raise ValueError(f"an age is {age!r}")
            ended[cell_of(age)] += ends
            watched[cell_of(age)] += seconds
        return cls(tuple(ended), tuple(watched))

    def ages(self) -> list[tuple[float, float, float]]:
        """Return the cells in which anything was seen: the age they begin at, ends, seconds."""
        cells = zip(EDGES, self.end_counts, self.exposure, strict=False)
        return [(age, ends, seconds) for age, ends, seconds in cells if ends or seconds]

    def hazard(self) -> "Hazard":
        """Return the hazard at each age."""
        return hazard(self.end_counts, self.exposure)


def hazard(ended: Sequence[float], watched: Sequence[float]) -> "Hazard":
    """Return the hazard at each age that the counts of each cell speak for."""
    common = (sum(ended) + 1.0) / (sum(watched) + 60.0)
    cells = zip(WIDTHS, _smooth(ended), _smooth(watched), strict=True)
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
    """What has been seen so far, as it grows."""

    __slots__ = ("ended", "ends", "news", "watched")

    def __init__(self, seen: DurationCounts) -> None:
        self.ended: list[float] = list(seen.end_counts)
        self.watched: list[float] = list(seen.exposure)
        self.ends: float = seen.ends
        self.news: float = 0.0

    def counts(self) -> DurationCounts:
        """Return it as a value."""
        return DurationCounts(tuple(self.ended), tuple(self.watched))

    def hazard(self) -> "Hazard":
        """Return the hazard that it speaks for."""
        return hazard(self.ended, self.watched)

    def observe_open(self, young: float, old: float, tasks: int = 1) -> None:
        """Note that so many tasks were open at both of two ages."""
        cell = cell_of(young)
        while old > EDGES[cell + 1]:
            self.watched[cell] += tasks * (EDGES[cell + 1] - young)
            cell += 1
            young = EDGES[cell]
        self.watched[cell] += tasks * (old - young)

    def observe_end(self, young: float, old: float) -> None:
        """Note that a task was open at one age and found to have ended at another."""
        share = 1.0 / (old - young)
        open_still = 1.0
        cell = cell_of(young)
        while open_still > 0.0:
            upto = min(old, EDGES[cell + 1])
            part = open_still if upto == old else (upto - young) * share
            self.ended[cell] += part
            self.watched[cell] += (upto - young) * (open_still - part / 2)
            open_still = open_still - part if upto < old else 0.0
            young = upto
            cell += 1
        self.ends += 1.0
        self.news += 1.0
        if self.ends > MEMORY:
            self._fade()

    def _fade(self) -> None:
        self.ended = [count / 2 for count in self.ended]
        self.watched = [seconds / 2 for seconds in self.watched]
        self.ends /= 2


class Hazard:
    """The hazard in each cell, per second, and what follows from it.

    `thrift` is what asking at equal W makes of it: the root of the hazard, averaged over the time
    for which a task is open. Looks that are `gap` seconds apart on average over a task's life are
    at W = (gap * thrift)² / 2.
    """

    __slots__ = ("cumulative", "integral", "mean_sqrt_hazard", "rates")

    def __init__(self, rates: Sequence[float]) -> None:
        self.rates: Sequence[float] = rates
        self.cumulative: list[float] = list(
            accumulate(map(float.__mul__, rates, WIDTHS[:-1]), initial=0.0)
        )
        steps = (
            width * (risk + rate * width / 2)
            for rate, risk, width in zip(rates, self.cumulative, WIDTHS[:-1], strict=False)
        )
        self.integral: list[float] = list(accumulate(steps, initial=0.0))
        self.mean_sqrt_hazard: float = self._mean_sqrt_hazard()

    def _mean_sqrt_hazard(self) -> float:
        spent = [
            exp(-risk) * -expm1(-rate * span) / rate
            for risk, rate, span in zip(self.cumulative, self.rates, SPANS, strict=True)
        ]
        roots = sum(sqrt(rate) * seconds for rate, seconds in zip(self.rates, spent, strict=True))
        return roots / sum(spent)

    def quantile(self, share: float) -> float:
        """Return the age by which such a share of tasks has ended."""
        wanted = -log1p(-share)
        low, high = 0.0, 2.0 ** (OLDEST + 1)
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self._cumulative_at(middle) < wanted else (low, middle)
        return high

    def expected_delay(self, age: float, rest: float) -> float:
        """Return by how many seconds news is late on average where nobody asks for so long."""
        return (
            self._integral_at(age + rest) - self._integral_at(age) - rest * self._cumulative_at(age)
        )

    def delay(self, age: float, price: float, most: float) -> float:
        """Return the seconds after which the waiting has reached the price; `most` at most."""
        first = cell_of(age)
        past = age - EDGES[first]
        risk = self.cumulative[first] + self.rates[first] * past
        line = (
            self.integral[first] + past * (self.cumulative[first] + risk) / 2 - age * risk + price
        )
        if self._integral_at(age + most) - (age + most) * risk <= line:
            return most
        last = cell_of(age + most)
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
        return min(most, start - age + max(0.0, root - slope) / rate)

    def _cumulative_at(self, age: float) -> float:
        cell = cell_of(age)
        return self.cumulative[cell] + self.rates[cell] * (age - EDGES[cell])

    def _integral_at(self, age: float) -> float:
        cell = cell_of(age)
        past = age - EDGES[cell]
        return self.integral[cell] + past * (self.cumulative[cell] + self.rates[cell] * past / 2)
