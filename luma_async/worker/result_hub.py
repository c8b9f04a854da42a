"""Waiting for the results of some ids, with one reader for all waits on a connection.

A wait receives each result in one of two ways. Results that are stored already are looked up;
results that are stored later come from the shared reader. A lookup starts after the wait is
registered with the reader, so that no result falls between the two.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime

import nats.js.errors

from luma_async.errors import GaveUp, GenerationsMissing, QueueError, WaitTimeout
from luma_async.structs import Generation
from luma_async.worker.connection import Connection
from luma_async.worker.result_reader import ResultReader, is_before
from luma_async.worker.results import End, EndState, decode_result, make_end, subject_token
from luma_async.worker.streams import NATS_ERRORS, Names, for_each, reason, retry

logger: logging.Logger = logging.getLogger("luma_async")


class ResultWaiter:
    """A wait for the results of `ids`, of which some are still `missing`.

    It ignores what the reader reads up to the sequence `start_after`: a lookup finds those results.
    """

    def __init__(self, ids: dict[str, None]) -> None:
        self.ids = ids
        self.start_after = 0
        self.missing: dict[str, None] = dict(ids)
        self.results: deque[End] = deque()
        self._changed = asyncio.Event()
        self._error: Exception | None = None

    def add(self, result: End) -> None:
        """Receive a result. Only the first one of each id counts."""
        if result.id in self.missing:
            del self.missing[result.id]
            self.results.append(result)
            self._changed.set()

    def fail(self, error: Exception) -> None:
        """Let all waits raise an error."""
        self._error = error
        self._changed.set()

    async def next(self) -> End:
        """Wait for the next result."""
        while not self.results:
            await self._wait()
        return self.results.popleft()

    async def wait_for_all(self) -> None:
        """Wait until each id has a result."""
        while self.missing:
            await self._wait()

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        self._changed.clear()
        await self._changed.wait()


class ResultHub:
    """Reads the results while at least one wait is registered, and passes each to its waits."""

    def __init__(self, connection: Connection, names: Names) -> None:
        self._connection = connection
        self._names = names
        self._waiters: dict[str, dict[ResultWaiter, None]] = {}
        self._reader_task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._start_lock = asyncio.Lock()

    @asynccontextmanager
    async def subscribe(
        self, waiter: ResultWaiter, since: datetime | int | None
    ) -> AsyncGenerator[None, None]:
        """Let a wait receive the results of its ids, including those stored since `since`.

        Raises QueueError if the server does not answer for half a minute.
        """
        try:
            try:
                await retry(lambda: self._register(waiter))
                look_up = self.make_lookup(waiter, since)
                await for_each(waiter.ids, lambda task_id: retry(lambda: look_up(task_id)))
            except NATS_ERRORS as error:
                raise read_error(error) from None
            yield
        finally:
            self._remove(waiter)

    def make_lookup(
        self, waiter: ResultWaiter, since: datetime | int | None
    ) -> Callable[[str], Awaitable[None]]:
        """Return a function that passes the stored result of an id to the wait, if there is one."""
        js, names = self._connection.js, self._names

        async def look_up(task_id: str) -> None:
            # The stored result counts if it belongs to the last submission of the id:
            #   id not in the wait stream            its submission is finished
            #   in the stream, submission <= result  stored, but not acknowledged yet
            #   in the stream, submission > result   submitted again: wait for its new result
            token = subject_token(task_id)
            with suppress(nats.js.errors.NotFoundError, ValueError):
                message = await js.get_last_msg(names.done, names.done_subject(token))
                stored = decode_result(message.data or b"")
                sequence, stored_at = message.seq or 0, message.time or datetime.now(UTC)
                if is_before(stored_at, sequence, since):
                    return
                with suppress(nats.js.errors.NotFoundError):
                    waiting = await js.get_last_msg(names.wait, names.wait_subject(token))
                    if (waiting.seq or 0) > stored.submission:
                        return
                waiter.add(make_end(stored, sequence, stored_at))

        return look_up

    async def close(self) -> None:
        """Stop reading. All waits raise QueueError."""
        self._fail_all(QueueError("the queue was closed; enter another one"))
        if self._reader_task is not None:
            self._reader_task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _register(self, waiter: ResultWaiter) -> None:
        for task_id in waiter.ids:
            self._waiters.setdefault(task_id, {})[waiter] = None
        async with self._start_lock:
            js = self._connection.js
            waiter.start_after = (await js.stream_info(self._names.done)).state.last_seq
            task = self._reader_task
            if task is None or task.done() or task.cancelling():
                client = self._connection.client
                reader = ResultReader(client, js, self._names, waiter.start_after)
                self._reader_task = asyncio.create_task(self._read(reader))
                self._tasks.add(self._reader_task)
                self._reader_task.add_done_callback(self._tasks.discard)

    def _remove(self, waiter: ResultWaiter) -> None:
        """Unregister a wait. The reader stops with the last one."""
        for task_id in waiter.ids:
            waiters = self._waiters.get(task_id, {})
            waiters.pop(waiter, None)
            if not waiters:
                self._waiters.pop(task_id, None)
        if not self._waiters and self._reader_task is not None:
            self._reader_task.cancel()

    async def _read(self, reader: ResultReader) -> None:
        try:
            async with aclosing(reader):
                while True:
                    for result in await reader.read():
                        for waiter in self._waiters.get(result.id, {}):
                            if result.sequence > waiter.start_after:
                                waiter.add(result)
        except Exception as error:
            if not isinstance(error, QueueError):
                logger.exception("unexpected error while reading results; all waits raise it")
            self._fail_all(error)

    def _fail_all(self, error: Exception) -> None:
        for waiters in self._waiters.values():
            for waiter in waiters:
                waiter.fail(error)


def collect_generations(
    ids: dict[str, None], results: dict[str, End], timeout: float | None
) -> dict[str, Generation]:
    """Return the tasks of all ids, or raise the WaitIncomplete that describes what is missing."""
    done: dict[str, Generation] = {}
    pending: dict[str, Generation | None] = {}
    missing: list[str] = []
    for task_id in ids:
        result = results.get(task_id)
        if result is None:
            pending[task_id] = None
        elif result.state is EndState.GAVE_UP:
            pending[task_id] = result.generation
        elif result.generation is not None:
            done[task_id] = result.generation
        else:
            missing.append(task_id)
    if len(results) < len(ids):
        message = f"not all ended in {timeout:g} s"
        raise WaitTimeout(message, done=done, pending=pending, missing=missing)
    if pending:
        message = "the workers gave up on some ids"
        raise GaveUp(message, done=done, pending=pending, missing=missing)
    if missing:
        message = "the relay does not know some ids"
        raise GenerationsMissing(message, done=done, missing=missing)
    return done


def read_error(error: Exception) -> QueueError:
    """Return the QueueError for results that cannot be read."""
    return QueueError(f"the results cannot be read ({reason(error)}); try again")
