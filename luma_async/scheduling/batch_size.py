"""How many aboard? What refusals have taught about the batch call."""

from math import inf

from msgspec import Struct
from msgspec.structs import replace

from luma_async.scheduling.error_policy import Action

REGROW_EVERY = 600.0
FIRST_PROBE_DELAY = 60.0
MAX_PROBE_DELAY = 3600.0


class BatchSize(Struct, frozen=True):
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
    no_batch_until: float = -inf
    probe_delay: float = FIRST_PROBE_DELAY

    def current(self, now: float) -> int:
        """Return how many ids a request that departs at `now` may ask about."""
        return 1 if now < self.no_batch_until else self.batch_limit(now)

    def batch_limit(self, now: float) -> int:
        """Return how many ids a batch that departs at `now` may have."""
        if self.shrunk_to >= self.limit:
            return self.limit
        regrown = self.shrunk_to * 2.0 ** min((now - self.shrunk_at) // REGROW_EVERY, 32)
        return int(min(self.limit, regrown))

    def after(self, verdict: Action | None, ids: int, now: float) -> "BatchSize":
        """Return the seats after a request about `ids` ids; None means that it was answered."""
        if ids == 1:
            return self
        match verdict:
            case Action.SHRINK_BATCH:
                return self.halved(ids, now)
            case Action.NO_BATCH_ENDPOINT:
                return self.without_batch(now)
            case None:
                return self.confirmed()
            case _:
                return self

    def halved(self, ids: int, now: float) -> "BatchSize":
        """Return the seats after a request about `ids` ids was too large."""
        half = min(self.batch_limit(now), (ids + 1) // 2)
        return replace(self, shrunk_to=half, shrunk_at=now)

    def without_batch(self, now: float) -> "BatchSize":
        """Return the seats after the relay had no batch call at `now`."""
        if now < self.no_batch_until:
            return self
        longer = min(2.0 * self.probe_delay, MAX_PROBE_DELAY)
        return replace(self, no_batch_until=now + self.probe_delay, probe_delay=longer)

    def batch_restored(self) -> "BatchSize":
        """Return the seats after the single call was not there either: a proxy spoke."""
        return replace(self, no_batch_until=-inf, probe_delay=FIRST_PROBE_DELAY)

    def confirmed(self) -> "BatchSize":
        """Return the seats after a batch was answered."""
        return (
            replace(self, probe_delay=FIRST_PROBE_DELAY)
            if self.probe_delay > FIRST_PROBE_DELAY
            else self
        )
