"""The ends in the order in which they were stored, from some point on, whatever breaks meanwhile.

Nothing is acknowledged here: a reader is no worker. What a broken connection swallowed shows as a
gap in the consumer's own numbers, or as a consumer that claims to have delivered more than came;
then the consumer is made anew, behind the last end that was read.
"""

import asyncio
import logging
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api

from luma_async.errors import QueueError
from luma_async.worker.consumer import PullConsumer
from luma_async.worker.results import End, decode_result, end_of
from luma_async.worker.streams import NATS_ERRORS, Names, reason

logger: logging.Logger = logging.getLogger("luma_async")

HEARTBEAT = 5
FETCH_BATCH = 256
MAX_IDLE = 60.0
RETRY_DELAY = 0.5
FIRST_YEAR, LAST_YEAR = 1970, 2200
ROUNDING = timedelta(microseconds=1)  # nats-py rounds a message's nanoseconds up or down


def since_of(value: object) -> datetime | int | None:
    """Return a place among the ends: a moment that is aware, a sequence, or None for all."""
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value < 2**63:
            raise ValueError(f"since={value}; give the sequence of an end")
        return value
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("since has no time zone; give an aware datetime, such as UTC")
        if not FIRST_YEAR < value.year < LAST_YEAR:
            raise ValueError(f"since={value}; give a moment between 1970 and 2200")
        return value.astimezone(UTC) - ROUNDING
    raise TypeError(f"since={value!r}; give an aware datetime or the sequence of an end")


def is_before(told_at: datetime, sequence: int, since: datetime | int | None) -> bool:
    """Whether an end is from before a place."""
    if since is None:
        return False
    return sequence <= since if isinstance(since, int) else told_at < since


class ResultReader:
    """Reads the done stream; `since` is a moment, the sequence behind which to begin, or None.

    Reading raises QueueError where the connection is closed for good.
    """

    def __init__(
        self,
        client: Client,
        js: JetStreamContext,
        names: Names,
        since: datetime | int | None = None,
    ) -> None:
        self._client = client
        self._js = js
        self._names = names
        self._since = since
        self._consumer: str | None = None
        self._pull: PullConsumer | None = None
        self._quiet = 0
        self._delivered = 0
        self._begun = False

    async def read(self) -> list[End]:
        """Return the next ends, at least one, however long that takes."""
        while True:
            try:
                if ends := await self._taken(await self._fetched()):
                    return ends
            except NATS_ERRORS as error:
                if self._client.is_closed:
                    raise QueueError("the connection is closed; enter another queue") from None
                logger.debug("reading the ends begins anew: %s", reason(error))
                await self._forget()
                await asyncio.sleep(RETRY_DELAY)

    async def aclose(self) -> None:
        """Read no more."""
        await self._forget()

    async def _fetched(self) -> list[Msg]:
        pull = self._pull or await self._begin()
        messages = await pull.fetch(FETCH_BATCH)
        self._quiet = 0 if messages else self._quiet + 1
        if self._quiet == HEARTBEAT:
            self._quiet = 0
            await self._check()
        return messages

    async def _taken(self, messages: list[Msg]) -> list[End]:
        ends: list[End] = []
        for message in messages:
            metadata = message.metadata
            if metadata.sequence.consumer != self._delivered + 1:
                await self._forget()
                break
            self._delivered += 1
            self._since = metadata.sequence.stream
            try:
                stored = decode_result(message.data)
            except ValueError as error:
                logger.warning("%s holds what is no end: %s", message.subject, error)
                continue
            ends.append(end_of(stored, metadata.sequence.stream, metadata.timestamp))
        return ends

    async def _begin(self) -> PullConsumer:
        await self._forget()
        if self._begun and isinstance(self._since, int):
            last = (await self._js.stream_info(self._names.done)).state.last_seq
            self._since = self._since if self._since <= last else 0  # the stream was made anew
        self._begun = True
        made = await self._js.add_consumer(  # pyright: ignore[reportUnknownMemberType]
            self._names.done,
            api.ConsumerConfig(
                ack_policy=api.AckPolicy.NONE,
                mem_storage=True,
                inactive_threshold=MAX_IDLE,
                num_replicas=1,
                deliver_policy=_policy(self._since),
                opt_start_seq=self._since + 1 if isinstance(self._since, int) else None,
                opt_start_time=self._since if isinstance(self._since, datetime) else None,
            ),
        )
        self._consumer, self._delivered = made.name, 0
        self._pull = PullConsumer(self._client, self._names.done, made.name)
        return self._pull

    async def _check(self) -> None:
        """Make sure, where nothing came, that there was nothing to come."""
        info = await self._js.consumer_info(self._names.done, str(self._consumer))
        delivered = info.delivered.consumer_seq if info.delivered else 0
        if delivered != self._delivered:
            await self._forget()

    async def _forget(self) -> None:
        pull, self._pull = self._pull, None
        consumer, self._consumer = self._consumer, None
        with suppress(*NATS_ERRORS):
            if pull is not None:
                await pull.close()
        with suppress(*NATS_ERRORS):
            if consumer is not None:
                await self._js.delete_consumer(self._names.done, consumer)


def _policy(since: datetime | int | None) -> api.DeliverPolicy:
    if since is None:
        return api.DeliverPolicy.ALL
    if isinstance(since, int):
        return api.DeliverPolicy.BY_START_SEQUENCE
    return api.DeliverPolicy.BY_START_TIME
