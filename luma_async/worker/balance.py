"""Who holds how much: what a worker takes, and what it hands back, so that all do their part.

Every worker tells the others how many ids it holds and how many it could. The fair part of one is
its capacity's share of all that is held or waits. One that has somewhat more takes nothing new, one
that has clearly more hands back down to its part; the server gives that to those who take, and
there always is one: not all can have more than their part. Between "somewhat" and "clearly" lies
room, for what is known of others is a moment old, and ids should not wander for that.
"""

from collections.abc import Iterable

from msgspec import Struct

TOLERANCE = 1.25
MIN_SURPLUS = 256


class Load(Struct, frozen=True):
    """What one worker holds, and how much it could."""

    held: int
    capacity: int


class Rebalance(Struct, frozen=True):
    """What a worker does next: take so many ids at most, or hand so many back."""

    take: int = 0
    hand_back: int = 0


def plan(mine: Load, others: Iterable[Load], *, waiting: int, most: int) -> Rebalance:
    """Decide what comes next.

    `waiting` is how many ids nobody holds, `most` how many one request may take.
    """
    loads = [mine, *others]
    everything = waiting + sum(load.held for load in loads)
    fair = mine.capacity * everything / sum(load.capacity for load in loads)
    clearly_more = TOLERANCE * fair + MIN_SURPLUS
    if mine.held > clearly_more:
        return Rebalance(hand_back=mine.held - int(fair))
    room = mine.capacity - mine.held
    if len(loads) > 1:
        room = min(room, int((fair + clearly_more) / 2) - mine.held)
    return Rebalance(take=max(0, min(most, room)))
