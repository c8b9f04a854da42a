"""When is trouble worth telling? Requests that fail, from the first one until all has been calm."""

from math import inf

from msgspec import Struct

CALM = 60.0
GROWTH = 4.0
LONGEST_CALM = 3600.0


class Episode(Struct, frozen=True):
    """The trouble that is on, or the calm since the last.

    It begins with the first failed request, and is over at the first answer after `calm` seconds
    without a failure: a minute; four times as long for each further episode that begins within an
    hour of the last failure, so that a relay that fails now and then is not told of for ever.
    `failed` of `requests` requests failed in it; none while all is calm.
    """

    failed: int = 0
    requests: int = 0
    failed_at: float = -inf
    calm: float = CALM

    @property
    def is_on(self) -> bool:
        """Whether requests have failed of late."""
        return self.failed > 0

    def struck(self, now: float) -> "Episode":
        """Return the episode after a request that failed."""
        return Episode(self.failed + 1, self.requests + 1, now, self._calm(now))

    def answered(self, now: float) -> "Episode":
        """Return the episode after a request that was answered; none is on where it is over."""
        if not self.is_on:
            return self
        over = now >= self.failed_at + self.calm
        counts = (0, 0) if over else (self.failed, self.requests + 1)
        return Episode(*counts, self.failed_at, self.calm)

    def _calm(self, now: float) -> float:
        if self.is_on:
            return self.calm
        if now >= self.failed_at + LONGEST_CALM:
            return CALM
        return min(LONGEST_CALM, GROWTH * self.calm)
