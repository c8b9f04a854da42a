"""A relay in a thread of its own, for what runs a loop itself: the command line."""

import asyncio
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

from luma_async.testing import FakeRelay

T = TypeVar("T")
PATIENCE = 30.0


class Served:
    """A relay that runs elsewhere; `do` does something with it there."""

    def __init__(self, relay: FakeRelay, loop: asyncio.AbstractEventLoop) -> None:
        self.relay = relay
        self.url = relay.url
        self._loop = loop

    def do(self, act: Callable[[], T]) -> T:
        async def acted() -> T:
            return act()

        return asyncio.run_coroutine_threadsafe(acted(), self._loop).result(PATIENCE)

    def add(self, *args: Any, **script: Any) -> str:
        return self.do(lambda: self.relay.add(*args, **script))


@contextmanager
def served(**options: Any) -> Generator[Served]:
    """Let a relay run until the end of the block."""
    begun, over = threading.Event(), threading.Event()
    found: list[Served] = []

    async def serve() -> None:
        async with FakeRelay(**options) as relay:
            found.append(Served(relay, asyncio.get_running_loop()))
            begun.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert begun.wait(PATIENCE)
    try:
        yield found[0]
    finally:
        over.set()
        thread.join()
