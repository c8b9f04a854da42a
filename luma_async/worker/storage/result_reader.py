"""Reads stored results in the order in which they were stored, from a given position.

Results are not acknowledged: any number of readers may read them. A message that a broken
connection lost is detected by numbers. The server numbers the messages of a consumer 1, 2, 3, …:

- a received number is not the previous one plus 1: messages before it were lost
- nothing arrives, and the server has delivered more than was received: the last ones were lost

In both cases the reader deletes the consumer and creates another one that starts after the last
result read. It does the same after an error, and if the consumer or the stream does not exist.

The number of the last result read is a position only as long as that message is the one that was
read. If it is not there any more, the stream may have been created again, or the server may have
started without the newest part of its data, and numbers are used a second time. Then the reader
starts at the time of the last result read, and skips what it has read already (`on_restart` is
called, because older results may be lost).
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import nats.js.errors
from msgspec import Struct
from nats.aio.msg import Msg
from nats.js import api

from luma_async.errors import QueueError
from luma_async.worker.server.connection import Connection
from luma_async.worker.server.consumer import PullConsumer
from luma_async.worker.server.invalid_messages import InvalidMessages
from luma_async.worker.server.stream_info import stream_info
from luma_async.worker.server.streams import NATS_ERRORS, Names, reason
from luma_async.worker.storage.result_store import microseconds
from luma_async.worker.storage.results import End, decode_result, make_end
from luma_async.worker.storage.submissions import StoredKey

logger: logging.Logger = logging.getLogger("luma_async")

CHECK_AFTER_EMPTY_FETCHES = 5
FETCH_BATCH = 256  # messages
INACTIVE_THRESHOLD = 60.0  # seconds after which the server deletes a consumer that is not used
RETRY_DELAY = 0.5  # seconds
FIRST_YEAR, LAST_YEAR = 1970, 2200
RESTART_MARGIN = timedelta(seconds=60)
ROUNDING = timedelta(microseconds=1)  # nats-py rounds a message's nanoseconds up or down


def parse_since(value: object) -> datetime | int | None:
    """Check a position among the results: an aware datetime, a sequence, or None for all.

    Raises TypeError or ValueError.
    """
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value < 2**63:
            raise ValueError(f"since={value}; give End.sequence")
        return value
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("since has no time zone; give an aware datetime, such as UTC")
        if not FIRST_YEAR < value.year < LAST_YEAR:
            raise ValueError(f"since={value}; give a time between 1970 and 2200")
        return value.astimezone(UTC) - ROUNDING
    raise TypeError(f"since={value!r}; give an aware datetime or End.sequence")


def is_before(stored_at: datetime, sequence: int, since: datetime | int | None) -> bool:
    """Return whether a result was stored before the position `since`."""
    if since is None:
        return False
    return sequence <= since if isinstance(since, int) else stored_at < since


class ReadResult(Struct, frozen=True):
    """A result that was read, and the submission that it answers."""

    end: End
    key: StoredKey


class ResultReader:
    """Reads the done stream from `since`.

    That is a datetime, the sequence of the last result read, or None for all results. `read` raises
    QueueError if the connection is closed for good or a permission is denied. `on_restart` is
    called when the reader could not continue exactly where it was.
    """

    def __init__(
        self,
        connection: Connection,
        names: Names,
        since: datetime | int | None = None,
        on_restart: Callable[[], None] = lambda: None,
    ) -> None:
        self._denials = connection.denials
        self._client = connection.client
        self._js = connection.js
        self._names = names
        self._since = since
        self._on_restart = on_restart
        self._last: tuple[int, datetime] | None = None  # number and time of the last message read
        self._consumer: str | None = None
        self._pull: PullConsumer | None = None
        self._empty_fetches = 0
        self._delivered = 0
        self._invalid = InvalidMessages("a result")

    async def read(self) -> list[ReadResult]:
        """Wait for the next results; return at least one."""
        while True:
            try:
                if results := await self._decode(await self._fetch()):
                    return results
            except NATS_ERRORS as error:
                if self._client.is_closed:
                    raise QueueError("the connection is closed; enter another queue") from None
                if (denied := self._denials.error()) is not None:
                    raise denied from None
                logger.debug("reading the results again from the last one read: %s", reason(error))
                await self._drop_consumer()
                await asyncio.sleep(RETRY_DELAY)

    async def aclose(self) -> None:
        """Delete the consumer and stop reading."""
        await self._drop_consumer()

    async def _fetch(self) -> list[Msg]:
        pull = self._pull or await self._create_consumer()
        messages = await pull.fetch(FETCH_BATCH)
        self._empty_fetches = 0 if messages else self._empty_fetches + 1
        if self._empty_fetches == CHECK_AFTER_EMPTY_FETCHES:
            self._empty_fetches = 0
            await self._check_delivered()
        return messages

    async def _decode(self, messages: list[Msg]) -> list[ReadResult]:
        results: list[ReadResult] = []
        for message in messages:
            metadata = message.metadata
            if metadata.sequence.consumer != self._delivered + 1:
                await self._drop_consumer()
                break
            self._delivered += 1
            sequence, stored_at = metadata.sequence.stream, metadata.timestamp
            if self._last and sequence <= self._last[0] and stored_at <= self._last[1]:
                continue  # read before the restart
            self._last, self._since = (sequence, stored_at), sequence
            try:
                stored = decode_result(message.data, message.subject)
            except ValueError as error:
                self._invalid.log(message.subject, error)
                continue
            key = StoredKey(sequence, microseconds(stored_at), stored.key)
            results.append(ReadResult(make_end(stored, sequence, stored_at), key))
        return results

    async def _create_consumer(self) -> PullConsumer:
        await self._drop_consumer()
        if isinstance(self._since, int):
            self._since = await self._checked(self._since)
        created = await self._js.add_consumer(  # pyright: ignore[reportUnknownMemberType]
            self._names.done,
            api.ConsumerConfig(
                ack_policy=api.AckPolicy.NONE,
                mem_storage=True,
                inactive_threshold=INACTIVE_THRESHOLD,
                num_replicas=1,
                deliver_policy=_deliver_policy(self._since),
                opt_start_seq=self._since + 1 if isinstance(self._since, int) else None,
                opt_start_time=self._since if isinstance(self._since, datetime) else None,
            ),
        )
        self._consumer, self._delivered = created.name, 0
        self._pull = PullConsumer(self._client, self._names.done, created.name)
        return self._pull

    async def _checked(self, since: int) -> datetime | int | None:
        """Return the position to start from, if the last result read has the number `since`."""
        # A clock that is set back by up to RESTART_MARGIN hides no result.
        if self._last is None:
            newest = (await stream_info(self._client, self._names.done)).state.last_seq
            if since <= newest:
                return since
            logger.warning(
                "there is no result %d yet, the newest is %d: the stream was created again; "
                "reading all results", since, newest,
            )  # fmt: skip
            return None
        with suppress(nats.js.errors.NotFoundError):
            message = await self._js.get_msg(self._names.done, since)
            if message.time is not None and abs(message.time - self._last[1]) <= ROUNDING:
                return since
        self._on_restart()
        return self._last[1] - RESTART_MARGIN

    async def _check_delivered(self) -> None:
        """Drop the consumer if the server has delivered other messages than were received."""
        info = await self._js.consumer_info(self._names.done, str(self._consumer))
        delivered = info.delivered.consumer_seq if info.delivered else 0
        if delivered != self._delivered:
            await self._drop_consumer()

    async def _drop_consumer(self) -> None:
        pull, self._pull = self._pull, None
        consumer, self._consumer = self._consumer, None
        if pull is not None:
            await pull.close()
        with suppress(*NATS_ERRORS):
            if consumer is not None:
                await self._js.delete_consumer(self._names.done, consumer)


def _deliver_policy(since: datetime | int | None) -> api.DeliverPolicy:
    if since is None:
        return api.DeliverPolicy.ALL
    if isinstance(since, int):
        return api.DeliverPolicy.BY_START_SEQUENCE
    return api.DeliverPolicy.BY_START_TIME
