"""A relay whose requests are told to a hook; there only where a hook is given."""

import asyncio
from collections.abc import Awaitable, Sequence
from copy import copy
from typing import Literal

from luma_async.errors import LumaError, unforeseen
from luma_async.polling.hooks import Hook, RequestEvent
from luma_async.polling.poller import Relay
from luma_async.scheduling.changes import Told

Call = Literal["get", "get_many"]


class Observed(Relay):
    """Passes the two calls on to a relay, and tells of each once it is over.

    The hook is given a copy of the error: without a traceback, which would keep the frames of the
    request alive.
    """

    def __init__(self, relay: Relay, hook: Hook[RequestEvent]) -> None:
        self._relay = relay
        self._hook = hook

    async def get(self, task_id: str) -> Told:
        """Ask about one task."""
        return await self._told("get", 1, self._relay.get(task_id))

    async def get_many(self, ids: Sequence[str]) -> Told:
        """Ask about many tasks at once."""
        return await self._told("get_many", len(ids), self._relay.get_many(ids))

    async def _told(self, call: Call, ids: int, asked: Awaitable[Told]) -> Told:
        began = asyncio.get_running_loop().time()
        try:
            answer = await asked
        except asyncio.CancelledError:
            self._tell(call, ids, began, cancelled=True)
            raise
        except LumaError as error:
            self._tell(call, ids, began, error=copy(error))
            raise
        except Exception as error:
            self._tell(call, ids, began, error=unforeseen(error))
            raise
        self._tell(call, ids, began)
        return answer

    def _tell(
        self,
        call: Call,
        ids: int,
        began: float,
        *,
        error: LumaError | None = None,
        cancelled: bool = False,
    ) -> None:
        seconds = asyncio.get_running_loop().time() - began
        event = RequestEvent(call=call, ids=ids, seconds=seconds, error=error, cancelled=cancelled)
        self._hook(event)
