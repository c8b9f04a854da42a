"""How many aboard? What refusals have taught about the batch call."""

from math import inf

from msgspec import Struct
from msgspec.structs import replace

from luma_async.verdicts import Verdict

FIRST_SPELL = 60.0
LONGEST_SPELL = 3600.0


class Seats(Struct, frozen=True):
    """How many ids one request may ask about: `most`, or one at a time until `singly_until`.

    A relay without the batch call is asked singly for a `spell` of seconds, then the batch call is
    tried again: what said that there is none may have been a proxy that stood in for the relay.
    Each spell is twice as long as the one before, until a batch is answered.
    """

    most: int
    singly_until: float = -inf
    spell: float = FIRST_SPELL

    def at(self, now: float) -> int:
        """Return how many ids a request that departs at `now` may ask about."""
        return 1 if now < self.singly_until else self.most

    def learned(self, verdict: Verdict | None, ids: int, now: float) -> "Seats":
        """Return the seats after a request about `ids` ids; None means that it was answered."""
        if ids == 1:
            return self
        match verdict:
            case Verdict.SHRINK:
                return self.shrunk(ids)
            case Verdict.SINGLES:
                return self.singly(now)
            case None:
                return self.proven()
            case _:
                return self

    def shrunk(self, ids: int) -> "Seats":
        """Return the seats after a request about `ids` ids was too large, for good."""
        return replace(self, most=min(self.most, (ids + 1) // 2))

    def singly(self, now: float) -> "Seats":
        """Return the seats after the relay had no batch call at `now`."""
        if now < self.singly_until:
            return self
        longer = min(2.0 * self.spell, LONGEST_SPELL)
        return replace(self, singly_until=now + self.spell, spell=longer)

    def proven(self) -> "Seats":
        """Return the seats after a batch was answered."""
        return replace(self, spell=FIRST_SPELL) if self.spell > FIRST_SPELL else self
