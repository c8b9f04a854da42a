"""Batch size: how many ids one request may carry, learned from rejected requests."""

from math import inf

from msgspec import Struct
from msgspec.structs import replace

from luma_async.scheduling.error_policy import Action

REGROW_EVERY = 600.0
FIRST_PROBE_DELAY = 60.0
MAX_PROBE_DELAY = 3600.0


class BatchSize(Struct, frozen=True):
    """The number of ids that a request may carry: `limit` at most, 1 until `no_batch_until`.

    After a request was too large, half as many ids are sent; every `REGROW_EVERY` seconds twice as
    many are tried, up to `limit`.

    After the relay had no batch endpoint, single requests are sent for `probe_delay` seconds, then
    the batch endpoint is tried again: a proxy may have answered for the relay. Each probe delay is
    twice the one before, `MAX_PROBE_DELAY` at most, until a batch is answered.
    """

    limit: int
    shrunk_to: float = inf
    shrunk_at: float = -inf
    no_batch_until: float = -inf
    probe_delay: float = FIRST_PROBE_DELAY

    def current(self, now: float) -> int:
        """Return how many ids a request sent at `now` may carry."""
        return 1 if now < self.no_batch_until else self.batch_limit(now)

    def batch_limit(self, now: float) -> int:
        """Return how many ids a batch request sent at `now` may carry."""
        if self.shrunk_to >= self.limit:
            return self.limit
        regrown = self.shrunk_to * 2.0 ** min((now - self.shrunk_at) // REGROW_EVERY, 32)
        return int(min(self.limit, regrown))

    def after(self, action: Action | None, ids: int, now: float) -> "BatchSize":
        """Return the batch size after a request with `ids` ids; None means that it was answered."""
        if ids == 1:
            return self
        match action:
            case Action.SHRINK_BATCH:
                return self.halved(ids, now)
            case Action.NO_BATCH_ENDPOINT:
                return self.without_batch(now)
            case None:
                return self.confirmed()
            case _:
                return self

    def halved(self, ids: int, now: float) -> "BatchSize":
        """Return the batch size after a request with `ids` ids was too large."""
        half = min(self.batch_limit(now), (ids + 1) // 2)
        return replace(self, shrunk_to=half, shrunk_at=now)

    def without_batch(self, now: float) -> "BatchSize":
        """Return the batch size after the relay had no batch endpoint at `now`."""
        if now < self.no_batch_until:
            return self
        longer = min(2.0 * self.probe_delay, MAX_PROBE_DELAY)
        return replace(self, no_batch_until=now + self.probe_delay, probe_delay=longer)

    def batch_restored(self) -> "BatchSize":
        """Return the batch size after the single endpoint was missing, too: a proxy answered."""
        return replace(self, no_batch_until=-inf, probe_delay=FIRST_PROBE_DELAY)

    def confirmed(self) -> "BatchSize":
        """Return the batch size after a batch was answered."""
        return (
            replace(self, probe_delay=FIRST_PROBE_DELAY)
            if self.probe_delay > FIRST_PROBE_DELAY
            else self
        )
