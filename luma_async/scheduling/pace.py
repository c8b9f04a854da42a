"""Paces: the delay between two polls of an id, as a function of its age."""

from math import inf
from typing import Any, Protocol, cast, runtime_checkable

from msgspec import Struct, convert, to_builtins

from luma_async.scheduling.hazard import DurationCounts, Hazard
from luma_async.validation import instance, positive

MAX_INTERVALS_SILENT = 4.0
MAX_LINGER = 1.0
SHORTEST, LONGEST_INTERVAL = 1e-3, 1e6


@runtime_checkable
class Pace(Protocol):
    """How often to poll an id: a pure function of its age."""

    def rest(self, age: float) -> float:
        """Return the seconds from one poll of an id to the next, above zero.

        `age` is the seconds since the id was first watched.
        """
        ...


def delay_of(pace: Pace, age: float) -> float:
    """Return the delay of a pace; ValueError if it is not a finite number above zero."""
    seconds = pace.rest(age)
    if not 0 < seconds < inf:
        raise ValueError(f"{pace!r} returned {seconds!r} s; return a finite number above zero")
    return seconds


class Every(Struct, frozen=True):
    """Poll each open id every `seconds` seconds.

    5 s is what most clients do; relays refresh from upstream every 10 to 15 s at best.
    """

    seconds: float = 5.0

    def __post_init__(self) -> None:
        if positive("seconds", self.seconds) == inf:
            raise ValueError("seconds=inf would never poll again; give a finite number")

    def rest(self, age: float) -> float:
        """Return `seconds`, whatever the age."""
        return self.seconds


class Backoff(Struct, frozen=True):
    """Poll often at first, then less and less often.

    The first delay is `first` seconds, each further one `factor` times as long, `most` at most.
    """

    first: float = 1.0
    factor: float = 2.0
    most: float = 15.0

    def __post_init__(self) -> None:
        if positive("first", self.first) > positive("most", self.most):
            raise ValueError(f"first={self.first} is above most={self.most}; give first <= most")
        if self.most == inf:
            raise ValueError("most=inf would never poll again; give a finite number")
        if not 1.0 <= positive("factor", self.factor) < inf:
            raise ValueError(
                f"factor={self.factor} makes no delay longer; give a number of at least 1"
            )

    def rest(self, age: float) -> float:
        """Return the delay at an age: `first` plus `factor - 1` times the age."""
        # Delays d, f·d, f²·d … end at age d·(fⁿ - 1)/(f - 1); the next one, d·fⁿ, is
        # d + age·(f - 1).
        return min(self.most, self.first + max(0.0, age) * (self.factor - 1.0))


class Learned(Struct, frozen=True):
    """Send as many requests as `Every(interval)`, at the ages at which tasks are likely to end.

    A session learns how long its tasks take. `seen` is what is known beforehand:
    `luma.stats.learned` is this pace with what the session has learned so far; save its `snapshot`,
    and pass it to `Learned.restore`. Until 20 tasks have ended it polls every `interval` seconds
    (5.0). No id is unpolled for longer than four intervals, or four times the interval that
    max_rate allows.
    """

    interval: float = 5.0
    seen: DurationCounts = DurationCounts()

    def __post_init__(self) -> None:
        if not SHORTEST <= positive("interval", self.interval) <= LONGEST_INTERVAL:
            raise ValueError(f"interval={self.interval!r}; give seconds from 0.001 to a million")
        instance("seen", self.seen, DurationCounts, "what luma.stats.learned has there")

    @classmethod
    def restore(cls, snapshot: object) -> "Learned":
        """Return the pace of a snapshot; ValueError if it is not a snapshot."""
        try:
            saved = convert(snapshot, _Snapshot)
            return cls(saved.interval, DurationCounts.of(saved.ages))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"not a snapshot: {error}; give what Learned.snapshot returned"
            ) from None

    def snapshot(self) -> dict[str, Any]:
        """Return what was learned, as plain data for `json.dumps`."""
        return cast("dict[str, Any]", to_builtins(_Snapshot(self.interval, self.seen.ages())))

    @property
    def ends(self) -> float:
        """How many ended tasks this was learned from; old ones count less."""
        return self.seen.ends

    def quantile(self, share: float) -> float | None:
        """Return the age in seconds by which this share of tasks has ended; None if none has."""
        if not 0.0 < share < 1.0:
            raise ValueError(f"share={share!r}; give a number between 0 and 1")
        return self.hazard().quantile(share) if self.ends else None

    def rest(self, age: float) -> float:
        """Return the delay of a task of this age that is polled alone."""
        hazard = self.hazard()
        return hazard.interval_for(
            age,
            (self.interval * hazard.mean_sqrt_hazard) ** 2 / 2,
            MAX_INTERVALS_SILENT * self.interval,
        )

    def hazard(self) -> Hazard:
        """Return the chance per second that a task ends, by its age."""
        return self.seen.hazard()

    def __repr__(self) -> str:
        known = "nothing learned yet"
        if self.ends:
            half, most = map(self.hazard().quantile, (0.5, 0.95))
            known = f"{self.ends:.0f} tasks, half by {half:.3g} s, 95 % by {most:.3g} s"
        return f"<Learned({self.interval:g}): {known}>"


class _Snapshot(Struct, frozen=True):
    """What is saved of a pace; a row is an age, the tasks that ended there, the seconds open."""

    interval: float
    ages: list[tuple[float, float, float]]
