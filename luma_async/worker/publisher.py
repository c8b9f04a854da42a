"""What a worker answers the server: ends to be stored, and words about what it was lent."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress

from msgspec import Struct
from nats.aio.msg import Msg
from nats.js import api

from luma_async.errors import QueueError
from luma_async.polling.chunks import slices
from luma_async.structs import Generation
from luma_async.worker.queue import Queue
from luma_async.worker.results import EndState, encoded, token
from luma_async.worker.streams import TROUBLE, reason

logger: logging.Logger = logging.getLogger("luma_async")

AT_ONCE = 500
PAUSE = 0.25
LONGEST_PAUSE = 5.0
ACK_PATIENCE = 5.0
ACK_TRIES = 3
ROOM_FOR_HEADERS = 1024


class Held(Struct, gc=False):
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


class Ending(Struct, frozen=True):
    """An end that is still to be told."""

    id: str
    state: EndState
    generation: Generation | None
    lag: float | None = None


class Answers:
    """Tells the server, however long that is `away`."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self.away: bool = False

    async def store(self, held: Held, ending: Ending) -> None:
        """Publish an end until it is stored; again where it was, for the server drops a twin."""
        name = token(held.id)
        subject = self._queue.names.ended(name)
        headers = {api.Header.MSG_ID.value: f"{held.submission}.{name}"}
        pause = PAUSE
        while True:
            most = self._queue.client.max_payload - ROOM_FOR_HEADERS
            text, whole = encoded(
                held.id, ending.state, ending.generation, held.submission, most=most
            )
            try:
                await self._queue.js.publish(subject, text, headers=headers)
            except TROUBLE as error:
                self._troubled(error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                with suppress(*TROUBLE, QueueError):
                    await self._queue.ensure()
                continue
            if self.away:
                logger.warning("ends are stored again")
                self.away = False
            if not whole:
                logger.warning("the task %.80r is too long to store, and is told in part", held.id)
            return

    async def acknowledge(self, held: Held) -> None:
        """Say that an id is done with; a server that does not hear of it lends the id again."""
        for _ in range(ACK_TRIES):
            with suppress(*TROUBLE):
                await self._queue.client.request(held.reply, Msg.Ack.Ack, timeout=ACK_PATIENCE)
                return
            await asyncio.sleep(PAUSE)

    async def in_progress(self, helds: Iterable[Held], held: Callable[[Held], bool]) -> None:
        """Say of all that are still held that they are in progress."""
        await self._say(Msg.Ack.Progress, (one for one in helds if held(one)))

    async def hand_back(self, helds: Iterable[Held]) -> None:
        """Let others have these at once."""
        await self._say(Msg.Ack.Nak, helds)

    async def _say(self, word: bytes, helds: Iterable[Held]) -> None:
        with suppress(*TROUBLE, QueueError):
            for part in slices(helds, AT_ONCE):
                for held in part:
                    if not self._queue.client.is_connected:
                        return
                    await self._queue.client.publish(held.reply, word)
                await asyncio.sleep(0)

    def _troubled(self, error: Exception) -> None:
        if not self.away:
            logger.warning("ends cannot be stored for now (%s); they are kept", reason(error))
            self.away = True
