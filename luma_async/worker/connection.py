"""The connection to a NATS server: a given one, one that is named, or the private one."""

import asyncio
import logging
import os
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import TypeAlias, cast

import anyio
import anyio.to_thread
from nats.aio.client import Client
from nats.js import JetStreamContext

from luma_async.errors import LumaError, QueueError
from luma_async.worker.embedded import Embedded
from luma_async.worker.streams import TROUBLE, reason

logger = logging.getLogger("luma_async")

Nats: TypeAlias = str | Sequence[str] | Client

CONNECT_PATIENCE = 10.0
RECONNECT_WAIT = 0.25
REQUEST_TIMEOUT = 10.0
REVIVE_EVERY = 1.0


class Connection:
    """Finds a server, connects to it, and finds it again when it was away.

    `embedded` is the private server, where that is the one used.
    """

    def __init__(
        self,
        nats: Nats | None,
        data: str | os.PathLike[str] | None,
        credentials: str | os.PathLike[str] | None,
        name: str,
    ) -> None:
        if nats is not None and data is not None:
            raise ValueError("both nats and data name a server; give one of them")
        if nats is None and data is None:
            nats = os.environ.get("LUMA_NATS") or None
        self.embedded = None if nats is not None else Embedded(data or _state_directory())
        self._given = nats if isinstance(nats, Client) else None
        self._urls = [] if nats is None or isinstance(nats, Client) else _urls(nats)
        self._credentials = None if credentials is None else os.fspath(credentials)
        self._name = name
        self._client: Client | None = None
        self._js: JetStreamContext | None = None
        self._stack = AsyncExitStack()
        self._reviving: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        if self.embedded is not None:
            return f"{self.embedded!r}"
        return shown(self._urls) or "a client of yours"

    @property
    def client(self) -> Client:
        """The connected client."""
        if self._client is None:
            raise RuntimeError("the queue is not entered; use `async with Queue(…) as queue`")
        return self._client

    @property
    def js(self) -> JetStreamContext:
        """JetStream on this connection."""
        if self._js is None:
            raise RuntimeError("the queue is not entered; use `async with Queue(…) as queue`")
        return self._js

    async def open(self) -> None:
        """Connect; once."""
        if self._client is not None:
            raise RuntimeError("the queue is already entered; enter it once")
        async with AsyncExitStack() as stack:
            self._client = self._given or await self._connected(stack)
            if not self._client.is_connected:
                raise QueueError("the NATS client is not connected; connect it first")
            self._js = self._client.jetstream(timeout=REQUEST_TIMEOUT)  # pyright: ignore[reportUnknownMemberType]
            self._stack = stack.pop_all()

    async def close(self) -> None:
        """Close what was opened here; twice is fine."""
        await self._stack.aclose()

    async def _connected(self, stack: AsyncExitStack) -> Client:
        if self.embedded is not None:
            stack.push_async_callback(anyio.to_thread.run_sync, self.embedded.leave)
            self._urls = [await anyio.to_thread.run_sync(self.embedded.join)]
        stack.push_async_callback(self._revive_no_more)
        client = self._client = Client()
        stack.push_async_callback(_close, client)
        try:
            with anyio.fail_after(CONNECT_PATIENCE):
                await client.connect(
                    self._urls,
                    name=self._name,
                    user_credentials=self._credentials,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=cast("int", RECONNECT_WAIT),
                    error_cb=_noted,
                    disconnected_cb=self._disconnected,
                    reconnected_cb=self._reconnected,
                )
        except TROUBLE as error:
            why = reason(client.last_error or error)
            raise QueueError(
                f"no NATS server at {shown(self._urls)} ({why}); start it or name another"
            ) from None
        return client

    async def _disconnected(self) -> None:
        if self.client.is_closed:
            return
        logger.warning("the NATS server is away; what is held is polled for, ends are kept")
        if self.embedded is not None and (self._reviving is None or self._reviving.done()):
            self._reviving = asyncio.create_task(self._revive(self.embedded))

    async def _reconnected(self) -> None:
        logger.warning("the NATS server is back")

    async def _revive(self, embedded: Embedded) -> None:
        """Start the private server again where whoever had started it is gone."""
        while not (self.client.is_connected or self.client.is_closed):
            try:
                self.client.set_server_pool([await anyio.to_thread.run_sync(embedded.join)])
            except LumaError as error:
                logger.warning("the private NATS server cannot be started: %s", error)
            await asyncio.sleep(REVIVE_EVERY)

    async def _revive_no_more(self) -> None:
        if self._reviving is not None:
            self._reviving.cancel()
            await asyncio.wait([self._reviving])


def shown(urls: Iterable[str]) -> str:
    """Return URLs without the users and passwords in them."""
    return ", ".join(url.rpartition("@")[2].removeprefix("nats://") for url in urls)


def _urls(value: object) -> list[str]:
    remedy = "give one such as nats://127.0.0.1:4222"
    given = value.split(",") if isinstance(value, str) else value
    if not isinstance(given, Sequence) or isinstance(given, bytes):
        raise TypeError(f"nats is of type {type(value).__name__}, not a URL; {remedy}")
    urls = cast("Sequence[object]", given)
    named = [url.strip() for url in urls if isinstance(url, str)]
    if not all(named) or not named or len(named) < len(urls):
        raise ValueError(f"nats is no URL; {remedy}")
    return named


def _state_directory() -> Path:
    if told := os.environ.get("LUMA_DATA"):
        return Path(told)
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "luma-async"


async def _noted(error: Exception) -> None:
    logger.debug("NATS: %s", reason(error))


async def _close(client: Client) -> None:
    with suppress(*TROUBLE):
        if client.is_connected:
            await client.flush(timeout=2)
    with suppress(*TROUBLE):
        await client.close()
