"""What the hooks of a session and the log receive: requests that are over, changes of state."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from copy import copy
from typing import Any, Generic, Literal, TypeVar

from msgspec import Struct

from luma_async import validation as checks
from luma_async.errors import LumaError, unforeseen
from luma_async.polling.interfaces import SubmittingRelay
from luma_async.protocol.submissions import Submission, Submitted
from luma_async.scheduling.changes import Change, PollAnswer
from luma_async.structs import Generation, State
from luma_async.text import one_line

logger: logging.Logger = logging.getLogger("luma_async")

E = TypeVar("E")
A = TypeVar("A")
Call = Literal["get", "get_many", "create", "extend"]


class RequestEvent(Struct, frozen=True, kw_only=True):
    """One finished HTTP request.

    `call` is "get" (single GET), "get_many" (batch POST), "create" or "extend" (a submission),
    `ids` the number of ids in it, `seconds` the time from sending to the end of the response.
    `error` is None if the relay answered; it may be about one id, such as NotFoundError.
    `cancelled`: it had no watcher any more, or the session was closed.
    """

    call: Call
    ids: int
    seconds: float
    error: LumaError | None
    cancelled: bool


class ChangeEvent(Struct, frozen=True, kw_only=True):
    """A change of state of a watched id; the first state seen is one.

    `state` and `generation` are None if the id is missing, which is final. `lag` is
    the seconds since the last request before this one, the most by which the news can be late; None
    for the first response.
    """

    id: str
    state: State | None
    generation: Generation | None
    ended: bool
    lag: float | None


class Hook(Generic[E]):
    """A user's function that receives events; what it raises is logged once."""

    def __init__(self, name: str, function: Callable[[E], object]) -> None:
        self._name = name
        self._function: Callable[[E], Any] = function
        self._quiet = False

    def __call__(self, event: E) -> None:
        """Call the function; KeyboardInterrupt and SystemExit are not caught."""
        try:
            returned = self._function(event)
            if inspect.iscoroutine(returned):
                returned.close()
                raise TypeError(
                    "it returned a coroutine, which is never awaited; give a plain function"
                )
        except (Exception, asyncio.CancelledError):
            if not self._quiet:
                logger.exception("%s failed; further errors of it are not logged", self._name)
            self._quiet = True


def hook_of(name: str, function: Callable[[E], object] | None) -> Hook[E] | None:
    """Return the hook of a function, or None; TypeError for what is not a plain function."""
    checked = checks.hook(name, function)
    return None if checked is None else Hook(name, checked)


class ChangeNotifier:
    """Report changes of state to the hook, if there is one, and to the log at DEBUG."""

    def __init__(self, hook: Hook[ChangeEvent] | None) -> None:
        self._hook = hook

    @property
    def has_listener(self) -> bool:
        """Whether a hook or the log receives changes."""
        return self._hook is not None or logger.isEnabledFor(logging.DEBUG)

    def notify(self, changes: Iterable[Change[Any]]) -> None:
        """Report changes, in order."""
        for change in changes:
            if change.forbidden:
                continue
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


def log_notable(change: Change[Any]) -> None:
    """Log what a caller has to know of one id, once."""
    if change.is_repeated:
        return
    name = one_line(change.task_id)
    if change.forbidden:
        logger.warning("%s: %s; other ids are answered", name, one_line(str(change.error)))
    elif change.ended:
        logger.warning(
            "%s: its state is unknown, but it has a link to a video; it counts as completed", name
        )


class InstrumentedRelay(SubmittingRelay):
    """Forward the calls to a relay, and report each to a hook when it is finished.

    The hook receives a copy of the error without its traceback, which would keep the frames of the
    request alive.
    """

    def __init__(self, relay: SubmittingRelay, hook: Hook[RequestEvent]) -> None:
        self._relay = relay
        self._hook = hook

    async def get(self, task_id: str) -> PollAnswer:
        """Get one task."""
        return await self._observe("get", 1, self._relay.get(task_id))

    async def get_many(self, ids: Sequence[str]) -> PollAnswer:
        """Get many tasks."""
        return await self._observe("get_many", len(ids), self._relay.get_many(ids))

    async def submit(self, submission: Submission, on_write: Callable[[], None]) -> Submitted:
        """Submit a task."""
        sent = self._relay.submit(submission, on_write)
        return await self._observe(submission.call, submission.ids, sent)

    async def _observe(self, call: Call, ids: int, asked: Awaitable[A]) -> A:
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


def instrumented(
    relay: SubmittingRelay, on_request: Callable[[RequestEvent], object] | None
) -> SubmittingRelay:
    """Return a relay that reports its requests to a function; the same relay without one."""
    hook = hook_of("on_request", on_request)
    return relay if hook is None else InstrumentedRelay(relay, hook)
