"""Outages: requests that fail are logged once, and once more when the relay has recovered."""

import logging
from math import inf

from luma_async.text import format_duration

logger: logging.Logger = logging.getLogger("luma_async")

QUIET_AFTER_OUTAGE = 60.0  # seconds
WARN_EVERY = 600.0  # seconds


class Outage:
    """Log the first failed request, and the recovery.

    An outage is on from the first failure until the first response after `QUIET_AFTER_OUTAGE`
    seconds without one. A failure within `WARN_EVERY` seconds of the last warning starts none: a
    relay that fails now and then is logged six times an hour at most. `failed` of `requests`
    requests failed in it; both are 0 without an outage.
    """

    __slots__ = ("_failed_at", "_warned_at", "failed", "requests")

    def __init__(self) -> None:
        self.failed: int = 0
        self.requests: int = 0
        self._failed_at = self._warned_at = -inf

    @property
    def is_on(self) -> bool:
        """Whether an outage is on."""
        return self.failed > 0

    def record_failure(self, now: float, message: str) -> None:
        """Count a failed request; log `message` if an outage begins with it."""
        if not self.is_on:
            if now < self._warned_at + WARN_EVERY:
                return
            self._warned_at = now
            logger.warning("a request failed: %s", message)
        self.failed += 1
        self.requests += 1
        self._failed_at = now

    def record_response(self, now: float) -> None:
        """Count a response; log the recovery if the outage ends with it."""
        if not self.is_on:
            return
        if now < self._failed_at + QUIET_AFTER_OUTAGE:
            self.requests += 1
            return
        logger.info(
            "the relay recovered: no failure for %s; %d of %d requests failed before",
            format_duration(QUIET_AFTER_OUTAGE),
            self.failed,
            self.requests,
        )
        self.failed = self.requests = 0
