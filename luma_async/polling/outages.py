"""Outages: requests that fail, logged once from the first failure until the relay is well."""

from math import inf

from msgspec import Struct

QUIET_AFTER_OUTAGE = 60.0
GROWTH = 4.0
MAX_QUIET_AFTER_OUTAGE = 3600.0


class Outage(Struct, frozen=True):
    """An outage, or the time since the last one.

    It begins with the first failed request, and is over at the first response after `quiet_for`
    seconds without a failure: a minute; four times as long for each further outage that begins
    within an hour of the last failure, so that a relay which fails now and then is not logged again
    and again. `failed` of `requests` requests failed in it; both are 0 without an outage.
    """

    failed: int = 0
    requests: int = 0
    failed_at: float = -inf
    quiet_for: float = QUIET_AFTER_OUTAGE

    @property
    def is_on(self) -> bool:
        """Whether an outage is on."""
        return self.failed > 0

    def after_failure(self, now: float) -> "Outage":
        """Return the outage after a request that failed."""
        return Outage(self.failed + 1, self.requests + 1, now, self._calm(now))

    def after_answer(self, now: float) -> "Outage":
        """Return the outage after a response; none is on if it is over."""
        if not self.is_on:
            return self
        over = now >= self.failed_at + self.quiet_for
        counts = (0, 0) if over else (self.failed, self.requests + 1)
        return Outage(*counts, self.failed_at, self.quiet_for)

    def _calm(self, now: float) -> float:
        if self.is_on:
            return self.quiet_for
        if now >= self.failed_at + MAX_QUIET_AFTER_OUTAGE:
            return QUIET_AFTER_OUTAGE
        return min(MAX_QUIET_AFTER_OUTAGE, GROWTH * self.quiet_for)
