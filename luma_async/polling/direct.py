"""Direct calls: get, get_many and timeout=0, with their own retries."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import anyio

from luma_async.errors import APIError, LumaError, NoSuchRouteError, NotFoundError, RateLimitedError
from luma_async.polling.interfaces import Relay
from luma_async.polling.poller import Poller
from luma_async.scheduling.changes import PollAnswer
from luma_async.scheduling.error_policy import Action, decide
from luma_async.structs import Generation

MAX_ATTEMPTS = 3
MAX_LOOK_COOLDOWN = 1.0


class DirectClient:
    """Ask the relay at once. A request is retried after a transient error, `tries` times in all."""

    def __init__(self, poller: Poller, relay: Relay, tries: int = MAX_ATTEMPTS) -> None:
        self._poller = poller
        self._relay = relay
        self._tries = tries

    async def get(self, task_id: str) -> Generation:
        """Get one task by the single GET. Raise NotFoundError if the relay does not know it."""
        ask = partial(self._relay.get, task_id)
        response = await self._request(ask, 1, many=False)
        if task_id not in response.states:
            raise NotFoundError(200, None, f"the relay does not know {task_id}")
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

    async def _batch(self, ids: Sequence[str], found: dict[str, Generation]) -> None:
        if self._poller.batch_size == 1:
            await self._singly(ids, found)
            return
        ask = partial(self._relay.get_many, ids)
        try:
            response = await self._request(ask, len(ids), many=True)
        except LumaError as error:
            action = decide(error, many=True, tries=self._tries)
            if action not in (Action.NO_BATCH_ENDPOINT, Action.SHRINK_BATCH, Action.BISECT):
                raise
            self._poller.record_batch_result(action, len(ids))
        else:
            self._poller.record_batch_result(None, len(ids))
            found |= {i: response.generation(i) for i in ids if i in response.states}
            return
        if action is Action.NO_BATCH_ENDPOINT or len(ids) == 1:
            await self._singly(ids, found)
        else:
            for half in _parts(ids, (len(ids) + 1) // 2):
                await self._batch(half, found)

    async def _singly(self, ids: Sequence[str], found: dict[str, Generation]) -> None:
        for task_id in ids:
            try:
                found[task_id] = await self.get(task_id)
            except LumaError as error:
                if decide(error, many=False) is not Action.NOT_FOUND:
                    raise

    async def _request(
        self, ask: Callable[[], Awaitable[PollAnswer]], ids: int, *, many: bool
    ) -> PollAnswer:
        """Send one request with `ids` ids, and retry it after a transient error.

        Raise the relay's last error; the transport's, if the relay never responded. A retry, or a
        request without retries, does not wait for a long cool-down: its cause is raised at once.
        """
        queue, throttle, health = self._poller.queue, self._poller.throttle, self._poller.health
        loop, tries = asyncio.get_running_loop(), self._tries
        failure: LumaError | None = None
        max_cooldown = queue.max_cooldown
        if tries == 1:
            max_cooldown = min(max_cooldown, MAX_LOOK_COOLDOWN)
        for attempt in range(1, tries + 1):
            sent_at = loop.time()
            cooldown = throttle.cooldown_until - sent_at
            if cooldown > max_cooldown and (failure or tries == 1):
                failure = failure or throttle.cooldown_cause or _cooling_down(cooldown)
                break
            try:
                await queue.admission(again=failure is not None, patient=tries > 1)
                sent_at = loop.time()
                return await queue.send(ask, ids)
            except LumaError as error:
                now = loop.time()
                throttle.honour_retry_after(error.retry_after, now)
                action = decide(error, many=many, tries=attempt)
                if action is not Action.NOT_FOUND:
                    health.record_error(error, action, now)
                if action in (Action.BISECT, Action.SHRINK_BATCH):
                    throttle.pause_briefly(now)
                if action is not Action.RETRY or isinstance(error, NoSuchRouteError):
                    raise
                throttle.back_off(error, sent_at, now)
                failure = error if isinstance(error, APIError) or failure is None else failure
        assert failure is not None
        raise failure


def _cooling_down(seconds: float) -> RateLimitedError:
    return RateLimitedError(200, message="the relay asks for a pause", retry_after=seconds)


def _parts(ids: Sequence[str], size: int) -> list[Sequence[str]]:
    return [ids[start : start + size] for start in range(0, len(ids), size)]
