"""The connection to a NATS server: a given one, one that is named, or the private one."""

import asyncio
import logging
import os
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

import anyio
import anyio.to_thread
from nats.aio.client import Client
from nats.js import JetStreamContext

from luma_async.errors import LumaError, QueueError
from luma_async.worker.embedded_server import EmbeddedServer
from luma_async.worker.streams import NATS_ERRORS, reason

logger: logging.Logger = logging.getLogger("luma_async")

Nats: TypeAlias = str | Sequence[str] | Client
T = TypeVar("T")

CONNECT_TIMEOUT = 10.0
RECONNECT_DELAY = 0.25
REQUEST_TIMEOUT = 5.0
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
        if data is not None and not os.fspath(data):
            raise ValueError("data is empty; give a directory")
        if nats is None and data is None:
            nats = os.environ.get("LUMA_NATS") or None
        self.embedded: EmbeddedServer | None = (
            None if nats is not None else EmbeddedServer(data or _state_directory())
        )
        self._given = nats if isinstance(nats, Client) else None
        self._urls = [] if nats is None or isinstance(nats, Client) else _urls(nats)
        self._credentials = None if credentials is None else os.fspath(credentials)
        self._name = name
        self._client: Client | None = None
        self._js: JetStreamContext | None = None
        self._stack = AsyncExitStack()
        self._reviving: asyncio.Task[None] | None = None
        self._said: set[str] = set()
        self._closed = False

    def __repr__(self) -> str:
        if self.embedded is not None:
            return f"{self.embedded!r}"
        return without_credentials(self._urls) or "a client of yours"

    @property
    def client(self) -> Client:
        """The connected client."""
        return self._entered(self._client)

    @property
    def is_connected(self) -> bool:
        """Whether it is open, and the server is there."""
        return not self._closed and self._client is not None and self._client.is_connected

    @property
    def js(self) -> JetStreamContext:
        """JetStream on this connection."""
        return self._entered(self._js)

    def _entered(self, what: T | None) -> T:
        if self._closed:
            raise QueueError("the queue is closed; enter another one")
        if what is None:
            raise RuntimeError("the queue is not entered; use `async with Queue(…) as queue`")
        return what

    async def open(self) -> None:
        """Connect; once."""
        if self._client is not None:
            raise RuntimeError("the queue is already entered; enter it once")
        try:
            self._client = self._given or await self._connected()
            if not self._client.is_connected:
                raise QueueError("the NATS client is not connected; connect it first")
            self._js = self._client.jetstream(timeout=REQUEST_TIMEOUT)  # pyright: ignore[reportUnknownMemberType]
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close what was opened here, whoever is cancelled meanwhile; twice is fine."""
        self._closed = True
        with anyio.CancelScope(shield=True):
            await self._stack.aclose()

    async def _connected(self) -> Client:
        if self.embedded is not None:
            self._stack.push_async_callback(anyio.to_thread.run_sync, self.embedded.leave)
            self._urls = [await anyio.to_thread.run_sync(self.embedded.join)]
        self._stack.push_async_callback(self._stop_reviving)
        client = self._client = Client()
        self._stack.push_async_callback(_close, client)
        try:
            with anyio.fail_after(CONNECT_TIMEOUT):
                await _uncancelled(
                    client.connect(
                        self._urls,
                        name=self._name,
                        user_credentials=self._credentials,
                        max_reconnect_attempts=-1,
                        reconnect_time_wait=cast("int", RECONNECT_DELAY),
                        error_cb=self._on_error,
                        disconnected_cb=self._on_disconnect,
                        reconnected_cb=self._on_reconnect,
                    )
                )
        except (*NATS_ERRORS, ValueError, ImportError) as error:
            why = reason(client.last_error or error)
            known = "authorization" in why.lower()
            remedy = (
                "check its user, password or credentials" if known else "start it or name another"
            )
            if isinstance(error, ImportError):
                remedy = "pip install 'luma-async[worker]'"
            raise QueueError(
                f"no NATS server at {without_credentials(self._urls)} ({why}); {remedy}"
            ) from None
        return client

    async def _on_error(self, error: Exception) -> None:
        """Log each kind of trouble once, until the server is back."""
        if (said := f"NATS: {reason(error)}") not in self._said:
            self._said.add(said)
            logger.log(logging.WARNING if self._js else logging.DEBUG, "%s", said)

    async def _on_disconnect(self) -> None:
        if self._closed or self.client.is_closed:
            return
        logger.warning("the NATS server is away; what is held is polled for, ends are kept")
        if self.embedded is not None and (self._reviving is None or self._reviving.done()):
            self._reviving = asyncio.create_task(self._revive(self.embedded))

    async def _on_reconnect(self) -> None:
        logger.warning("the NATS server is back")
        self._said.clear()

    async def _revive(self, embedded: EmbeddedServer) -> None:
        """Start the private server again where whoever had started it is gone."""
        while not (self._closed or self.client.is_connected or self.client.is_closed):
            try:
                self.client.set_server_pool([await anyio.to_thread.run_sync(embedded.join)])
            except (LumaError, *NATS_ERRORS) as error:
                logger.warning("the private NATS server cannot be started: %s", reason(error))
            await asyncio.sleep(REVIVE_EVERY)

    async def _stop_reviving(self) -> None:
        if self._reviving is not None:
            self._reviving.cancel()
            await asyncio.wait([self._reviving])


def without_credentials(urls: Iterable[str]) -> str:
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


async def _uncancelled(connecting: Coroutine[Any, Any, None]) -> None:
    """Await what may lose a cancellation, as Python 3.11's `wait_for` does, and lose none."""
    task = asyncio.create_task(connecting)
    try:
        await asyncio.wait([task])
    except BaseException:
        task.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
        raise
    task.result()


async def _close(client: Client) -> None:
    with suppress(*NATS_ERRORS, AssertionError):  # it asserts that it was connected once
        await client.close()
