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
        told = await self._request(ask, 1, many=False)
        if task_id not in told.states:
            raise NotFoundError(200, None, f"the relay does not know {task_id}")
        return told.generation(task_id)

    async def get_many(self, ids: Sequence[str], found: dict[str, Generation]) -> None:
        """Get many tasks by batch POSTs, and add them to `found`; unknown ids are left out.

        Raise the first error that a retry does not cure; what was found stays in `found`.
        """
        failure: LumaError | None = None
        unasked = deque(ids)

        async def ask() -> None:
            nonlocal failure
            try:
                while unasked:
                    some = min(self._poller.batch_size, len(unasked))
                    await self._batch([unasked.popleft() for _ in range(some)], found)
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
            told = await self._request(ask, len(ids), many=True)
        except LumaError as error:
            action = decide(error, many=True, tries=self._tries)
            if action not in (Action.NO_BATCH_ENDPOINT, Action.SHRINK_BATCH, Action.BISECT):
                raise
            self._poller.record_batch_result(action, len(ids))
        else:
            self._poller.record_batch_result(None, len(ids))
            found |= {i: told.generation(i) for i in ids if i in told.states}
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
        told: LumaError | None = None
        patience = queue.max_cooldown if tries > 1 else min(queue.max_cooldown, MAX_LOOK_COOLDOWN)
        for tried in range(1, tries + 1):
            departed = loop.time()
            quiet = throttle.cooldown_until - departed
            if quiet > patience and (told or tries == 1):
                told = told or throttle.cooldown_cause or _cooling_down(quiet)
                break
            try:
                await queue.admission(again=told is not None, patient=tries > 1)
                departed = loop.time()
                return await queue.send(ask, ids)
            except LumaError as error:
                now = loop.time()
                throttle.honour_retry_after(error.retry_after, now)
                action = decide(error, many=many, tries=tried)
                if action is not Action.NOT_FOUND:
                    health.record_error(error, action, now)
                if action in (Action.BISECT, Action.SHRINK_BATCH):
                    throttle.pause_briefly(now)
                if action is not Action.RETRY or isinstance(error, NoSuchRouteError):
                    raise
                throttle.back_off(error, departed, now)
                told = error if isinstance(error, APIError) or told is None else told
        assert told is not None
        raise told


def _cooling_down(seconds: float) -> RateLimitedError:
    return RateLimitedError(200, message="the relay asks to be left alone", retry_after=seconds)


def _parts(ids: Sequence[str], seats: int) -> list[Sequence[str]]:
    return [ids[start : start + seats] for start in range(0, len(ids), seats)]
