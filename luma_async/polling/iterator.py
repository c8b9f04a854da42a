"""The iterator of `as_completed` and `watch`."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Self

from luma_async.errors import LumaError
from luma_async.polling.wait import Wait
from luma_async.structs import Generation


class Reader(AsyncIterator[Generation]):
    """Iterate once, by `async for`, over the tasks of one wait as they end or change.

    It may be left at any time: by `break`, by an exception, by `aclose`. It is a class, not an
    async generator, so that leaving early runs no cleanup in another task.
    """

    def __init__(self, wait: Wait) -> None:
        self._wait = wait
        self._beginning = self._begun = self._over = False
        self._loop = asyncio.get_running_loop()
        self._process = os.getpid()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Generation:
        self._wait.check_home()
        if self._over:
            raise StopAsyncIteration
        if not self._begun:
            await self._begin()
        try:
            more = await self._wait.wait_for_news()
        except asyncio.CancelledError:
            self._wait.detach_later()
            raise
        except LumaError:
            await self.aclose()
            raise
        if not more:
            await self.aclose()
            raise StopAsyncIteration
        return self._wait.take_news()

    async def _begin(self) -> None:
        if self._beginning:
            raise RuntimeError("two tasks read one iterator at once; give each its own")
        self._beginning = True
        try:
            await self._wait.start()
        except Exception:
            await self.aclose()
            raise
        finally:
            self._beginning = False
        self._begun = True

    async def aclose(self) -> None:
        """Leave the wait; the iteration is over."""
        self._wait.check_home()
        self._over = True
        self._wait.stop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if not self._over and os.getpid() == self._process:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._wait.stop)
