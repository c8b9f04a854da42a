"""Who holds how much: what a worker takes, and what it hands back, so that all do their part.

Every worker tells the others how many ids it holds and how many it could. The fair part of one is
its capacity's share of all that is held. One that has clearly more takes nothing new, and hands
back down to its part; the server gives that to those who do take, and there always is one: not all
can have more than their part. What is "clearly more" is wide, so that nothing wanders for nothing:
an id that moves is polled by somebody else for a moment later, and all that costs is that.
"""

from collections.abc import Iterable

from msgspec import Struct

WIDE = 1.25
FEW = 256


class Load(Struct, frozen=True):
    """What one worker holds, and how much it could."""

    held: int
    capacity: int


class Turn(Struct, frozen=True):
    """What a worker does next: take so many ids at most, or hand so many back."""

    take: int = 0
    hand_back: int = 0


def turn(mine: Load, others: Iterable[Load], most: int) -> Turn:
    """Decide what comes next; `most` is how many ids one request may take."""
    loads = [mine, *others]
    fair = mine.capacity * sum(load.held for load in loads) / sum(load.capacity for load in loads)
    if mine.held > WIDE * fair + FEW:
        return Turn(hand_back=mine.held - int(fair))
    return Turn(take=max(0, min(most, mine.capacity - mine.held)))
