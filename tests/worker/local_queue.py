"""A queue without a server: messages of workers go through a list of callbacks."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from nats.aio.msg import Msg

from luma_async.worker import Queue
from luma_async.worker.storage.submissions import Submission

Callback = Callable[[Msg], Awaitable[None]]
STREAM_TIME = 1_764_000_000_000_000_000  # nanoseconds


class LocalSubscription:
    def __init__(self, client: "LocalClient", callback: Callback) -> None:
        self._client = client
        self._callback = callback

    async def unsubscribe(self) -> None:
        self._client.callbacks.remove(self._callback)


class LocalClient:
    """Delivers each message to all subscribers at once, as one NATS server for all workers."""

    is_connected = True

    def __init__(self) -> None:
        self.callbacks: list[Callback] = []
        self.replies: list[tuple[str, bytes]] = []
        self.is_silent = False

    async def subscribe(self, subject: str, *, cb: Callback) -> LocalSubscription:
        self.callbacks.append(cb)
        return LocalSubscription(self, cb)

    async def publish(self, subject: str, payload: bytes) -> None:
        self.replies.append((subject, payload))
        for callback in [*self.callbacks]:
            await callback(message(subject, payload))

    async def request(self, subject: str, payload: bytes, timeout: float) -> None:
        self.replies.append((subject, payload))
        if self.is_silent:
            await asyncio.sleep(timeout)
            raise TimeoutError


class LocalQueue(Queue):
    """A queue whose epoch and time are those of the test."""

    def __init__(self, client: LocalClient | None = None) -> None:
        super().__init__("nats://127.0.0.1:1")
        self.local: Any = client or LocalClient()
        self.number = 0
        self.unix_time = STREAM_TIME / 1e9
        self.waiting: Submission | None = None

    @property
    def client(self) -> Any:
        return self.local

    @property
    def is_connected(self) -> bool:
        return True

    @property
    def epoch(self) -> int:
        return self.number

    def server_time(self) -> float:
        return self.unix_time

    def id_streams(self, task_id: str) -> Any:
        """Return the queue itself: `waiting` is what the wait stream has of each id."""
        return self

    async def read_waiting(self) -> Submission | None:
        return self.waiting


def message(subject: str, data: bytes, reply: str = "", client: Any = None) -> Msg:
    return Msg(client, subject, reply, data)


def delivery(task_id: str, sequence: int, delivered: int = 1, age: float = 0.0) -> Msg:
    """Return the delivery of an id that was submitted `age` seconds ago, as number `delivered`."""
    submitted = STREAM_TIME - int(age * 1e9)
    reply = f"$JS.ACK.luma-wait.workers.{delivered}.{sequence}.{delivered}.{submitted}.0"
    return message(f"luma.wait.{task_id}", task_id.encode(), reply)
