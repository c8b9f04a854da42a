"""How the relay responds to a session: counts of requests, the last error, outages."""

import logging
from collections.abc import Sequence
from math import inf

from luma_async.errors import LumaError, NoSuchRouteError, RateLimitedError, SetupError
from luma_async.polling.stats import Stats
from luma_async.scheduling.error_policy import Action
from luma_async.scheduling.throttle import MAX_RETRY_AFTER
from luma_async.structs import State
from luma_async.text import format_duration, one_line

logger: logging.Logger = logging.getLogger("luma_async")

QUIET_AFTER_OUTAGE = 60.0  # seconds
WARN_EVERY = 600.0  # seconds
RECENT = 30.0  # seconds
_KEY = "the API key and the account"
_SETUP = "the arguments of the session, and its http="
_LOGGED_BY_POLLER = (
    Action.NO_BATCH_ENDPOINT, Action.NO_SINGLE_ENDPOINT, Action.CHECK_KEY, Action.ABORT,
)  # fmt: skip


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


class RelayHealth:
    """Count requests and errors, and log outages.

    `answered_at` is the time of the last response, `last_error` the last error since then, without
    its traceback. A rejected API key is logged apart from other outages.
    """

    def __init__(self) -> None:
        self.stats: Stats = Stats()
        self.last_error: LumaError | None = None
        self._outage = Outage()
        self._key_outage = Outage()
        self.answered_at: float = -inf

    def answered_recently(self, now: float) -> bool:
        """Return whether a response came within the last `RECENT` seconds."""
        return now < self.answered_at + RECENT

    def record_request(self, ids: int) -> None:
        """Count a request with `ids` ids."""
        self.stats = self.stats.after_request(ids)

    def record_ends(self, ends: Sequence[tuple[State | None, float | None]]) -> None:
        """Count ids that have ended, each with its state (None: missing) and lag."""
        if ends:
            self.stats = self.stats.after_ends(ends)

    def record_response(self, now: float) -> None:
        """Record a response."""
        self.last_error = None
        self.answered_at = now
        self._outage.record_response(now)
        self._key_outage.record_response(now)

    def record_error(self, error: LumaError, action: Action, now: float) -> None:
        """Count a request without a response, and log the outage that begins with it.

        The poller logs a missing endpoint, and a rejected key once it is certain.
        """
        self.last_error = error.with_traceback(None)
        self.stats = self.stats.after_error(throttled=isinstance(error, RateLimitedError))
        if action not in _LOGGED_BY_POLLER:
            what = one_line(str(error)) or type(error).__name__
            self._outage.record_failure(now, f"{what}; {_remedy(error, action)}")

    def record_abort(self, error: LumaError, now: float) -> None:
        """Log that all waits end, once in an outage."""
        what = _SETUP if isinstance(error, SetupError) else _KEY
        if isinstance(error, NoSuchRouteError):
            what = "the base URL"
        self._record_key_failure(error, f"all waits end with WaitAborted; check {what}", now)

    def record_key_rejection(self, error: LumaError, now: float) -> None:
        """Log that the key was rejected in a direct call, once in an outage."""
        self._record_key_failure(error, f"check {_KEY}", now)

    def _record_key_failure(self, error: LumaError, then: str, now: float) -> None:
        what = one_line(str(error)) or type(error).__name__
        self._key_outage.record_failure(now, f"{what}; {then}")


def _remedy(error: LumaError, action: Action) -> str:
    """Return what the log says is done about an error."""
    if action is Action.BISECT:
        return "retrying with fewer ids per request"
    if error.retry_after:
        seconds = min(error.retry_after, MAX_RETRY_AFTER)
        return f"waiting for {format_duration(seconds)}, as the relay asks"
    return "retrying with increasing delay"
