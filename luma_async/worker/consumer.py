"""Messages of a consumer, as they come: what nats-py's `fetch` is for, but for what it leaves open.

A request for messages stays open on the server until it is filled, or expires. `fetch` forgets it
as soon as its own time is up, and what the server sends after that is found by chance; a second
fetch asks for the same room again. Here one request is open at a time, and is known to be: nothing
is asked for beyond it, what comes late is found by the next call, and `rest` waits until the server
owes nothing more. Requests have numbers, so that a late word about one is not taken for the next.

Nor is `flush` used here, or anywhere on a connection that lives on: nats-py 2.16 dies of the answer
that comes after its time is up. ADR-13 of nats-architecture-and-design has the words of the
protocol.
"""

import asyncio
from collections import deque

import anyio
import msgspec
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

FETCH_EXPIRES = 1.0
MAX_LATE = 0.25
MAX_SILENCE = 10.0
GATHER_TIME = 0.01
HEARTBEAT = "100"
FETCH_OVER = ("404", "408")


class PullConsumer:
    """A subscription to one consumer of a stream."""

    def __init__(self, client: Client, stream: str, consumer: str) -> None:
        self._client = client
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._inbox = client.new_inbox()
        self._subscription: Subscription | None = None
        self._came: deque[Msg] = deque()
        self._news = asyncio.Event()
        self._refused: str | None = None
        self._number = 0
        self._connects = 0
        self._owed = 0
        self._until = 0.0

    async def fetch(self, most: int) -> list[Msg]:
        """Wait a second at most for messages; return what came, and what had come late before.

        Asks for `most`, once nothing is owed from before; at 0 it neither asks nor waits. Raises
        nats-py's errors; its NotFoundError where the consumer is gone.
        """
        if self._client.is_closed:
            raise nats.errors.ConnectionClosedError
        if self._subscription is None:
            self._subscription = await self._client.subscribe(  # pyright: ignore[reportUnknownMemberType]
                f"{self._inbox}.*", cb=self._take
            )
        if most > 0 and not self._owes():
            await self._ask(most)
        if most > 0 and not self._came:
            await self._wait(FETCH_EXPIRES + MAX_LATE, until_one=True)
        if self._came:
            await self._wait(GATHER_TIME, until_one=False)
        messages = self._handed_over()
        if self._refused is not None and not messages:
            refused, self._refused = self._refused, None
            raise nats.js.errors.NotFoundError(description=refused)
        return messages

    async def drain(self) -> list[Msg]:
        """Ask for nothing more; return what the server still sends until the request is over."""
        if self._client.is_connected:
            await self._wait(FETCH_EXPIRES + MAX_LATE, until_one=False)
        return self._handed_over()

    async def close(self) -> None:
        """Leave; what comes then is nobody's."""
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    def _handed_over(self) -> list[Msg]:
        messages = list(self._came)
        self._came.clear()
        return messages

    def _owes(self) -> bool:
        """Whether the last request is still open: not filled, refused, expired, or lost."""
        if self._owed <= 0 or self._client.stats["reconnects"] != self._connects:
            return False
        return asyncio.get_running_loop().time() < self._until

    async def _ask(self, most: int) -> None:
        request = msgspec.json.encode({"batch": most, "expires": int(FETCH_EXPIRES * 1e9)})
        self._number += 1
        self._owed = most
        self._connects = self._client.stats["reconnects"]
        self._until = asyncio.get_running_loop().time() + FETCH_EXPIRES + MAX_SILENCE
        await self._client.publish(self._subject, request, reply=f"{self._inbox}.{self._number}")

    async def _wait(self, seconds: float, *, until_one: bool) -> None:
        with anyio.move_on_after(seconds):
            while self._owes() and not (until_one and self._came):
                self._news.clear()
                await self._news.wait()

    async def _take(self, message: Msg) -> None:
        """Take a message, or a word about the request."""
        status = (message.headers or {}).get("Status")
        if status is None or message.data:
            self._owed -= 1
            self._came.append(message)
        elif status != HEARTBEAT and message.subject.endswith(f".{self._number}"):
            self._owed = 0
            if status not in FETCH_OVER:
                self._refused = status
        self._news.set()
