"""Pull consumer: fetches messages of a JetStream consumer, with one request open at a time.

A pull request stays open on the server until it is filled or expires. `fetch` of nats-py forgets
the request as soon as its own timeout is over: messages that the server sends after that are found
by chance only, and the next `fetch` requests the same number again. PullConsumer differs in three
points:

- It sends no request while one is open. Late messages are returned by the next call.
- `drain` waits until the open request is over, so that the server sends nothing more.
- Requests are numbered, so that a late status message of one is not taken for the next one's.

`flush` is not used here, nor on any connection that stays open: nats-py 2.16 stops reading when the
answer arrives after the timeout. The protocol is described in ADR-13 of
nats-architecture-and-design.
"""

import asyncio
from collections import deque
from contextlib import suppress

import anyio
import msgspec
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from luma_async.worker.server.streams import NATS_ERRORS

FETCH_EXPIRES = 1.0  # seconds for which the server keeps a request open
MAX_LATENESS = 0.25  # seconds to wait beyond that for its last messages
REQUEST_LOST_AFTER = 10.0  # seconds beyond that after which a request without a status is over
GATHER_TIME = 0.01  # seconds in which more messages may join the first one
ACK_PREFIX = "$JS.ACK."  # of the subjects to which the server expects a reply
STATUS_HEARTBEAT = "100"
STATUS_REQUEST_OVER = ("404", "408")


class PullConsumer:
    """A subscription to one consumer of a stream."""

    def __init__(self, client: Client, stream: str, consumer: str) -> None:
        self._client = client
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._inbox = client.new_inbox()
        self._subscription: Subscription | None = None
        self._received: deque[Msg] = deque()
        self._message_arrived = asyncio.Event()
        self._error_status: str | None = None
        self._request_number = 0
        self._reconnect_count = 0  # of the client, when the request was sent
        self._outstanding = 0  # messages that the server may still send for the request
        self._lost_at = 0.0

    async def fetch(self, max_messages: int) -> list[Msg]:
        """Wait up to FETCH_EXPIRES for messages; return them and those that arrived before.

        Requests `max_messages` if no request is open. With 0 it neither requests nor waits. Raises
        the errors of nats-py; NotFoundError if the consumer does not exist.
        """
        if self._client.is_closed:
            raise nats.errors.ConnectionClosedError
        if self._subscription is None:
            self._subscription = await self._client.subscribe(  # pyright: ignore[reportUnknownMemberType]
                f"{self._inbox}.*", cb=self._on_message
            )
        if max_messages > 0 and not self._is_request_open():
            await self._request(max_messages)
        if max_messages > 0 and not self._received:
            await self._wait(FETCH_EXPIRES + MAX_LATENESS, until_first=True)
        if self._received:
            await self._wait(GATHER_TIME, until_first=False)
        messages = self._pop_received()
        if self._error_status is not None and not messages:
            status, self._error_status = self._error_status, None
            raise nats.js.errors.NotFoundError(description=status)
        return messages

    async def drain(self) -> list[Msg]:
        """Send no request; return the messages that arrive until the open request is over."""
        if self._client.is_connected:
            await self._wait(FETCH_EXPIRES + MAX_LATENESS, until_first=False)
        return self._pop_received()

    async def close(self) -> None:
        """Unsubscribe, ignoring NATS errors. Messages that arrive later are dropped."""
        if self._subscription is not None:
            with suppress(*NATS_ERRORS):
                await self._subscription.unsubscribe()

    def _pop_received(self) -> list[Msg]:
        messages = list(self._received)
        self._received.clear()
        return messages

    def _is_request_open(self) -> bool:
        """Return whether the last request is not yet filled, rejected, expired or lost."""
        if self._outstanding <= 0 or self._client.stats["reconnects"] != self._reconnect_count:
            return False
        return asyncio.get_running_loop().time() < self._lost_at

    async def _request(self, max_messages: int) -> None:
        payload = msgspec.json.encode({"batch": max_messages, "expires": int(FETCH_EXPIRES * 1e9)})
        self._request_number += 1
        self._outstanding = max_messages
        self._reconnect_count = self._client.stats["reconnects"]
        self._lost_at = asyncio.get_running_loop().time() + FETCH_EXPIRES + REQUEST_LOST_AFTER
        reply = f"{self._inbox}.{self._request_number}"
        await self._client.publish(self._subject, payload, reply=reply)

    async def _wait(self, seconds: float, *, until_first: bool) -> None:
        with anyio.move_on_after(seconds):
            while self._is_request_open() and not (until_first and self._received):
                self._message_arrived.clear()
                await self._message_arrived.wait()

    async def _on_message(self, message: Msg) -> None:
        """Receive a message of the stream, or a status message about a request."""
        # Only a message of the stream has a reply subject; it may have a header `Status`, too.
        status = (message.headers or {}).get("Status")
        if message.reply.startswith(ACK_PREFIX):
            self._outstanding -= 1
            self._received.append(message)
        elif message.reply or status is None:
            return  # not sent by the server
        elif status != STATUS_HEARTBEAT and message.subject.endswith(f".{self._request_number}"):
            self._outstanding = 0
            if status not in STATUS_REQUEST_OVER:
                self._error_status = status
        self._message_arrived.set()
