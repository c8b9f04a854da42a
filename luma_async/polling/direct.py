"""Direct calls: get, get_many and timeout=0, with their own retries."""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from math import inf

import anyio

from luma_async.errors import APIError, LumaError, NotFoundError, TooLongError
from luma_async.polling.admission import Patience, cooldown_error
from luma_async.polling.error_handling import TOO_LARGE
from luma_async.polling.interfaces import Relay
from luma_async.polling.poller import Poller
from luma_async.scheduling.changes import PollAnswer
from luma_async.scheduling.error_policy import Action, decide
from luma_async.structs import Generation
from luma_async.text import one_line

MAX_ATTEMPTS = 3
MAX_LOOK_COOLDOWN = 1.0  # seconds, for which a request without retries waits


class DirectClient:
    """Ask the relay at once. A request is retried after a transient error, `tries` times in all."""

    def __init__(self, poller: Poller, relay: Relay, tries: int = MAX_ATTEMPTS) -> None:
        self._poller = poller
        self._relay = relay
        self._tries = tries

    async def get(self, task_id: str) -> Generation:
        """Get one task by the single GET. Raise NotFoundError if the relay does not know it."""
        ask = partial(self._relay.get, task_id)
        response = await self._request(ask, (task_id,), many=False)
        if task_id not in response.states:
            error = NotFoundError(200, None, f"the relay does not know {one_line(task_id)}")
            error.about_task = True
            raise error
        return response.generation(task_id)

    async def get_many(self, ids: Sequence[str], found: dict[str, Generation]) -> None:
        """Get many tasks by batch POSTs, and add them to `found`; unknown ids are left out.

        Raise the first error that a retry does not cure; what was found stays in `found`.
        """
        failure: LumaError | None = None
        left = deque(ids)

        async def ask() -> None:
            nonlocal failure
            try:
                while left:
                    size = min(self._poller.batch_size, len(left))
                    await self._batch([left.popleft() for _ in range(size)], found)
            except LumaError as error:
                failure = failure or error
                group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            for _ in _parts(ids, self._poller.batch_size)[
                : self._poller.throttle.limits.max_in_flight
            ]:
                group.start_soon(ask)
        if failure:
            raise failure

    async def _batch(self, ids: Sequence[str], found: dict[str, Generation]) -> bool:
        """Get tasks by one batch, or by parts of it. Return whether it passed as a whole."""
        if self._poller.batch_size == 1:
            await self._singly(ids, found)
            return False
        ask = partial(self._relay.get_many, ids)
        try:
            response = await self._request(ask, ids, many=True)
        except LumaError as error:
            action = Action.BISECT if isinstance(error, TooLongError) else decide(error, many=True)
            if action not in (Action.NO_BATCH_ENDPOINT, Action.BISECT):
                raise
            route = action is not Action.NO_BATCH_ENDPOINT
            singly = not route and self._poller.endpoints.record_no_batch_route(error, ids)
            too_large = isinstance(error, APIError) and error.status == TOO_LARGE
        else:
            self._poller.endpoints.record_batch(len(ids), response.states)
            found |= {i: response.generation(i) for i in ids if i in response.states}
            return True
        if singly or len(ids) == 1:
            await self._singly(ids, found)
            return False
        passed = True
        for half in _parts(ids, (len(ids) + 1) // 2):
            if len(half) == 1:
                await self._singly(half, found)
            else:
                passed &= await self._batch(half, found)
        if too_large and passed:
            self._poller.endpoints.record_too_large(len(ids))
        return False

    async def _singly(self, ids: Sequence[str], found: dict[str, Generation]) -> None:
        """Get tasks by single GETs; only those that the relay says do not exist are left out."""
        for task_id in ids:
            try:
                found[task_id] = await self.get(task_id)
            except NotFoundError as error:
                if not error.about_task:
                    raise

    async def _request(
        self, ask: Callable[[], Awaitable[PollAnswer]], ids: Sequence[str], *, many: bool
    ) -> PollAnswer:
        """Send one request about these ids, and retry it after a transient error.

        Raise the relay's last error; the transport's, if the relay never responded. No request
        waits for a quiet time that is longer than `request_timeout`; a retry, or a request without
        retries, does not wait for a long cool-down either: its cause is raised at once.
        """
        queue, throttle, loop = self._poller.queue, self._poller.throttle, self._poller.loop
        failure: LumaError | None = None
        for attempt in range(1, self._tries + 1):
            patience = self._patience(again=failure is not None)
            if patience.is_exceeded(throttle, loop.time()):
                raise failure or cooldown_error(throttle, loop.time())
            try:
                await queue.admission(patience, again=failure is not None)
            except APIError:
                if failure is not None:
                    raise failure from None
                raise
            sent_at = loop.time()
            try:
                response = await queue.send(ask, len(ids))
            except LumaError as error:
                if self._is_final(error, sent_at, many=many, attempt=attempt):
                    raise
                failure = error if isinstance(error, APIError) or failure is None else failure
            else:
                self._poller.endpoints.record_response()
                return response
        assert failure is not None
        raise failure

    def _patience(self, *, again: bool) -> Patience:
        longest = self._poller.queue.max_cooldown
        if self._tries == 1:
            return Patience(longest, longest, min(longest, MAX_LOOK_COOLDOWN))
        return Patience(retry_after=longest, cooldown=longest if again else inf)

    def _is_final(self, error: LumaError, sent_at: float, *, many: bool, attempt: int) -> bool:
        """Record an error. Return whether a retry is of no use."""
        throttle, now = self._poller.throttle, self._poller.loop.time()
        throttle.honour_retry_after(error.retry_after, now)
        action = decide(error, many=many)
        if action is not Action.NOT_FOUND:
            self._poller.health.record_error(error, action, now)
        match action:
            case Action.BISECT:
                throttle.pause_briefly(now)
            case Action.CHECK_KEY:
                if self._poller.key_rejections.count_rejection():
                    throttle.back_off(error, sent_at, now)
                self._poller.health.record_key_rejection(error, now)
            case Action.RETRY:
                throttle.back_off(error, sent_at, now)
                return many and isinstance(error, TooLongError) and attempt > 1
            case _:
                pass
        return True


def _parts(ids: Sequence[str], size: int) -> list[Sequence[str]]:
    return [ids[start : start + size] for start in range(0, len(ids), size)]
