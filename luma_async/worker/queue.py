"""The queue of a pool, as other processes use it: submit ids, read results, wait for results."""

import asyncio
import os
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing, suppress
from datetime import datetime
from typing import Self, overload

import anyio
import anyio.to_thread
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext

from luma_async import validation as checks
from luma_async.errors import QueueError
from luma_async.structs import Generation
from luma_async.worker.server import streams
from luma_async.worker.server.connection import Connection, Nats, await_cancellable
from luma_async.worker.server.consumer import PullConsumer
from luma_async.worker.server.server_clock import ServerClock
from luma_async.worker.server.stream_info import StreamInfo
from luma_async.worker.server.streams import NATS_ERRORS, Names, for_each, reason, retry
from luma_async.worker.storage.result_hub import (
    ResultHub,
    ResultWaiter,
    collect_generations,
    read_error,
)
from luma_async.worker.storage.result_reader import ResultReader, parse_since
from luma_async.worker.storage.result_store import IdStreams
from luma_async.worker.storage.results import End, subject_token


class Queue:
    """A connection to one pool: submits ids, and reads the results that its workers store.

    `nats` is a URL, several URLs (also as one text with commas), or a connected client of nats-py,
    which the queue does not close. It defaults to the environment variable LUMA_NATS. Without it,
    the queue uses the private server of the directory `data` and starts it if it does not run;
    `data` defaults to LUMA_DATA, then to luma-async in the user's state directory. `pool` separates
    accounts that share a server. `credentials` is the path of a NATS credentials file. `replicas`
    is the number of copies that a cluster keeps, by default three. Entering raises QueueError if no
    server answers.
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
        self.connection: Connection = Connection(nats, data, credentials, self.names.pool)
        self._hub: ResultHub | None = None
        self._lease = streams.ACK_WAIT
        self._wait_info: StreamInfo | None = None
        self._recreated_count = 0
        self._server_clock = ServerClock()

    async def __aenter__(self) -> Self:
        await self.connection.open()
        try:
            await await_cancellable(self.ensure())
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection. Running waits raise QueueError. May be called again."""
        hub, self._hub = self._hub, None
        with anyio.CancelScope(shield=True):
            try:
                if hub is not None:
                    await hub.close()
            finally:
                await self.connection.close()

    def __repr__(self) -> str:
        return f"<Queue {self.names.pool!r}: {self.connection!r}>"

    @property
    def client(self) -> Client:
        """The client of nats-py. Raises QueueError if the queue is closed."""
        return self.connection.client

    @property
    def is_connected(self) -> bool:
        """Whether the server is reachable."""
        return self.connection.is_connected

    @property
    def js(self) -> JetStreamContext:
        """JetStream on the connection. Raises QueueError if the queue is closed."""
        return self.connection.js

    @property
    def epoch(self) -> int:
        """A number that changes when the server may use numbers of messages again.

        That is after each reconnect, and if the wait stream was deleted and created again.
        """
        return self._recreated_count + self.client.stats["reconnects"]

    def server_time(self) -> float:
        """Return the server's time as a Unix time; the clock of this machine may be wrong."""
        return self._server_clock.now()

    def id_streams(self, task_id: str) -> IdStreams:
        """Return the messages of one id."""
        return IdStreams(self.js, self.names, subject_token(task_id))

    async def ensure(self) -> StreamInfo:
        """Create the streams if they do not exist; return the done stream.

        Raises QueueError if that is not possible.
        """
        sent_at = asyncio.get_running_loop().time()
        try:
            wait, done = await streams.ensure(self.client, self.js, self.names, self._replicas)
        except nats.js.errors.APIError as error:
            raise streams.queue_error(error) from None
        except NATS_ERRORS as error:
            raise self.connection.denials.error() or QueueError(
                f"no answer from JetStream ({reason(error)}); "
                "switch it on (nats-server --jetstream), or wait for its leader"
            ) from None
        if self._wait_info is not None and self._wait_info.created != wait.created:
            self._recreated_count += 1
        self._wait_info = wait
        self._server_clock.add(wait.ts, sent_at)
        return done

    async def enlist(self, ack_wait: float | None) -> float:
        """Register a worker; return the duration of a lease in seconds.

        `ack_wait` changes that duration for all workers of the pool; None keeps it. If the server
        is private and no other worker uses its directory, all leases are those of dead workers:
        they end now. Retries for half a minute, because a cluster may elect a leader; then raises
        QueueError.
        """
        try:
            self._lease = await retry(
                lambda: self._register_worker(ack_wait),
                lambda _: self.connection.denials.error() is None,
            )
        except NATS_ERRORS as error:
            raise self.connection.denials.error() or QueueError(
                f"the worker cannot be registered ({reason(error)}); see the log of the server"
            ) from None
        return self._lease

    async def _register_worker(self, ack_wait: float | None) -> float:
        embedded = self.connection.embedded
        if embedded is not None and await anyio.to_thread.run_sync(embedded.register_worker):
            with suppress(nats.js.errors.NotFoundError):
                ack_wait = await streams.ensure_consumer(self.js, self.names, ack_wait)
                await self.js.delete_consumer(self.names.wait, self.names.consumer)
        return await streams.ensure_consumer(self.js, self.names, ack_wait)

    async def pull(self) -> PullConsumer:
        """Return a consumer of the submitted ids. Creates the streams if they do not exist."""
        with suppress(QueueError):
            await self.ensure()
        await streams.ensure_consumer(self.js, self.names, None, default=self._lease)
        return PullConsumer(self.client, self.names.wait, self.names.consumer)

    async def submit(self, ids: str | Iterable[str]) -> list[str]:
        """Store ids for the workers. They are on disk when it returns.

        An id that is in the queue already is not added again; one whose result is stored is, and is
        polled again. Returns the ids that were added, in their order; an id may be left out of the
        list if the server stored it but did not answer in time. Raises QueueError if some ids could
        not be stored within half a minute (a cluster may elect a leader in that time); its
        `pending` has those ids. It is safe to submit all ids again.
        """
        task_ids = checks.task_ids(ids)
        is_new: dict[str, bool] = {}
        js = self.js

        async def store(task_id: str) -> None:
            subject = self.names.wait_subject(subject_token(task_id))
            try:
                await js.publish(subject, task_id.encode())
            except nats.js.errors.APIError as error:
                if not streams.is_duplicate(error):
                    raise
                is_new[task_id] = False
            else:
                is_new[task_id] = True

        try:
            should_retry = self.connection.is_transient
            await for_each(task_ids, lambda task_id: retry(lambda: store(task_id), should_retry))
        except NATS_ERRORS as error:
            pending = tuple(task_id for task_id in task_ids if task_id not in is_new)
            cause = self.connection.denials.error() or QueueError(
                f"{len(pending)} ids are not stored ({reason(error)}); submit them again"
            )
            cause.pending = pending
            raise cause from None
        return [task_id for task_id in task_ids if is_new[task_id]]

    def results(
        self, ids: str | Iterable[str] | None = None, *, since: datetime | int | None = None
    ) -> AsyncGenerator[End, None]:
        """Iterate over the results of these ids, one per id; without ids over all, without end.

        Results that are stored already come first. `since` is an aware datetime, or the `sequence`
        of the last result read; None reads all results that the server keeps, by default those of
        one week. Without ids, a result may come twice if the workers stored it twice.
        """
        start = parse_since(since)
        if ids is None:
            return self._all_results(start)
        return self._results_of(dict.fromkeys(checks.task_ids(ids)), start)

    async def _all_results(self, since: datetime | int | None) -> AsyncGenerator[End, None]:
        async with aclosing(ResultReader(self.connection, self.names, since)) as reader:
            while True:
                for result in await reader.read():
                    yield result.end

    async def _results_of(
        self, ids: dict[str, None], since: datetime | int | None
    ) -> AsyncGenerator[End, None]:
        waiter = ResultWaiter(ids, since)
        async with self._result_hub().subscribe(waiter):
            while waiter.missing or waiter.results:
                yield await waiter.next()

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
        """Wait until the workers have stored a result for each id, as `wait_until_done` does.

        Returns one Generation for one id, else a dict in the given order. Results that are stored
        already count. `timeout` is in seconds; None waits without limit, 0 returns what is stored.
        Raises a WaitIncomplete if not all tasks completed or failed: WaitTimeout,
        GenerationsMissing (the relay does not know some ids) or GaveUp (the workers gave up on the
        ids in `pending`). Raises QueueError if the server does not answer for half a minute; with
        a timeout of 0, at once.
        """
        seconds = checks.timeout(timeout)
        task_ids = dict.fromkeys(checks.task_ids(ids))
        waiter = ResultWaiter(task_ids)
        hub = self._result_hub()
        if seconds == 0:
            try:
                await for_each(task_ids, hub.make_lookup(waiter))
            except NATS_ERRORS as error:
                raise read_error(self.connection, error) from None
        with anyio.move_on_after(seconds):
            async with hub.subscribe(waiter):
                await waiter.wait_for_all()
        results = {result.id: result for result in waiter.results}
        done = collect_generations(task_ids, results, seconds)
        return done[ids] if isinstance(ids, str) else done

    def _result_hub(self) -> ResultHub:
        if self._hub is None:
            self._hub = ResultHub(self.connection, self.names)
        return self._hub
