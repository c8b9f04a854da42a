"""How many aboard? What refusals have taught about the batch call."""

from math import inf

from msgspec import Struct
from msgspec.structs import replace

from luma_async.scheduling.error_policy import Verdict

REGROWTH = 600.0
FIRST_SPELL = 60.0
LONGEST_SPELL = 3600.0


class Seats(Struct, frozen=True):
    """How many ids one request may ask about: `most`, or one at a time until `singly_until`.

    A relay that finds a request too large is asked for half as much from then on; every ten minutes
    twice as much is tried, up to `limit`.

    A relay without the batch call is asked singly for a `spell` of seconds, then the batch call is
    tried again: what said that there is none may have been a proxy that stood in for the relay.
    Each spell is twice as long as the one before, until a batch is answered.
    """

    limit: int
    shrunk_to: float = inf
    shrunk_at: float = -inf
    singly_until: float = -inf
    spell: float = FIRST_SPELL

    def at(self, now: float) -> int:
        """Return how many ids a request that departs at `now` may ask about."""
        return 1 if now < self.singly_until else self.most_at(now)

    def most_at(self, now: float) -> int:
        """Return how many ids a batch that departs at `now` may have."""
        if self.shrunk_to >= self.limit:
            return self.limit
        regrown = self.shrunk_to * 2.0 ** min((now - self.shrunk_at) // REGROWTH, 32)
        return int(min(self.limit, regrown))

    def learned(self, verdict: Verdict | None, ids: int, now: float) -> "Seats":
        """Return the seats after a request about `ids` ids; None means that it was answered."""
        if ids == 1:
            return self
        match verdict:
            case Verdict.SHRINK:
                return self.shrunk(ids, now)
            case Verdict.SINGLES:
                return self.singly(now)
            case None:
                return self.proven()
            case _:
                return self

    def shrunk(self, ids: int, now: float) -> "Seats":
        """Return the seats after a request about `ids` ids was too large."""
        half = min(self.most_at(now), (ids + 1) // 2)
        return replace(self, shrunk_to=half, shrunk_at=now)

    def singly(self, now: float) -> "Seats":
        """Return the seats after the relay had no batch call at `now`."""
        if now < self.singly_until:
            return self
        longer = min(2.0 * self.spell, LONGEST_SPELL)
        return replace(self, singly_until=now + self.spell, spell=longer)

    def doubted(self) -> "Seats":
        """Return the seats after the single call was not there either: a proxy spoke."""
        return replace(self, singly_until=-inf, spell=FIRST_SPELL)

    def proven(self) -> "Seats":
        """Return the seats after a batch was answered."""
        return replace(self, spell=FIRST_SPELL) if self.spell > FIRST_SPELL else self
