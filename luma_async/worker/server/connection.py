"""The connection to a NATS server: the caller's client, a server by its URL, or a private server.

A lost connection is opened again by nats-py. If the server is a private one that has ended, this
module starts it again first; and after each reconnect it checks that no other process has taken the
port.
"""

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
from luma_async.extras import install_command
from luma_async.worker.server.embedded_server import EmbeddedServer
from luma_async.worker.server.server_errors import Denials, refusal
from luma_async.worker.server.stream_info import REQUEST_TIMEOUT
from luma_async.worker.server.streams import NATS_ERRORS, is_transient, reason

logger: logging.Logger = logging.getLogger("luma_async")

Nats: TypeAlias = str | Sequence[str] | Client
T = TypeVar("T")

CONNECT_TIMEOUT = 10.0  # seconds
RECONNECT_DELAY = 0.25  # seconds
MORE_CONNECTIONS = "raise the limit of the server, or close other clients"
CANCEL_EVERY = 0.1  # seconds
RESTART_EVERY = 1.0  # seconds between two attempts to start the private server again


class Connection:
    """A connection that reconnects. `embedded` is the private server, if that is the one used."""

    def __init__(
        self,
        nats: Nats | None,
        data: str | os.PathLike[str] | None,
        credentials: str | os.PathLike[str] | None,
        pool: str,
    ) -> None:
        if nats is not None and data is not None:
            raise ValueError("nats and data both name a server; give one of them")
        if data is not None and not os.fspath(data):
            raise ValueError("data is empty; give a directory")
        if nats is None and data is None:
            nats = os.environ.get("LUMA_NATS") or None
        self.embedded: EmbeddedServer | None = (
            None if nats is not None else EmbeddedServer(data or _state_directory())
        )
        self._given_client = nats if isinstance(nats, Client) else None
        self._urls = [] if nats is None or isinstance(nats, Client) else _parse_urls(nats)
        self._credentials = None if credentials is None else os.fspath(credentials)
        self._name = f"luma-async {pool}"
        self.denials: Denials = Denials(f"{pool}.workers")
        self._client: Client | None = None
        self._js: JetStreamContext | None = None
        self._stack = AsyncExitStack()
        self._restarting: asyncio.Task[None] | None = None
        self._logged: set[str] = set()
        self._asking: asyncio.Task[None] | None = None
        self._closed = False

    def __repr__(self) -> str:
        if self.embedded is not None:
            return f"{self.embedded!r}"
        return without_credentials(self._urls) or "the client given as nats"

    @property
    def client(self) -> Client:
        """The connected client. Raises RuntimeError before `open`, QueueError after `close`."""
        return self._opened(self._client)

    @property
    def is_connected(self) -> bool:
        """Whether the connection is open and the server is reachable."""
        return not self._closed and self._client is not None and self._client.is_connected

    @property
    def js(self) -> JetStreamContext:
        """JetStream on this connection. Raises as `client` does."""
        return self._opened(self._js)

    def _opened(self, value: T | None) -> T:
        if self._closed:
            raise QueueError("the queue is closed; enter another one")
        if value is None:
            raise RuntimeError("the queue is not entered; use `async with Queue(…) as queue`")
        return value

    def is_transient(self, error: Exception) -> bool:
        """Return whether a request is to be repeated: no server answered, and none denied it."""
        return is_transient(error) and self.denials.error() is None

    async def open(self) -> None:
        """Connect. Raises RuntimeError if called twice, QueueError if no server answers."""
        if self._client is not None:
            raise RuntimeError("the queue is already entered; enter it once")
        try:
            self._client = self._given_client or await self._connect()
            if not self._client.is_connected:
                raise QueueError("the NATS client is not connected; connect it first")
            self._js = self._client.jetstream(timeout=REQUEST_TIMEOUT)  # pyright: ignore[reportUnknownMemberType]
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close what `open` opened, even if the caller is cancelled. May be called again."""
        self._closed = True
        with anyio.CancelScope(shield=True):
            await self._stack.aclose()

    async def _connect(self) -> Client:
        if self.embedded is not None:
            self._stack.push_async_callback(anyio.to_thread.run_sync, self.embedded.leave)
            self._urls = [await anyio.to_thread.run_sync(self.embedded.join)]
        self._stack.push_async_callback(self._stop_tasks)
        client = self._client = Client()
        self._stack.push_async_callback(close_client, client)
        try:
            with anyio.fail_after(CONNECT_TIMEOUT):
                await await_cancellable(
                    client.connect(
                        self._urls,
                        name=self._name,
                        user_credentials=self._credentials,
                        nkeys_seed=str(self.embedded.seed_file) if self.embedded else None,
                        max_reconnect_attempts=-1,
                        reconnect_time_wait=cast("int", RECONNECT_DELAY),
                        error_cb=self._on_error,
                        disconnected_cb=self._on_disconnect,
                        reconnected_cb=self._on_reconnect,
                    )
                )
        except (*NATS_ERRORS, ValueError, ImportError) as error:
            cause = await refusal(self._urls) or reason(client.last_error or error)
            if isinstance(error, ImportError):
                remedy = install_command("worker")
            elif "authorization" in cause.lower():
                remedy = "check its user, password or credentials"
            elif "maximum" in cause.lower():
                remedy = MORE_CONNECTIONS
            else:
                remedy = "start it or name another"
            raise QueueError(
                f"no NATS server at {without_credentials(self._urls)} ({cause}); {remedy}"
            ) from None
        if self.embedded is not None and not self._is_own_server(self.embedded):
            raise QueueError(f"another server uses the port of {self.embedded!r}; try again")
        return client

    async def _on_error(self, error: Exception) -> None:
        """Log each error message once, until the connection is restored."""
        self.denials.record(str(error))
        if not self._log_once(f"NATS: {reason(error)}") or not self._js or self._closed:
            return
        if not self.client.is_connected and (self._asking is None or self._asking.done()):
            self._asking = asyncio.create_task(self._quote_refusal())

    async def _quote_refusal(self) -> None:
        """Log that the server has too many connections; nats-py takes that for a lost one."""
        cause = await refusal(self._urls)
        if "maximum" in cause.lower():
            self._log_once(f"NATS refuses the connection: {cause}; {MORE_CONNECTIONS}")

    def _log_once(self, message: str) -> bool:
        if message in self._logged:
            return False
        self._logged.add(message)
        logger.log(logging.WARNING if self._js else logging.DEBUG, "%s", message)
        return True

    async def _on_disconnect(self) -> None:
        # Called before the first attempt to reconnect.
        if self._closed or self.client.is_closed:
            return
        logger.warning("NATS connection lost: reconnecting; workers poll and keep their results")
        if self.embedded is not None:
            await self._use_own_server(self.embedded)
            self._start_restarting(self.embedded)

    async def _on_reconnect(self) -> None:
        logger.warning("NATS connection restored")
        self._logged.clear()
        if self.embedded is not None and not self._is_own_server(self.embedded):
            self._start_restarting(self.embedded)

    def _is_own_server(self, embedded: EmbeddedServer) -> bool:
        """Return whether the client is connected to the private server, by the server's own file.

        Another process may listen on the port of a private server that has ended.
        """
        url = self.client.connected_url
        return url is not None and url.port is not None and embedded.is_ours(url.port)

    def _start_restarting(self, embedded: EmbeddedServer) -> None:
        if self._restarting is None or self._restarting.done():
            self._restarting = asyncio.create_task(self._restart(embedded))

    async def _restart(self, embedded: EmbeddedServer) -> None:
        """Start the private server again if it has ended, until the client is connected to it."""
        while not (self._closed or self.client.is_closed or self._is_own_server(embedded)):
            await self._use_own_server(embedded)
            await asyncio.sleep(RESTART_EVERY)

    async def _use_own_server(self, embedded: EmbeddedServer) -> None:
        """Start the private server if it has ended, and let the client connect to it only."""
        try:
            url = await anyio.to_thread.run_sync(embedded.join)
            is_foreign = self.client.is_connected and not self._is_own_server(embedded)
            self.client.set_server_pool([url])
        except (LumaError, *NATS_ERRORS) as error:
            logger.warning("the private NATS server does not start: %s; retrying", reason(error))
            return
        if is_foreign:
            logger.warning("another server uses the port of the private NATS server; leaving it")
            await self.client.force_reconnect()

    async def _stop_tasks(self) -> None:
        await cancel([task for task in (self._restarting, self._asking) if task is not None])


def without_credentials(urls: Iterable[str]) -> str:
    """Return the URLs as text, without user names and passwords."""
    return ", ".join(url.rpartition("@")[2].removeprefix("nats://") for url in urls)


def _parse_urls(value: object) -> list[str]:
    remedy = "give one such as nats://127.0.0.1:4222"
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, Sequence) or isinstance(items, bytes):
        raise TypeError(f"nats is of type {type(value).__name__}, not a URL; {remedy}")
    items = cast("Sequence[object]", items)
    urls = [item.strip() for item in items if isinstance(item, str)]
    if not all(urls) or not urls or len(urls) < len(items):
        raise ValueError(f"nats is not a URL; {remedy}")
    return urls


def _state_directory() -> Path:
    if directory := os.environ.get("LUMA_DATA"):
        return Path(directory)
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "luma-async"


async def cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended: `wait_for` of Python 3.11 may swallow a cancellation."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_EVERY)


async def await_cancellable(coroutine: Coroutine[Any, Any, object]) -> None:
    """Await a coroutine that may swallow a cancellation, as `wait_for` of Python 3.11 does.

    The caller's cancellation is always raised.
    """
    task = asyncio.create_task(coroutine)
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


async def close_client(client: Client) -> None:
    """Close a client, whatever it is doing."""
    with suppress(*NATS_ERRORS, AssertionError):  # nats-py asserts that it was connected
        await client.close()
    # nats-py cancels the task that reconnects once.
    task = client._reconnection_task  # pyright: ignore[reportPrivateUsage]
    if task is not None:
        await cancel([task])
