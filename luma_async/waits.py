"""One caller's wait: what it asked for, what it has been told, and how it ends."""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from enum import Enum
from math import inf
from types import TracebackType
from typing import Self, TypeVar

import anyio

from luma_async.asking import Asker
from luma_async.book import Change
from luma_async.errors import (
    GenerationsMissing,
    LumaError,
    SessionClosed,
    WaitAborted,
    WaitIncomplete,
    WaitTimeout,
)
from luma_async.structs import Generation
from luma_async.verdicts import Verdict, judge
from luma_async.waiting import Poller, Relay, Watcher

READER_PATIENCE = 1.0

E = TypeVar("E", bound=WaitIncomplete)


class News(Enum):
    """What a reader wants to be woken for."""

    NOTHING = "the end of the wait alone"
    ENDS = "each task as it ends"
    CHANGES = "each change of state"


class Wait:
    """Gathers what is told of `asked` until each has ended, time is up, or it cannot go on."""

    def __init__(
        self,
        poller: Poller,
        relay: Relay,
        asked: tuple[str, ...],
        timeout: float | None,
        news: News,
    ) -> None:
        self.asked = asked
        self.news: deque[Generation] = deque()
        self._poller = poller
        self._relay = relay
        self._timeout = timeout
        self._deadline = inf
        self._wants = news
        self._done: dict[str, Generation] = {}
        self._missing: set[str] = set()
        self._looked: dict[str, Generation] = {}
        self._trouble: LumaError | None = None
        self._aborted: WaitAborted | None = None
        self._reader: asyncio.Future[None] | None = None
        self._leaving: asyncio.TimerHandle | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._watching = False
        self._stopped = False

    @property
    def ended(self) -> bool:
        """Whether each id has been told as done or missing."""
        return len(self._done) + len(self._missing) == len(self.asked)

    async def begin(self) -> None:
        """Start polling, and the timeout; a timeout of 0 is one look at each id instead."""
        if self._timeout == 0:
            await self._look()
            return
        if self._timeout is not None:
            self._deadline = anyio.current_time() + self._timeout
        self._watch()
        if self._wants is not News.NOTHING and self._deadline < inf:
            loop = asyncio.get_running_loop()
            self._expiry = loop.call_at(self._deadline, self._lapse)

    def check_home(self) -> None:
        """Raise a RuntimeError where this is not the session's process, thread and loop."""
        self._poller.check_home()

    def pause(self) -> None:
        """Leave soon, unless somebody asks what has been `told` before."""
        self._leaving = asyncio.get_running_loop().call_later(READER_PATIENCE, self._lapse)

    def leave(self) -> None:
        """Poll no more for this wait; what it has been told stays."""
        self._stay()
        self._watching = False
        self._poller.unwatch(self, self.asked)

    def stop(self) -> None:
        """Leave for good; whoever asks what has been `told` hears that there is no more."""
        self._stopped = True
        self.leave()
        if self._expiry is not None:
            self._expiry.cancel()
        self._wake()

    def tell(self, change: Change[Watcher]) -> None:
        """Take news of one id."""
        generation = change.generation
        if generation is None:
            self._missing.add(change.task_id)
        elif change.ended:
            self._done[change.task_id] = generation
        if generation and self._is_news(change.ended, generation):
            self.news.append(generation)
            self._wake()
        if self.ended:
            self._wake()

    def _is_news(self, ended: bool, generation: Generation) -> bool:
        if self._wants is not News.CHANGES:
            return ended and self._wants is News.ENDS
        before = self._looked.get(generation.id)
        self._looked[generation.id] = generation
        return ended or before is None or before.state is not generation.state

    def abort(self, cause: Exception) -> None:
        """Learn that the wait cannot go on; called while the ids are still watched."""
        if not self.ended and self._aborted is None:
            self._aborted = self._incomplete(WaitAborted, str(cause), cause)
            self._wake()

    async def told(self) -> bool:
        """Wait for news, or for the end of the wait; False once there will be no more news.

        Raises the WaitIncomplete that tells how a wait ended otherwise, after the last news.
        """
        self._stay()
        self._resume()
        with anyio.CancelScope(deadline=self._deadline):
            while not self._settled():
                await self._read()
        if self._stopped:
            return False
        if self.news:
            return True
        if self._aborted:
            raise self._aborted
        if not self.ended:
            trouble = self._trouble or self._poller.turnstile.trouble
            raise self._incomplete(WaitTimeout, f"not all ended in {self._timeout:g} s", trouble)
        if self._missing:
            raise self._incomplete(GenerationsMissing, "the relay does not know some ids", None)
        return False

    def result(self) -> dict[str, Generation]:
        """Return what has ended, in the order asked."""
        return {task_id: self._done[task_id] for task_id in self.asked if task_id in self._done}

    def _settled(self) -> bool:
        return bool(self._stopped or self.news or self.ended or self._aborted)

    def _open(self) -> list[str]:
        return [i for i in self.asked if i not in self._done and i not in self._missing]

    def _watch(self) -> None:
        ids = self._open()
        self._poller.watch(self, ids, self._deadline)
        self._watching = True
        if self._wants is News.CHANGES:
            for known in filter(None, map(self._poller.seen, ids)):
                if not known.is_done:
                    self.tell(Change(known.id, known, False, (), None))

    def _resume(self) -> None:
        """Poll again for a reader who comes back after a pause."""
        if self._watching or self._settled() or anyio.current_time() >= self._deadline:
            return
        try:
            self._watch()
        except SessionClosed as error:
            self.abort(error)

    def _lapse(self) -> None:
        """Leave a reader who does not read, and remember what was seen for them."""
        self._looked |= {i: known for i in self._open() if (known := self._poller.seen(i))}
        self.leave()

    def _stay(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None

    async def _look(self) -> None:
        self._deadline = -inf
        found: dict[str, Generation] = {}
        try:
            await Asker(self._poller, self._relay, tries=1).many(self.asked, found)
        except LumaError as error:
            self._trouble = error
        finally:
            for task_id, generation in found.items():
                self.tell(Change(task_id, generation, generation.is_done, (), None))
                self._looked[task_id] = generation
        if self._trouble and judge(self._trouble, many=False) is Verdict.ABORT:
            self.abort(self._trouble)

    async def _read(self) -> None:
        if self._reader is not None:
            raise RuntimeError("two tasks read one iterator at once; give each its own")
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _seen(self, task_id: str) -> Generation | None:
        return self._poller.seen(task_id) or self._looked.get(task_id)

    def _incomplete(self, kind: type[E], message: str, cause: Exception | None) -> E:
        error = kind(
            message,
            done=self.result(),
            pending={i: self._seen(i) for i in self._open()},
            missing=[i for i in self.asked if i in self._missing],
        )
        error.__cause__ = cause
        return error


class Reader(AsyncIterator[Generation]):
    """The tasks of one wait, as they are told; `async for` it, once.

    It may be left at any time: by `break`, by an exception, by `aclose`. A class and not an async
    generator, so that leaving early runs no cleanup in a foreign task.
    """

    def __init__(self, wait: Wait) -> None:
        self._wait = wait
        self._begun = False
        self._over = False
        self._loop = asyncio.get_running_loop()
        self._process = os.getpid()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Generation:
        self._wait.check_home()
        if self._over:
            raise StopAsyncIteration
        if not self._begun:
            self._begun = True
            await self._wait.begin()
        try:
            more = await self._wait.told()
        except asyncio.CancelledError:
            self._wait.pause()
            raise
        except LumaError:
            await self.aclose()
            raise
        if not more:
            await self.aclose()
            raise StopAsyncIteration
        return self._wait.news.popleft()

    async def aclose(self) -> None:
        """Leave the wait; reading on ends at once."""
        self._wait.check_home()
        self._over = True
        if self._begun:
            self._wait.stop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._begun and not self._over and os.getpid() == self._process:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._wait.stop)
