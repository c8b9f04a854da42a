"""What the hooks of a session and the log receive: requests that are over, changes of state."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from copy import copy
from typing import Any, Generic, Literal, TypeVar

from msgspec import Struct

from luma_async.errors import LumaError, unforeseen
from luma_async.polling.interfaces import Relay
from luma_async.scheduling.changes import Change, PollAnswer
from luma_async.structs import Generation, State
from luma_async.text import one_line

logger: logging.Logger = logging.getLogger("luma_async")

E = TypeVar("E")


class RequestEvent(Struct, frozen=True, kw_only=True):
    """One HTTP request that is over.

    `call` is the single GET or the batch POST, `ids` how many it asked about, `seconds` how long it
    took from its departure to the end of its answer. `error` is what it met, None where it was
    answered; it may be what the relay says of one id, such as a NotFoundError. `cancelled`: nobody
    wanted it any more, or the session was closed.
    """

    call: Literal["get", "get_many"]
    ids: int
    seconds: float
    error: LumaError | None
    cancelled: bool


class ChangeEvent(Struct, frozen=True, kw_only=True):
    """A change of state of an id that somebody waits for; the first state seen is one.

    `state` and `generation` are None where the relay does not know the id, which is an end. `lag`
    is the seconds since the answer before this one, the most by which the news can be late; None
    where the first answer told it.
    """

    id: str
    state: State | None
    generation: Generation | None
    ended: bool
    lag: float | None


class Hook(Generic[E]):
    """A function of the user's that is told of events; what it raises is logged once, no more."""

    def __init__(self, name: str, function: Callable[[E], object]) -> None:
        self._name = name
        self._function: Callable[[E], Any] = function
        self._quiet = False

    def __call__(self, event: E) -> None:
        """Tell of one event; KeyboardInterrupt and its kin go through."""
        try:
            returned = self._function(event)
            if inspect.iscoroutine(returned):
                returned.close()
                raise TypeError(
                    "it returned a coroutine, which nobody awaits; give a plain function"
                )
        except (Exception, asyncio.CancelledError):
            if not self._quiet:
                logger.exception("%s failed; what it raises from now on is not told", self._name)
            self._quiet = True


class ChangeNotifier:
    """Tells of changes of state: the hook, where there is one, and the log at DEBUG."""

    def __init__(self, hook: Hook[ChangeEvent] | None) -> None:
        self._hook = hook

    @property
    def has_listener(self) -> bool:
        """Whether anybody listens."""
        return self._hook is not None or logger.isEnabledFor(logging.DEBUG)

    def notify(self, changes: Iterable[Change[Any]]) -> None:
        """Tell of each change, in order."""
        for change in changes:
            if logger.isEnabledFor(logging.DEBUG):
                logger.debug("%s: %s", one_line(change.task_id), _describe(change))
            if self._hook is not None:
                self._hook(_event(change))


def _event(change: Change[Any]) -> ChangeEvent:
    return ChangeEvent(
        id=change.task_id,
        state=change.state,
        generation=change.generation,
        ended=change.ended,
        lag=change.max_lag,
    )


def _describe(change: Change[Any]) -> str:
    now = change.state or "missing"
    return (
        now
        if change.previous_state in (None, change.state)
        else f"{change.previous_state} -> {now}"
    )


_Call = Literal["get", "get_many"]


class InstrumentedRelay(Relay):
    """Passes the two calls on to a relay, and tells of each once it is over.

    The hook is given a copy of the error: without a traceback, which would keep the frames of the
    request alive.
    """

    def __init__(self, relay: Relay, hook: Hook[RequestEvent]) -> None:
        self._relay = relay
        self._hook = hook

    async def get(self, task_id: str) -> PollAnswer:
        """Ask about one task."""
        return await self._observe("get", 1, self._relay.get(task_id))

    async def get_many(self, ids: Sequence[str]) -> PollAnswer:
        """Ask about many tasks at once."""
        return await self._observe("get_many", len(ids), self._relay.get_many(ids))

    async def _observe(self, call: _Call, ids: int, asked: Awaitable[PollAnswer]) -> PollAnswer:
        began = asyncio.get_running_loop().time()
        try:
            answer = await asked
        except asyncio.CancelledError:
            self._notify(call, ids, began, cancelled=True)
            raise
        except LumaError as error:
            self._notify(call, ids, began, error=copy(error))
            raise
        except Exception as error:
            self._notify(call, ids, began, error=unforeseen(error))
            raise
        self._notify(call, ids, began)
        return answer

    def _notify(
        self,
        call: _Call,
        ids: int,
        began: float,
        *,
        error: LumaError | None = None,
        cancelled: bool = False,
    ) -> None:
        seconds = asyncio.get_running_loop().time() - began
        event = RequestEvent(call=call, ids=ids, seconds=seconds, error=error, cancelled=cancelled)
        self._hook(event)
