"""Submissions: each is sent at most once, unless it is certain that the relay did not take it.

`scheduling.submission_policy` decides what an error means; this waits, sends and retries. All
submissions wait in the queue of the direct calls: there is one budget for the whole session.
"""

import asyncio
import logging
from datetime import UTC, datetime
from math import inf

from luma_async.errors import (
    APIError,
    AuthenticationError,
    LumaError,
    PermissionDeniedError,
    QuotaError,
    RequestTimeout,
    SubmitUnknown,
    unforeseen,
)
from luma_async.polling.admission import Patience, cooldown_error
from luma_async.polling.interfaces import SubmittingRelay
from luma_async.polling.poller import Poller
from luma_async.protocol.submissions import Submission, Submitted, shown_prompt
from luma_async.scheduling.error_policy import Action
from luma_async.scheduling.submission_policy import Outcome, submission_outcome
from luma_async.structs import Generation

logger: logging.Logger = logging.getLogger("luma_async")

_REMEDY = "check the tasks of your account at the relay before you submit it again"
_KEY_ERRORS = (AuthenticationError, QuotaError, PermissionDeniedError)


class SendHooks:
    """What is called around the requests of one submission; by default nothing is done."""

    async def before_send(self) -> None:
        """Prepare for a request that is about to be sent; if it raises, nothing is sent."""

    async def not_taken(self) -> None:
        """Learn that the relay did not take the request; it may be sent again."""


class Attempt:
    """One request that submits a task; `sent_at` is None until the first byte is written."""

    def __init__(self, submission: Submission) -> None:
        self.submission: Submission = submission
        self.sent_at: datetime | None = None

    def record_write(self) -> None:
        """Record that the relay may receive the request from now on."""
        self.sent_at = datetime.now(UTC)

    def unknown(self, error: LumaError) -> SubmitUnknown:
        """Return the error of a request with an unknown outcome."""
        assert self.sent_at is not None
        return SubmitUnknown(
            f"{self._fact()}, and its outcome is unknown ({error}): a task may run and be paid "
            f"for; {_REMEDY}",
            user_prompt=self.submission.user_prompt,
            sent_at=self.sent_at,
            extends=self.submission.extends,
        )

    def cancelled(self) -> str:
        """Return what is to be known of a request that was cancelled after it was sent."""
        return f"{self._fact()}, and was cancelled: a task may run and be paid for; {_REMEDY}"

    def _fact(self) -> str:
        when = f"{self.sent_at:%Y-%m-%d %H:%M:%S} UTC"
        return f"{shown_prompt(self.submission.user_prompt)!r} was submitted at {when}"


_NO_HOOKS = SendHooks()


class Submitter:
    """Submit tasks. `timeout` limits one request, and the time for retries, in seconds."""

    def __init__(self, poller: Poller, relay: SubmittingRelay, timeout: float) -> None:
        self._poller = poller
        self._relay = relay
        self._timeout = timeout

    async def submit(self, submission: Submission, hooks: SendHooks = _NO_HOOKS) -> Generation:
        """Submit a task; retry what the relay certainly did not take until the timeout.

        Raises SubmitUnknown if a task may have been made, another LumaError if none was, and what
        the hooks raise.
        """
        loop = self._poller.loop
        failure: LumaError | None = None
        deadline = inf
        while True:
            left = min(deadline - loop.time(), self._timeout)
            patience = Patience(left if failure else None, cooldown=left)
            if patience.is_exceeded(self._poller.throttle, loop.time()):
                raise failure or cooldown_error(self._poller.throttle, loop.time())
            try:
                await self._poller.queue.admission(patience, again=failure is not None)
            except (APIError, RequestTimeout):
                if failure is not None:
                    raise failure from None
                raise
            deadline = min(deadline, loop.time() + self._timeout)
            answer = await self._send(Attempt(submission), hooks)
            if not isinstance(answer, LumaError):
                return answer
            failure = answer
            await hooks.not_taken()
            if loop.time() >= deadline:
                raise failure

    async def _send(self, attempt: Attempt, hooks: SendHooks) -> Generation | LumaError:
        """Send an admitted request; return the new task, or the error if it may be sent again."""

        async def ask() -> Submitted:
            await hooks.before_send()
            return await self._relay.submit(attempt.submission, attempt.record_write)

        began = self._poller.loop.time()
        try:
            answer = await self._poller.queue.send(ask, attempt.submission.ids)
        except asyncio.CancelledError as error:
            if attempt.sent_at is not None:
                error.add_note(attempt.cancelled())
                logger.warning("%s", attempt.cancelled())
            raise
        except Exception as error:
            if attempt.sent_at is None and not isinstance(error, LumaError):
                raise  # the hook failed
            failure = error if isinstance(error, LumaError) else unforeseen(error)
        else:
            self._poller.key_rejections.record_response()
            return answer.generation
        outcome = submission_outcome(failure, sent=attempt.sent_at is not None)
        self._record(failure, outcome, began)
        if outcome is Outcome.NOT_TAKEN:
            return failure
        if outcome is Outcome.REFUSED:
            raise failure
        unknown = attempt.unknown(failure)
        logger.warning("%s", unknown)
        raise unknown from failure

    def _record(self, error: LumaError, outcome: Outcome, began: float) -> None:
        """Record an error; hold back all requests for a while if they may fail, too."""
        poller, now = self._poller, self._poller.loop.time()
        poller.throttle.honour_retry_after(error.retry_after, now)
        if isinstance(error, _KEY_ERRORS):
            poller.health.record_error(error, Action.CHECK_KEY, now)
            poller.health.record_key_rejection(error, now)
            if poller.key_rejections.count_rejection():
                poller.throttle.back_off(error, began, now)
        elif outcome is Outcome.REFUSED:
            poller.health.record_error(error, Action.ABORT, now)  # counted; the caller receives it
            poller.throttle.pause_briefly(now)
        else:
            poller.health.record_error(error, Action.RETRY, now)
            poller.throttle.back_off(error, began, now)
