"""What a worker answers the server: ends to be stored, and words about what it was lent."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress

from msgspec import Struct
from nats.aio.msg import Msg
from nats.js import api

from luma_async.errors import QueueError
from luma_async.polling.chunks import chunks
from luma_async.structs import Generation
from luma_async.worker.queue import Queue
from luma_async.worker.results import EndState, encode_result, subject_token
from luma_async.worker.streams import NATS_ERRORS, reason

logger: logging.Logger = logging.getLogger("luma_async")

MAX_CONCURRENT_PUBLISHES = 500
FIRST_RETRY_DELAY = 0.25
MAX_RETRY_DELAY = 5.0
ACK_TIMEOUT = 5.0
MAX_ACK_ATTEMPTS = 3
MAX_HEADERS = 1024


class Lease(Struct, gc=False):
    """An id that the server has lent, and where to answer about it.

    `submission` is its place among all that was submitted, `submitted_at` the Unix time of that; it
    is polled for `until` a time of the loop's clock.
    """

    id: str
    reply: str
    submission: int
    submitted_at: float
    until: float
    ended: bool = False


class PendingResult(Struct, frozen=True):
    """An end that is still to be told."""

    id: str
    state: EndState
    generation: Generation | None
    lag: float | None = None


class ResultPublisher:
    """Tells the server, however long that is `away`."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self.is_unavailable: bool = False

    async def publish(self, held: Lease, ending: PendingResult) -> None:
        """Publish an end until it is stored; again where it was, for the server drops a twin."""
        name = subject_token(held.id)
        subject = self._queue.names.ended(name)
        headers = {api.Header.MSG_ID.value: f"{held.submission}.{name}"}
        pause = FIRST_RETRY_DELAY
        while True:
            most = self._queue.client.max_payload - MAX_HEADERS
            text, whole = encode_result(
                held.id, ending.state, ending.generation, held.submission, most=most
            )
            try:
                await self._queue.js.publish(subject, text, headers=headers)
            except NATS_ERRORS as error:
                self._troubled(error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, MAX_RETRY_DELAY)
                with suppress(*NATS_ERRORS, QueueError):
                    await self._queue.ensure()
                continue
            if self.is_unavailable:
                logger.warning("ends are stored again")
                self.is_unavailable = False
            if not whole:
                logger.warning("the task %.80r is too long to store, and is told in part", held.id)
            return

    async def ack(self, held: Lease) -> None:
        """Say that an id is done with; a server that does not hear of it lends the id again."""
        for _ in range(MAX_ACK_ATTEMPTS):
            with suppress(*NATS_ERRORS):
                await self._queue.client.request(held.reply, Msg.Ack.Ack, timeout=ACK_TIMEOUT)
                return
            await asyncio.sleep(FIRST_RETRY_DELAY)

    async def in_progress(self, helds: Iterable[Lease], held: Callable[[Lease], bool]) -> None:
        """Say of all that are still held that they are in progress."""
        await self._say(Msg.Ack.Progress, (one for one in helds if held(one)))

    async def nak(self, helds: Iterable[Lease]) -> None:
        """Let others have these at once."""
        await self._say(Msg.Ack.Nak, helds)

    async def _say(self, word: bytes, helds: Iterable[Lease]) -> None:
        with suppress(*NATS_ERRORS, QueueError):
            for part in chunks(helds, MAX_CONCURRENT_PUBLISHES):
                for held in part:
                    if not self._queue.client.is_connected:
                        return
                    await self._queue.client.publish(held.reply, word)
                await asyncio.sleep(0)

    def _troubled(self, error: Exception) -> None:
        if not self.is_unavailable:
            logger.warning("ends cannot be stored for now (%s); they are kept", reason(error))
            self.is_unavailable = True
