"""When next? How long an id rests between two looks."""

from math import inf
from typing import Protocol, runtime_checkable

from msgspec import Struct

from luma_async.checks import positive


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
