"""What other processes see of the workers: submit ids, learn their ends."""

import os
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
)
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Self, TypeVar, overload

import anyio
import anyio.to_thread
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext

from luma_async import validation as checks
from luma_async.errors import GaveUp, GenerationsMissing, QueueError, WaitTimeout
from luma_async.structs import Generation
from luma_async.worker import streams
from luma_async.worker.connection import Connection, Nats
from luma_async.worker.consumer import PullConsumer
from luma_async.worker.result_hub import ResultHub, ResultWaiter
from luma_async.worker.result_reader import ResultReader, is_before, since_of
from luma_async.worker.results import (
    End,
    EndState,
    check_storable,
    decode_result,
    end_of,
    subject_token,
)
from luma_async.worker.streams import NATS_ERRORS, Names, reason

T = TypeVar("T")

SUBMIT_BATCH = 256
RETRY_FOR = 30.0
RETRY_DELAY = 0.25


class Queue:
    """A connection to one pool: submits ids, and reads the ends that its workers tell.

    `nats` is a URL, several (or one text with commas between them), or a connected client of
    nats-py, which is then never closed; it defaults to LUMA_NATS. Without one, the private server
    of the directory `data` is used, and started if need be; `data` defaults to LUMA_DATA, then to
    luma-async in the user's state directory. `pool` separates accounts that share a server.
    `credentials` is the path of a NATS credentials file. `replicas` is in how many copies a cluster
    keeps the pool (three unless told). Raises QueueError, when entered, where no server answers.
    """

    def __init__(
        self,
        nats: Nats | None = None,
        *,
        data: str | os.PathLike[str] | None = None,
        pool: str = "luma",
        credentials: str | os.PathLike[str] | None = None,
        replicas: int | None = None,
    ) -> None:
        self.names: Names = Names(pool)
        self._replicas = None if replicas is None else checks.whole("replicas", replicas)
        self._connection = Connection(nats, data, credentials, f"luma-async {pool}")
        self._switchboard: ResultHub | None = None
        self._lease = streams.ACK_WAIT

    async def __aenter__(self) -> Self:
        await self._connection.open()
        try:
            await self.ensure()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close what the queue opened; twice is fine."""
        switchboard, self._switchboard = self._switchboard, None
        with anyio.CancelScope(shield=True):
            try:
                if switchboard is not None:
                    await switchboard.close()
            finally:
                await self._connection.close()

    def __repr__(self) -> str:
        return f"<Queue {self.names.pool!r}: {self._connection!r}>"

    @property
    def client(self) -> Client:
        """The connection."""
        return self._connection.client

    @property
    def is_connected(self) -> bool:
        """Whether the server is there."""
        return self._connection.is_connected

    @property
    def js(self) -> JetStreamContext:
        """JetStream on the connection."""
        return self._connection.js

    async def ensure(self) -> None:
        """Make the streams where they are not there; QueueError where that cannot be."""
        try:
            await streams.ensure(self.js, self.names, self._replicas)
        except nats.js.errors.APIError as error:
            raise streams.queue_error(error) from None
        except NATS_ERRORS as error:
            raise QueueError(
                f"no answer from JetStream ({reason(error)}); "
                "switch it on (nats-server --jetstream), or wait for its leader"
            ) from None

    async def enlist(self, ack_wait: float | None) -> float:
        """Be counted as a worker; return the seconds for which the server lends an id.

        What the private server of a directory has lent is lent to the dead where no other worker
        names the directory: then all of it is to be had at once. A cluster may elect a leader
        meanwhile, for half a minute at most.
        """
        try:
            self._lease = await _retry(lambda: self._enlisted(ack_wait), lambda _: True)
        except NATS_ERRORS as error:
            raise QueueError(
                f"the server takes no worker ({reason(error)}); see the log of the server"
            ) from None
        return self._lease

    async def _enlisted(self, ack_wait: float | None) -> float:
        embedded = self._connection.embedded
        if embedded is not None and await anyio.to_thread.run_sync(embedded.work):
            with suppress(nats.js.errors.NotFoundError):
                ack_wait = await streams.ensure_consumer(self.js, self.names, ack_wait)
                await self.js.delete_consumer(self.names.wait, self.names.consumer)
        return await streams.ensure_consumer(self.js, self.names, ack_wait)

    async def pull(self) -> PullConsumer:
        """Return what takes the ids that wait."""
        with suppress(QueueError):
            await self.ensure()
        await streams.ensure_consumer(self.js, self.names, None, new=self._lease)
        return PullConsumer(self.client, self.names.wait, self.names.consumer)

    async def submit(self, ids: str | Iterable[str]) -> list[str]:
        """Store ids for the workers; durable when it returns.

        An id that waits already is one. Returns the ids that were new, in their order (one that
        was stored though the server did not say so in time may not be among them); one whose end
        was told before is new again, and is asked about anew. Raises QueueError where not all
        could be stored within half a minute (a cluster may elect a leader meanwhile); its `pending`
        names the others, and to submit all again is safe.
        """
        asked = checks.task_ids(ids)
        for task_id in asked:
            check_storable(task_id)
        new: dict[str, bool] = {}
        js = self.js

        async def store(task_id: str) -> None:
            try:
                await js.publish(self.names.waiting(subject_token(task_id)), task_id.encode())
            except nats.js.errors.APIError as error:
                if not streams.is_duplicate(error):
                    raise
                new[task_id] = False
            else:
                new[task_id] = True

        try:
            await _each(asked, lambda task_id: _retry(lambda: store(task_id)))
        except NATS_ERRORS as error:
            raise _unstored(error, tuple(i for i in asked if i not in new)) from None
        return [task_id for task_id in asked if new[task_id]]

    def results(
        self, ids: str | Iterable[str] | None = None, *, since: datetime | int | None = None
    ) -> AsyncGenerator[End, None]:
        """Iterate over the ends of these ids, each once, then stop; of all ids, without end.

        `since` is a moment (aware) or the `sequence` of the last end that was read; None is all
        that is kept, a week of it unless the stream says otherwise. Ends told before, while nobody
        listened, come first. An end may come twice where the workers told it twice.
        """
        start = since_of(since)
        if ids is None:
            return self._all(start)
        return self._some(dict.fromkeys(checks.task_ids(ids)), start)

    async def _all(self, since: datetime | int | None) -> AsyncGenerator[End, None]:
        async with aclosing(ResultReader(self.client, self.js, self.names, since)) as tail:
            while True:
                for end in await tail.read():
                    yield end

    async def _some(
        self, ids: dict[str, None], since: datetime | int | None
    ) -> AsyncGenerator[End, None]:
        listener = ResultWaiter(ids)
        async with self._listening(listener, since):
            while listener.missing or listener.ends:
                yield await listener.next()

    @overload
    async def wait_submitted(  # type: ignore[overload-overlap]  # a str is one id
        self, ids: str, *, timeout: float | None = 1800.0
    ) -> Generation: ...
    @overload
    async def wait_submitted(
        self, ids: Iterable[str], *, timeout: float | None = 1800.0
    ) -> dict[str, Generation]: ...
    async def wait_submitted(
        self, ids: str | Iterable[str], *, timeout: float | None = 1800.0
    ) -> Generation | dict[str, Generation]:
        """Wait until the workers have told the end of each id, as `wait_until_done` would.

        Returns one Generation for one id, else a dict in the order given; an end that was told
        before counts. `timeout` is seconds, None for ever, 0 for what is known now. Every other end
        raises a WaitIncomplete: WaitTimeout, GenerationsMissing (the relay does not know some ids),
        GaveUp (the workers gave up on some, which are in `pending`). Raises QueueError where the
        server does not say for half a minute what it knows; at once with a timeout of 0.
        """
        seconds = checks.timeout(timeout)
        asked = dict.fromkeys(checks.task_ids(ids))
        listener = ResultWaiter(asked)
        if seconds == 0:
            try:
                await _each(asked, self._look_up(listener, None))
            except NATS_ERRORS as error:
                raise _unread(error) from None
        with anyio.move_on_after(seconds):
            async with self._listening(listener, None):
                await listener.all_told()
        result = _result(asked, {end.id: end for end in listener.ends}, seconds)
        return result[ids] if isinstance(ids, str) else result

    @asynccontextmanager
    async def _listening(
        self, listener: ResultWaiter, since: datetime | int | None
    ) -> AsyncGenerator[None, None]:
        """Let somebody hear of the ends of its ids, those that were told before included."""
        if self._switchboard is None:
            self._switchboard = ResultHub(self.client, self.js, self.names)
        switchboard = self._switchboard

        try:
            try:
                await _retry(lambda: switchboard.add(listener))
                look_up = self._look_up(listener, since)
                await _each(listener.ids, lambda task_id: _retry(lambda: look_up(task_id)))
            except NATS_ERRORS as error:
                raise _unread(error) from None
            yield
        finally:
            switchboard.remove(listener)

    def _look_up(
        self, listener: ResultWaiter, since: datetime | int | None
    ) -> Callable[[str], Awaitable[None]]:
        """Return what tells an end that is stored, but for one of an id submitted again since."""
        js, names = self.js, self.names

        async def look_up(task_id: str) -> None:
            name = subject_token(task_id)
            with suppress(nats.js.errors.NotFoundError, ValueError):
                message = await js.get_last_msg(names.done, names.ended(name))
                stored = decode_result(message.data or b"")
                sequence, told_at = message.seq or 0, message.time or datetime.now(UTC)
                if is_before(told_at, sequence, since):
                    return
                with suppress(nats.js.errors.NotFoundError):
                    waits = await js.get_last_msg(names.wait, names.waiting(name))
                    if (waits.seq or 0) > stored.submission:
                        return
                listener.tell(end_of(stored, sequence, told_at))

        return look_up


async def _retry(
    act: Callable[[], Awaitable[T]], passes: Callable[[Exception], bool] = streams.is_transient
) -> T:
    """Act; do it again for half a minute while its trouble is such that it passes."""
    patience = anyio.current_time() + RETRY_FOR
    while True:
        try:
            return await act()
        except NATS_ERRORS as error:
            if not passes(error) or anyio.current_time() > patience:
                raise
        await anyio.sleep(RETRY_DELAY)


async def _each(ids: Collection[str], act: Callable[[str], Awaitable[None]]) -> None:
    """Act on each id, AT_ONCE of them at a time; the first trouble ends it, and is raised."""
    left = iter(ids)
    troubles: list[Exception] = []

    async def some() -> None:
        for task_id in left:
            try:
                await act(task_id)
            except NATS_ERRORS as error:
                troubles.append(error)
            if troubles:
                return

    async with anyio.create_task_group() as group:
        for _ in range(min(SUBMIT_BATCH, len(ids))):
            group.start_soon(some)
    if troubles:
        raise troubles[0]


def _result(
    asked: dict[str, None], told: dict[str, End], seconds: float | None
) -> dict[str, Generation]:
    done: dict[str, Generation] = {}
    pending: dict[str, Generation | None] = {}
    missing: list[str] = []
    for task_id in asked:
        end = told.get(task_id)
        if end is None:
            pending[task_id] = None
        elif end.state is EndState.GAVE_UP:
            pending[task_id] = end.generation
        elif end.generation is not None:
            done[task_id] = end.generation
        else:
            missing.append(task_id)
    if len(told) < len(asked):
        message = f"not all ended in {seconds:g} s"
        raise WaitTimeout(message, done=done, pending=pending, missing=missing)
    if pending:
        message = "the workers gave up on some ids"
        raise GaveUp(message, done=done, pending=pending, missing=missing)
    if missing:
        message = "the relay does not know some ids"
        raise GenerationsMissing(message, done=done, missing=missing)
    return done


def _unread(trouble: Exception) -> QueueError:
    return QueueError(f"the ends cannot be read ({reason(trouble)}); try again")


def _unstored(trouble: Exception, pending: tuple[str, ...]) -> QueueError:
    error = QueueError(f"{len(pending)} ids are not stored ({reason(trouble)}); submit them again")
    error.pending = pending
    return error
