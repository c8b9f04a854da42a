"""Resolve host names in threads that no one waits for.

asyncio resolves names in its default executor, and `asyncio.run` waits for the threads of that
executor: a resolver that hangs for 25 seconds keeps the process for as long. The threads here are
daemons: the loop, and then the process, ends without them.
"""

import asyncio
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, ParamSpec, TypeVar

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

P = ParamSpec("P")
T = TypeVar("T")

_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
_ADDRESS_LENGTHS = {socket.AF_INET: 2, socket.AF_INET6: 4}


class DaemonExecutor(Executor):
    """Run each call in a daemon thread of its own.

    It is meant for a few calls: there is no limit and no queue.
    """

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Start a call, and return its future."""
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=run, name="luma-async-resolver", daemon=True).start()
        return future


class DaemonResolver(AbstractResolver):
    """Resolve host names by `socket.getaddrinfo` in daemon threads."""

    def __init__(self) -> None:
        self._executor = DaemonExecutor()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a host; raise OSError if it has none."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, _look_up, host, port, family)

    async def close(self) -> None:
        """Do nothing: a call that hangs is not waited for."""


def resolve_in_daemons(loop: asyncio.AbstractEventLoop) -> None:
    """Let a loop look up names in daemon threads, for clients that have no resolver, as of NATS."""

    async def getaddrinfo(host: Any, port: Any, **options: int) -> Any:
        look_up = partial(socket.getaddrinfo, host, port, **options)
        return await loop.run_in_executor(DaemonExecutor(), look_up)

    loop.getaddrinfo = getaddrinfo  # type: ignore[method-assign]


def new_resolver() -> AbstractResolver:
    """Return a resolver that does not keep the process: aiohttp's own if aiodns is installed."""
    default = aiohttp.DefaultResolver
    return DaemonResolver() if default is aiohttp.ThreadedResolver else default()


def _look_up(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    results: list[ResolveResult] = []
    for kind, _, proto, _, address in found:
        if len(address) != _ADDRESS_LENGTHS.get(kind):
            continue  # a Python without IPv6 has the family and bytes in place of an address
        zone = next(iter(address[3:]), 0)
        results.append(
            ResolveResult(
                hostname=host,
                host=f"{address[0]!s}%{zone}" if zone else str(address[0]),
                port=port,
                family=kind,
                proto=proto,
                flags=_NUMERIC,
            )
        )
    return results
