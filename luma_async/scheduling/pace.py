"""When next? How long an id rests between two looks."""

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
    """How often to ask about an id: a pure function of its age."""

    def rest(self, age: float) -> float:
        """Return the seconds from one look at an id to the next.

        `age` is seconds since the id was first watched.
        """
        ...


def rest(pace: Pace, age: float) -> float:
    """Return the rest that a pace gives; ValueError where it is none that anybody could take."""
    seconds = pace.rest(age)
    if not 0 < seconds < inf:
        raise ValueError(f"{pace!r} rests {seconds!r} s; return a finite number above zero")
    return seconds


class Every(Struct, frozen=True):
    """Ask about each open id every `seconds` seconds: plain and predictable.

    5 s is what clients in the wild do; relays refresh from upstream every 10 to 15 s at best.
    """

    seconds: float = 5.0

    def __post_init__(self) -> None:
        if positive("seconds", self.seconds) == inf:
            raise ValueError("seconds=inf would never ask again; give a finite number")

    def rest(self, age: float) -> float:
        """Return `seconds`, whatever the age."""
        return self.seconds


class Backoff(Struct, frozen=True):
    """Ask often at first, then ever more seldom.

    The first rest is `first` seconds, each further one `factor` times as long, none above `most`.
    """

    first: float = 1.0
    factor: float = 2.0
    most: float = 15.0

    def __post_init__(self) -> None:
        if positive("first", self.first) > positive("most", self.most):
            raise ValueError(f"first={self.first} is above most={self.most}; give first <= most")
        if self.most == inf:
            raise ValueError("most=inf would never ask again; give a finite number")
        if not 1.0 <= positive("factor", self.factor) < inf:
            raise ValueError(f"factor={self.factor} makes no rest longer; give a number from 1 on")

    def rest(self, age: float) -> float:
        """Return the rest at an age: what the rests before it add up to sets how long it is."""
        return min(self.most, self.first + max(0.0, age) * (self.factor - 1.0))


class Learned(Struct, frozen=True):
    """Spend what `Every(interval)` would, and ask when an end is likely.

    A session learns how long its tasks take from the ends that it sees. `seen` is what is known
    beforehand: `luma.stats.learned` is this pace with what the session has learned so far, its
    `snapshot` can be saved, `Learned.restore` gives it back. While there is little to go on, it
    asks every `interval` seconds. No id rests for longer than four of them, or four times as long
    as max_rate makes ids rest.
    """

    interval: float = 5.0
    seen: DurationCounts = DurationCounts()

    def __post_init__(self) -> None:
        if not SHORTEST <= positive("interval", self.interval) <= LONGEST_INTERVAL:
            raise ValueError(f"interval={self.interval!r}; give seconds from 0.001 to a million")
        instance("seen", self.seen, DurationCounts, "what luma.stats.learned has there")

    @classmethod
    def restore(cls, snapshot: object) -> "Learned":
        """Return the pace that a snapshot was taken of; ValueError if it is none."""
        try:
            saved = convert(snapshot, _Snapshot)
            return cls(saved.interval, DurationCounts.of(saved.ages))
        except (ValueError, TypeError) as error:
            raise ValueError(f"no snapshot: {error}; give what Learned.snapshot returned") from None

    def snapshot(self) -> dict[str, Any]:
        """Return what is known, as plain data that `json.dumps` takes."""
        return cast("dict[str, Any]", to_builtins(_Snapshot(self.interval, self.seen.ages())))

    @property
    def ends(self) -> float:
        """How many ends this was learned from; old ones count less."""
        return self.seen.ends

    def quantile(self, share: float) -> float | None:
        """Return the age in seconds by which such a share of tasks has ended; None if none has."""
        if not 0.0 < share < 1.0:
            raise ValueError(f"share={share!r}; give a number between 0 and 1")
        return self.hazard().quantile(share) if self.ends else None

    def rest(self, age: float) -> float:
        """Return the rest of a task of such an age that has a request for itself."""
        hazard = self.hazard()
        return hazard.delay(
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
            known = f"{self.ends:.0f} ends, half by {half:.3g} s, 95 % by {most:.3g} s"
        return f"<Learned({self.interval:g}): {known}>"


class _Snapshot(Struct, frozen=True):
    """What is saved of a pace; a row is an age, the ends from there on, the seconds watched."""

    interval: float
    ages: list[tuple[float, float, float]]
