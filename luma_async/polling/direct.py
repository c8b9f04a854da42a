"""One look, now: the direct calls, which share the gate with the polls but not their rounds."""

from collections import deque
from collections.abc import Sequence
from functools import partial

import anyio

from luma_async.errors import LumaError, NotFoundError
from luma_async.polling.admission import TRIES
from luma_async.polling.poller import Poller, Relay
from luma_async.protocol.failures import Verdict, judge
from luma_async.structs import Generation


class Asker:
    """Asks a relay directly, each request again after a passing fault, `tries` in all."""

    def __init__(self, poller: Poller, relay: Relay, tries: int = TRIES) -> None:
        self._poller = poller
        self._relay = relay
        self._tries = tries

    async def one(self, task_id: str) -> Generation:
        """Ask about one task by the single GET; NotFoundError if the relay does not know it."""
        ask = partial(self._relay.get, task_id)
        told = await self._poller.turnstile.direct(ask, 1, many=False, tries=self._tries)
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
            told = await self._poller.turnstile.direct(ask, len(ids), many=True, tries=self._tries)
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


def _parts(ids: Sequence[str], seats: int) -> list[Sequence[str]]:
    return [ids[start : start + seats] for start in range(0, len(ids), seats)]
