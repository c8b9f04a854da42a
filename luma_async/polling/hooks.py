"""What the log and the hooks of a session are told: requests that are over, changes of state."""

import asyncio
import inspect
import logging
from collections.abc import Callable, Iterable
from typing import Any, Generic, Literal, TypeVar

from msgspec import Struct

from luma_async.errors import LumaError, line
from luma_async.scheduling.changes import Change
from luma_async.structs import Generation, State

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


class Changes:
    """Tells of changes of state: the hook, where there is one, and the log at DEBUG."""

    def __init__(self, hook: Hook[ChangeEvent] | None) -> None:
        self._hook = hook

    @property
    def are_heard(self) -> bool:
        """Whether anybody listens."""
        return self._hook is not None or logger.isEnabledFor(logging.DEBUG)

    def tell(self, changes: Iterable[Change[Any]]) -> None:
        """Tell of each change, in order."""
        for change in changes:
            if logger.isEnabledFor(logging.DEBUG):
                logger.debug("%s: %s", line(change.task_id), _moved(change))
            if self._hook is not None:
                self._hook(_event(change))


def _event(change: Change[Any]) -> ChangeEvent:
    return ChangeEvent(
        id=change.task_id,
        state=change.state,
        generation=change.generation,
        ended=change.ended,
        lag=change.unseen,
    )


def _moved(change: Change[Any]) -> str:
    now = change.state or "missing"
    return now if change.was in (None, change.state) else f"{change.was} -> {now}"
