"""What the workers of a pool tell each other: how much each holds, and which lease it counts on."""

import asyncio
import secrets
from contextlib import suppress

import msgspec
from msgspec import Struct
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from luma_async.errors import QueueError
from luma_async.worker.balance import Load
from luma_async.worker.queue import Queue
from luma_async.worker.streams import NATS_ERRORS

ANNOUNCE_EVERY = 1.0
PEER_TIMEOUT = 3.5


class _Greeting(Struct, frozen=True):
    worker: str
    held: int
    capacity: int
    lease: float


class Peers:
    """The other workers, as far as they were heard of lately."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._name = secrets.token_hex(8)
        self._heard: dict[str, tuple[float, _Greeting]] = {}
        self._subscription: Subscription | None = None

    async def listen(self) -> None:
        """Hear of others from now on."""
        self._subscription = await self._queue.client.subscribe(  # pyright: ignore[reportUnknownMemberType]
            self._queue.names.peers, cb=self._hear
        )

    async def leave(self) -> None:
        """Say that this worker is gone, and hear no more."""
        await self.announce(Load(0, 0), 0.0)
        with suppress(*NATS_ERRORS):
            if self._subscription is not None:
                await self._subscription.unsubscribe()

    async def announce(self, load: Load, lease: float) -> None:
        """Tell the others how much is held here."""
        greeting = _Greeting(self._name, load.held, load.capacity, lease)
        with suppress(*NATS_ERRORS, QueueError):
            if self._queue.is_connected:
                text = msgspec.json.encode(greeting)
                await self._queue.client.publish(self._queue.names.peers, text)

    @property
    def loads(self) -> list[Load]:
        """What each of the others holds."""
        return [Load(one.held, one.capacity) for one in self._present()]

    def lease(self, mine: float) -> float:
        """Return the shortest lease that anybody counts on, in seconds."""
        return min([mine, *(one.lease for one in self._present())])

    def _present(self) -> list[_Greeting]:
        since = asyncio.get_running_loop().time() - PEER_TIMEOUT
        self._heard = {name: one for name, one in self._heard.items() if one[0] >= since}
        return [greeting for _, greeting in self._heard.values()]

    async def _hear(self, message: Msg) -> None:
        with suppress(ValueError):
            greeting = msgspec.json.decode(message.data, type=_Greeting)
            if greeting.worker == self._name:
                return
            self._heard.pop(greeting.worker, None)
            if greeting.capacity > 0 and greeting.held >= 0 and greeting.lease > 0:
                now = asyncio.get_running_loop().time()
                self._heard[greeting.worker] = (now, greeting)
