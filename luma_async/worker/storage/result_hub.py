"""Waiting for the results of some ids, with one reader for all waits on a connection.

A wait receives each result in one of two ways. Results that are stored already are looked up;
results that are stored later come from the shared reader. A lookup starts after the wait is
registered with the reader, so that no result falls between the two.

A lookup reads the submission that is in the wait stream, then the stored result. From then on the
wait accepts only results that answer this submission (`submissions.is_answer`). A result that does
not, and each restart of the reader, causes another lookup: the submission may have changed. If a
server has lost the submission, an older result does not become its answer.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from luma_async.errors import GaveUp, GenerationsMissing, QueueError, WaitTimeout
from luma_async.structs import Generation
from luma_async.worker.server.connection import Connection, cancel
from luma_async.worker.server.stream_info import stream_info
from luma_async.worker.server.streams import NATS_ERRORS, Names, for_each, reason, retry
from luma_async.worker.storage.result_reader import ReadResult, ResultReader, is_before
from luma_async.worker.storage.result_store import IdStreams
from luma_async.worker.storage.results import End, EndState, decode_result, make_end, subject_token
from luma_async.worker.storage.submissions import Submission, is_answer, newest_known

logger: logging.Logger = logging.getLogger("luma_async")


LOOKUP_RETRY_DELAY = 0.5  # seconds
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ResultWaiter:
    """A wait for the results of `ids` that are stored after `since`; some are still `missing`.

    `awaited` has the newest known submission of each id that was looked up, or None. `lost` are
    ids without a submission and without a result.
    """

    def __init__(self, ids: dict[str, None], since: datetime | int | None = None) -> None:
        self.ids = ids
        self.since = since
        self.missing: dict[str, None] = dict(ids)
        self.awaited: dict[str, Submission | None] = {}
        self.lost: list[str] = []
        self.results: deque[End] = deque()
        self._changed = asyncio.Event()
        self._error: Exception | None = None

    def add(self, result: End) -> None:
        """Receive a result. Only the first one of each id counts."""
        if result.id in self.missing:
            del self.missing[result.id]
            self.results.append(result)
            self._changed.set()

    def offer(self, result: ReadResult) -> bool:
        """Receive a result from the reader; return whether the id must be looked up again."""
        end = result.end
        if end.id not in self.missing or end.id not in self.awaited:
            return False  # the lookup finds the result
        if is_before(end.told_at, end.sequence, self.since):
            return False
        if not is_answer(self.awaited[end.id], result.key):
            return True
        self.add(end)
        return False

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
        self._lookups: set[asyncio.Task[None]] = set()
        self._start_lock = asyncio.Lock()
        self._deleting_limits = ""

    @asynccontextmanager
    async def subscribe(self, waiter: ResultWaiter) -> AsyncGenerator[None, None]:
        """Let a wait receive the results of its ids.

        Raises QueueError if the server does not answer for half a minute, or if results may have
        been deleted.
        """
        try:
            try:
                should_retry = self._connection.is_transient
                await retry(lambda: self._register(waiter), should_retry)
                look_up = self.make_lookup(waiter)
                await for_each(
                    waiter.ids, lambda task_id: retry(lambda: look_up(task_id), should_retry)
                )
            except NATS_ERRORS as error:
                raise read_error(self._connection, error) from None
            if waiter.lost and self._deleting_limits:
                raise _deleted_error(waiter.lost, self._names, self._deleting_limits)
            yield
        finally:
            self._remove(waiter)

    def make_lookup(self, waiter: ResultWaiter) -> Callable[[str], Awaitable[None]]:
        """Return a function that passes the stored result of an id to the wait, if there is one."""
        js, names = self._connection.js, self._names

        async def look_up(task_id: str) -> None:
            messages = IdStreams(js, names, subject_token(task_id))
            waiting = await messages.read_waiting()
            awaited = newest_known(waiter.awaited.get(task_id), waiting)
            waiter.awaited[task_id] = awaited
            stored = await messages.read_result()
            if stored is None:
                if waiting is None:
                    waiter.lost.append(task_id)
                return
            key, payload = stored
            stored_at = _EPOCH + timedelta(microseconds=key.time)
            is_its = is_answer(awaited, key, is_acknowledged=waiting is None)
            if is_its and not is_before(stored_at, key.sequence, waiter.since):
                result = decode_result(payload, names.done_subject(subject_token(task_id)))
                waiter.add(make_end(result, key.sequence, stored_at))

        return look_up

    async def close(self) -> None:
        """Stop reading. All waits raise QueueError."""
        self._fail_all(QueueError("the queue was closed; enter another one"))
        await cancel(self._tasks)

    async def _register(self, waiter: ResultWaiter) -> None:
        for task_id in waiter.ids:
            self._waiters.setdefault(task_id, {})[waiter] = None
        async with self._start_lock:
            info = await stream_info(self._connection.client, self._names.done)
            self._deleting_limits = info.limits if info.deletes_now else ""
            task = self._reader_task
            if task is None or task.done() or task.cancelling():
                reader = ResultReader(
                    self._connection, self._names, info.state.last_seq, self._look_up_all_again
                )
                self._reader_task = self._spawn(self._read(reader))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _look_up_all_again(self) -> None:
        for waiter in {one: None for waiters in self._waiters.values() for one in waiters}:
            self._look_up_again(waiter, list(waiter.missing))

    def _look_up_again(self, waiter: ResultWaiter, ids: list[str]) -> None:
        """Look up these ids once more, until the server has answered or the wait is over."""
        look_up = self.make_lookup(waiter)

        async def until_answered(task_id: str) -> None:
            while task_id in waiter.missing and waiter in self._waiters.get(task_id, {}):
                try:
                    await look_up(task_id)
                    break
                except NATS_ERRORS as error:
                    logger.debug("looking up %.80r again: %s", task_id, reason(error))
                await asyncio.sleep(LOOKUP_RETRY_DELAY)

        self._lookups = {task for task in self._lookups if not task.done()}
        self._lookups.add(self._spawn(for_each(ids, until_answered)))

    def _remove(self, waiter: ResultWaiter) -> None:
        """Unregister a wait. The reader stops with the last one."""
        for task_id in waiter.ids:
            waiters = self._waiters.get(task_id, {})
            waiters.pop(waiter, None)
            if not waiters:
                self._waiters.pop(task_id, None)
        if not self._waiters:
            for task in (self._reader_task, *self._lookups):
                if task is not None:
                    task.cancel()

    async def _read(self, reader: ResultReader) -> None:
        try:
            async with aclosing(reader):
                while True:
                    for result in await reader.read():
                        task_id = result.end.id
                        for waiter in self._waiters.get(task_id, {}):
                            if waiter.offer(result):
                                self._look_up_again(waiter, [task_id])
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


def read_error(connection: Connection, error: Exception) -> QueueError:
    """Return the QueueError for results that cannot be read."""
    return connection.denials.error() or QueueError(
        f"the results cannot be read ({reason(error)}); try again"
    )


def _deleted_error(lost: list[str], names: Names, limits: str) -> QueueError:
    error = QueueError(
        f"{len(lost)} ids are not in the queue and have no result; results may be deleted, because "
        f"stream {names.done} is limited ({limits}); remove the limit and submit them again"
    )
    error.pending = tuple(lost)
    return error
