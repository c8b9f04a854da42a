"""What is done about the error of a poll: `scheduling.error_policy` decides, this acts."""

import logging
from typing import TYPE_CHECKING

from luma_async.errors import APIError, LumaError, RequestTimeout, TooLongError, unforeseen
from luma_async.polling.interfaces import Watcher
from luma_async.protocol.responses import Response
from luma_async.scheduling.batches import Batch
from luma_async.scheduling.error_policy import Action, decide, max_attempts
from luma_async.scheduling.missing_evidence import Sign
from luma_async.scheduling.throttle import ExponentialBackoff

if TYPE_CHECKING:
    from luma_async.polling.poller import Poller

logger: logging.Logger = logging.getLogger("luma_async")

FAST_RETRIES = 4
ALONE_FACTOR = 2  # attempts of a batch beside which there are no other ids
TOO_LARGE = 413


class ErrorHandler:
    """Retry, bisect, poll apart or abort what failed."""

    def __init__(self, poller: "Poller") -> None:
        self._poller = poller
        self._retry = ExponentialBackoff()

    def handle(self, batch: Batch[Watcher], error: BaseException) -> None:
        """Act on the error of a poll."""
        if not isinstance(error, LumaError):
            logger.error("unexpected error in a poll; retrying", exc_info=error)
            error = unforeseen(error)
        now = self._poller.loop.time()
        self._poller.throttle.honour_retry_after(error.retry_after, now)
        action = self._decide(batch, error)
        if action is Action.NOT_FOUND:
            self._poller.on_heard(batch, error.retry_after)
            self._poller.apply(batch, Response(), Sign.NOT_FOUND, error)
            return
        self._poller.health.record_error(error, action, now)
        if self._poller.endpoints.leads_nowhere(error, batch_endpoint=batch.use_batch_endpoint):
            self._abort_all(batch, error, now)
            return
        match action:
            case Action.ABORT:
                self._abort_all(batch, error, now)
            case Action.CHECK_KEY:
                self._check_key(batch, error, now)
            case Action.NO_BATCH_ENDPOINT:
                self._on_no_batch_route(batch, error, now)
            case Action.NO_SINGLE_ENDPOINT:
                self._poller.endpoints.record_no_single_route()
                self._retry_later(batch, error)
            case Action.REJECTED:
                self._hold_back(batch, error, now)
                self._poller.apply(batch, Response(), Sign.REJECTED, error)
            case Action.BISECT:
                self._hold_back(batch, error, now)
                self._poller.scheduler.bisect(batch, size_evidence=_size_evidence(batch, error))
            case _ if isinstance(error, RequestTimeout) and self._is_alone_in_timing_out(batch):
                self._poller.throttle.pause_briefly(now)
                self._poller.scheduler.back_off_hanging(batch, now + self._retry_delay(batch))
            case _:
                self._retry_later(batch, error)

    def _decide(self, batch: Batch[Watcher], error: LumaError) -> Action:
        many = len(batch.items) > 1
        action = decide(error, many=many)
        if action is Action.RETRY and many and self._is_to_blame(batch, error):
            return Action.BISECT
        if action is Action.NO_SINGLE_ENDPOINT and batch.use_batch_endpoint:
            return Action.NO_BATCH_ENDPOINT
        return action

    def _is_alone_in_timing_out(self, batch: Batch[Watcher]) -> bool:
        """Whether others were answered since the ids of a batch that timed out were."""
        others = self._poller.scheduler.has_others(batch)
        return others and self._poller.health.answered_at > max(batch.last_heard_at, batch.sent_at)

    def _is_to_blame(self, batch: Batch[Watcher], error: LumaError) -> bool:
        """Whether an id of a batch that fails again and again is taken for the cause.

        Only if other requests were answered in the meantime, or there are none: in an outage of the
        relay all batches fail.
        """
        others = self._poller.scheduler.has_others(batch)
        attempts = max_attempts(error)
        if isinstance(error, TooLongError):
            return batch.attempt > attempts
        if not others:
            return batch.attempt > attempts * ALONE_FACTOR
        others_answered = self._poller.health.answered_recently(self._poller.loop.time())
        return batch.attempt > attempts and others_answered

    def _hold_back(self, batch: Batch[Watcher], error: LumaError, now: float) -> None:
        """Hold back all requests for a moment after a rejection; longer if a proxy said it."""
        if isinstance(error, APIError) and error.in_json and batch.attempt == 1:
            self._poller.throttle.pause_briefly(now)
        else:
            self._poller.throttle.back_off(error, batch.sent_at, now)

    def _abort_all(self, batch: Batch[Watcher], error: LumaError, now: float) -> None:
        self._poller.health.record_abort(error, now)
        self._poller.throttle.back_off(error, batch.sent_at, now)
        self._poller.scheduler.back_off(batch, now)
        self._poller.abort(error)

    def _check_key(self, batch: Batch[Watcher], error: LumaError, now: float) -> None:
        """Find out by the next request whether the key is rejected, or may not see one id."""
        others = self._poller.scheduler.has_others(batch)
        if self._poller.key_rejections.record_rejection(
            batch.ids, batch.sent_at, now, has_others=others
        ):
            self._abort_all(batch, error, now)
            return
        self._poller.throttle.pause_briefly(now)
        self._poller.scheduler.probe()
        if len(batch.items) > 1:
            self._poller.scheduler.bisect(batch, others_first=True)
        elif others and self._poller.health.answered_at > batch.last_heard_at:
            self._poller.apply(batch, Response(), Sign.FORBIDDEN, error)
        else:
            self._poller.scheduler.back_off(batch, now)

    def _on_no_batch_route(self, batch: Batch[Watcher], error: LumaError, now: float) -> None:
        """Try a half; if that has no route either, poll one id per request."""
        others = self._poller.scheduler.has_others(batch)
        believed = self._poller.endpoints.record_no_batch_route(error, batch.ids, has_others=others)
        if not believed and len(batch.items) > 1:
            self._poller.throttle.pause_briefly(now)
            self._poller.scheduler.bisect(batch, others_first=True)
        else:
            self._poller.throttle.back_off(error, batch.sent_at, now)
            self._poller.scheduler.back_off(batch, now)

    def _retry_later(self, batch: Batch[Watcher], error: LumaError) -> None:
        """Back off a failed batch: first retries come early, later ones no sooner than a poll."""
        now = self._poller.loop.time()
        if batch.is_quarantined and self._poller.health.answered_recently(now):
            self._poller.throttle.pause_briefly(now)
        else:
            self._poller.throttle.back_off(error, batch.sent_at, now)
        self._poller.scheduler.back_off(batch, now + self._retry_delay(batch))

    def _retry_delay(self, batch: Batch[Watcher]) -> float:
        """Return the seconds until a failed batch is sent again."""
        delay = self._retry.delay(batch.attempt, self._poller.roll())
        if batch.attempt > FAST_RETRIES:
            base = self._poller.scheduler.timing.base_delay(batch.watched_since, batch.sent_at)
            return max(delay, base)
        return delay


def _size_evidence(batch: Batch[Watcher], error: LumaError) -> int:
    """Return how far an error says that its batch was too large, as in `Scheduler.bisect`."""
    if not isinstance(error, APIError) or batch.attempt > 1:
        return 0
    return 2 if error.status == TOO_LARGE else 1
