"""Who waits for the ends of some ids: one reader for all of them on a connection."""

import asyncio
import logging
from collections import deque
from contextlib import aclosing

from nats.aio.client import Client
from nats.js import JetStreamContext

from luma_async.errors import QueueError
from luma_async.worker.result_reader import ResultReader
from luma_async.worker.results import End
from luma_async.worker.streams import Names

logger: logging.Logger = logging.getLogger("luma_async")


class ResultWaiter:
    """Somebody who waits for the ends of `ids`, of which some are still `missing`.

    What was stored up to the sequence `after` is looked up, and not heard.
    """

    def __init__(self, ids: dict[str, None]) -> None:
        self.ids = ids
        self.after = 0
        self.missing: dict[str, None] = dict(ids)
        self.ends: deque[End] = deque()
        self._news = asyncio.Event()
        self._trouble: Exception | None = None

    def tell(self, end: End) -> None:
        """Take an end, the first of each id."""
        if end.id in self.missing:
            del self.missing[end.id]
            self.ends.append(end)
            self._news.set()

    def fail(self, trouble: Exception) -> None:
        """Learn that nothing more will be told."""
        self._trouble = trouble
        self._news.set()

    async def next(self) -> End:
        """Wait for the next end."""
        while not self.ends:
            await self._more()
        return self.ends.popleft()

    async def all_told(self) -> None:
        """Wait until each id was told."""
        while self.missing:
            await self._more()

    async def _more(self) -> None:
        if self._trouble is not None:
            raise self._trouble
        self._news.clear()
        await self._news.wait()


class ResultHub:
    """Reads the ends as they are stored, while anybody listens, and tells each to who waits."""

    def __init__(self, client: Client, js: JetStreamContext, names: Names) -> None:
        self._client = client
        self._js = js
        self._names = names
        self._listeners: dict[str, dict[ResultWaiter, None]] = {}
        self._task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._beginning = asyncio.Lock()

    async def add(self, listener: ResultWaiter) -> None:
        """Tell somebody of each end that is stored from now on."""
        for task_id in listener.ids:
            self._listeners.setdefault(task_id, {})[listener] = None
        async with self._beginning:
            last = (await self._js.stream_info(self._names.done)).state.last_seq
            listener.after = last
            if self._task is None or self._task.done() or self._task.cancelling():
                tail = ResultReader(self._client, self._js, self._names, last)
                self._task = asyncio.create_task(self._read(tail))
                self._tasks.add(self._task)
                self._task.add_done_callback(self._tasks.discard)

    def remove(self, listener: ResultWaiter) -> None:
        """Tell somebody no more; where nobody is left, nothing is read."""
        for task_id in listener.ids:
            waiting = self._listeners.get(task_id, {})
            waiting.pop(listener, None)
            if not waiting:
                self._listeners.pop(task_id, None)
        if not self._listeners and self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        """Read no more; who still listens hears of it."""
        for waiting in self._listeners.values():
            for listener in waiting:
                listener.fail(QueueError("the queue was closed; enter another one"))
        if self._task is not None:
            self._task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _read(self, tail: ResultReader) -> None:
        try:
            async with aclosing(tail):
                while True:
                    for end in await tail.read():
                        for listener in self._listeners.get(end.id, {}):
                            if end.sequence > listener.after:
                                listener.tell(end)
        except Exception as error:
            if not isinstance(error, QueueError):
                logger.exception("reading the ends met a fault that nobody foresaw; all waits end")
            for waiting in self._listeners.values():
                for listener in waiting:
                    listener.fail(error)
