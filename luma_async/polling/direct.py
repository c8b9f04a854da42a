"""One look, now: the direct calls, which share the gate with the polls but not their rounds."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import anyio

from luma_async.errors import APIError, LumaError, NoSuchRouteError, NotFoundError, RateLimitedError
from luma_async.polling.interfaces import Relay
from luma_async.polling.poller import Poller
from luma_async.scheduling.changes import Told
from luma_async.scheduling.error_policy import Verdict, judge
from luma_async.structs import Generation

TRIES = 3
LOOK_PATIENCE = 1.0


class Asker:
    """Asks a relay directly, each request again after a passing fault, `tries` in all."""

    def __init__(self, poller: Poller, relay: Relay, tries: int = TRIES) -> None:
        self._poller = poller
        self._relay = relay
        self._tries = tries

    async def one(self, task_id: str) -> Generation:
        """Ask about one task by the single GET; NotFoundError if the relay does not know it."""
        ask = partial(self._relay.get, task_id)
        told = await self._request(ask, 1, many=False)
        if task_id not in told.states:
            raise NotFoundError(200, None, f"the relay does not know {task_id}")
        return told.generation(task_id)

    async def many(self, ids: Sequence[str], found: dict[str, Generation]) -> None:
        """Ask about many tasks by batch POSTs of as many as the relay takes, and fill `found`.

        The first error that trying again does not cure ends it; what was found stays in `found`.
        """
        failure: LumaError | None = None
        unasked = deque(ids)

        async def ask() -> None:
            nonlocal failure
            try:
                while unasked:
                    some = min(self._poller.seats, len(unasked))
                    await self._batch([unasked.popleft() for _ in range(some)], found)
            except LumaError as error:
                failure = failure or error
                group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            for _ in _parts(ids, self._poller.seats)[: self._poller.turnstile.slots]:
                group.start_soon(ask)
        if failure:
            raise failure

    async def _batch(self, ids: Sequence[str], found: dict[str, Generation]) -> None:
        if self._poller.seats == 1:
            await self._singly(ids, found)
            return
        ask = partial(self._relay.get_many, ids)
        try:
            told = await self._request(ask, len(ids), many=True)
        except LumaError as error:
            verdict = judge(error, many=True, tries=self._tries)
            if verdict not in (Verdict.SINGLES, Verdict.SHRINK, Verdict.SPLIT):
                raise
            self._poller.learn(verdict, len(ids))
        else:
            self._poller.learn(None, len(ids))
            found |= {i: told.generation(i) for i in ids if i in told.states}
            return
        if verdict is Verdict.SINGLES or len(ids) == 1:
            await self._singly(ids, found)
        else:
            for half in _parts(ids, (len(ids) + 1) // 2):
                await self._batch(half, found)

    async def _singly(self, ids: Sequence[str], found: dict[str, Generation]) -> None:
        for task_id in ids:
            try:
                found[task_id] = await self.one(task_id)
            except LumaError as error:
                if judge(error, many=False) is not Verdict.ABSENT:
                    raise

    async def _request(self, ask: Callable[[], Awaitable[Told]], ids: int, *, many: bool) -> Told:
        """Make one request about `ids` ids, again after a passing fault, `tries` in all.

        Raises what the relay said last; where it never said a word, what went wrong instead. A try
        after the first, and a single one, is not worth a long quiet: then it raises why, at once.
        """
        queue, loop, tries = self._poller.turnstile, asyncio.get_running_loop(), self._tries
        told: LumaError | None = None
        patience = queue.patience if tries > 1 else min(queue.patience, LOOK_PATIENCE)
        for tried in range(1, tries + 1):
            departed = loop.time()
            quiet = queue.gate.not_before - departed
            if quiet > patience and (told or tries == 1):
                told = told or queue.quiet_because or _asked_for_quiet(quiet)
                break
            try:
                await queue.admission(again=told is not None, patient=tries > 1)
                departed = loop.time()
                return await queue.send(ask, ids)
            except LumaError as error:
                queue.obey(error.retry_after)
                verdict = judge(error, many=many, tries=tried)
                if verdict is not Verdict.ABSENT:
                    queue.note(error, verdict)
                if verdict in (Verdict.SPLIT, Verdict.SHRINK):
                    queue.refused()
                if verdict is not Verdict.AGAIN or isinstance(error, NoSuchRouteError):
                    raise
                queue.keep_away(error, departed)
                told = error if isinstance(error, APIError) or told is None else told
        assert told is not None
        raise told


def _asked_for_quiet(seconds: float) -> RateLimitedError:
    return RateLimitedError(200, message="the relay asks to be left alone", retry_after=seconds)


def _parts(ids: Sequence[str], seats: int) -> list[Sequence[str]]:
    return [ids[start : start + seats] for start in range(0, len(ids), seats)]
