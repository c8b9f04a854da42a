"""A wait whose ids are added and removed while it runs."""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from typing import Self

from msgspec import Struct

from luma_async import validation as checks
from luma_async.errors import WaitAborted
from luma_async.polling.interfaces import Watcher
from luma_async.polling.poller import Poller
from luma_async.scheduling.changes import Change
from luma_async.structs import Generation


class Ended(Struct, frozen=True):
    """The end of one id.

    `generation` is the task, completed or failed; None if the relay does not know the id. `lag` is
    the seconds since the last request before this one, the most by which the news can be late; None
    if the first response showed the end.
    """

    id: str
    generation: Generation | None
    lag: float | None


class Following(AsyncIterator[Ended]):
    """Poll ids until each has ended; any number of asyncio tasks may iterate.

    The iteration ends with `close`. It raises WaitAborted if it cannot continue, with `pending`:
    the ids that had not ended. One that is no longer referenced is closed.
    """

    def __init__(self, poller: Poller, *, last_seen: bool = True) -> None:
        self._feed = Feed(poller, needs_rows=last_seen)
        self._loop = poller.loop
        self._process = os.getpid()

    def __len__(self) -> int:
        return len(self._feed.watched_ids)

    def add(self, ids: Iterable[str]) -> None:
        """Add ids; those that are polled already are not changed.

        Raise WaitAborted after all waits were aborted, ValueError or TypeError for what is no id.
        """
        self._feed.add(ids)

    def drop(self, ids: Iterable[str]) -> dict[str, Generation | None]:
        """Remove ids. Return those that were polled, as last seen (None: never).

        With `last_seen=False` of `follow`, such a Generation has its id and state only.
        """
        return self._feed.drop(ids)

    def close(self) -> None:
        """Stop polling; the iteration yields what is not read yet, and stops."""
        self._feed.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Ended:
        return await self._feed.next()

    def __del__(self) -> None:
        feed = getattr(self, "_feed", None)
        if feed is not None and not feed.is_over and os.getpid() == self._process:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(feed.close)


class Feed:
    """The watcher of a Following: the ids that are open, and the results that are not read yet."""

    def __init__(self, poller: Poller, *, needs_rows: bool) -> None:
        self.watched_ids: dict[str, None] = {}
        self.needs_rows = needs_rows
        self._poller = poller
        self._ends: deque[Ended] = deque()
        self._readers: deque[asyncio.Future[None]] = deque()
        self._cause: Exception | None = None
        self._closed = False
        poller.subscribe(self, ())

    def add(self, ids: Iterable[str]) -> None:
        """Add ids; those that are polled already are not changed.

        Raises WaitAborted after an end of all waits, ValueError or TypeError for what is no id.
        """
        if self._closed:
            raise RuntimeError("it is closed; call luma.follow() again")
        new = checks.task_ids(ids)
        if self._cause is not None:
            raise self._aborted()
        self._poller.subscribe(self, new)
        self.watched_ids |= dict.fromkeys(new)

    def drop(self, ids: Iterable[str]) -> dict[str, Generation | None]:
        """Remove ids. Return those that were polled, as last seen (None: never)."""
        leaving = [task_id for task_id in checks.task_ids(ids) if task_id in self.watched_ids]
        if not leaving or self._cause is not None or self._closed:
            return {}
        known = self._poller.subscribe(self, leaving)
        for task_id in leaving:
            del self.watched_ids[task_id]
        for _ in self._poller.drop(self, leaving):
            pass
        return {i: known[i].generation() if i in known else None for i in leaving}

    def close(self) -> None:
        """Stop polling; the iteration yields what is not read yet, and stops."""
        if not self._closed:
            self._closed = True
            if self._cause is None:
                self._poller.unsubscribe(self, tuple(self.watched_ids))
            self._wake()

    def on_change(self, change: Change[Watcher]) -> None:
        """Receive a change of one id. One that the key may not see is polled on."""
        if change.ended and change.task_id in self.watched_ids and not self.is_over:
            del self.watched_ids[change.task_id]
            self._ends.append(Ended(change.task_id, change.generation, change.max_lag))
            self._wake(1)

    def abort(self, cause: Exception) -> None:
        """End the wait with a cause."""
        if not self.is_over:
            self._cause = cause
            self._wake()

    async def next(self) -> Ended:
        """Return the next result; StopAsyncIteration after `close`."""
        while not self._ends:
            if self._cause is not None:
                raise self._aborted()
            if self._closed:
                raise StopAsyncIteration
            await self._news()
        return self._ends.popleft()

    @property
    def is_over(self) -> bool:
        """Whether it was closed or aborted."""
        return self._closed or self._cause is not None

    async def _news(self) -> None:
        news = asyncio.get_running_loop().create_future()
        self._readers.append(news)
        try:
            await news
        except asyncio.CancelledError:
            if news.done() and not news.cancelled():
                self._wake(1)
            raise

    def _wake(self, most: int | None = None) -> None:
        woken = 0
        while self._readers and woken != most:
            reader = self._readers.popleft()
            if not reader.done():
                reader.set_result(None)
                woken += 1

    def _aborted(self) -> WaitAborted:
        error = WaitAborted(str(self._cause), pending=dict.fromkeys(self.watched_ids))
        error.__cause__ = self._cause
        return error
