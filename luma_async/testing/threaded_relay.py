"""A FakeRelay in a thread of its own, for tests that block their event loop or have none."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from luma_async.testing.relay import FakeRelay

_Method = TypeVar("_Method", bound=Callable[..., Any])
_T = TypeVar("_T")

_CALL_TIMEOUT = 10.0  # seconds


class _LoopThread:
    """A thread that runs an event loop until `stop`."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._loop = self._runner.get_loop()
        self._stopped = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, name="luma-relay", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with self._runner:
            self._runner.run(self._wait_until_stopped())

    async def _wait_until_stopped(self) -> None:
        await self._stopped.wait()

    def run(self, coro: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(coro, self._loop).result(_CALL_TIMEOUT)

    def call(self, function: Callable[[], _T]) -> _T:
        """Call a function in the loop; also from the thread itself."""
        if threading.current_thread() is self._thread:
            return function()

        async def run() -> _T:
            return function()

        return self.run(run())

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(_CALL_TIMEOUT)


def _in_the_thread(method: _Method) -> _Method:  # pyright: ignore[reportUnusedFunction]
    @wraps(method)
    def call(self: "ThreadedRelay", *args: Any, **kwargs: Any) -> Any:
        return self.call(lambda: method(self, *args, **kwargs))

    return cast("_Method", call)


class ThreadedRelay(FakeRelay):
    """A `FakeRelay` that runs in a thread with an event loop of its own.

    Use it as a context manager (`with`, not `async with`), from any thread: in a test without an
    event loop, or with code that blocks the loop, such as FastAPI's `TestClient`. It has the
    arguments and the methods of `FakeRelay`; its methods run in the loop of the thread. Its clock
    is real: virtual time needs a `FakeRelay` in the loop of the test.
    """

    _loop_thread: _LoopThread | None = None

    def __enter__(self) -> Self:
        if self._loop_thread is not None:
            raise RuntimeError("this ThreadedRelay is started already: leave its `with` block")
        thread = _LoopThread()
        try:
            thread.run(super().start())
        except BaseException:
            thread.stop()
            raise
        self._loop_thread = thread
        return self

    def __exit__(self, *error: object) -> None:
        thread, self._loop_thread = self._loop_thread, None
        if thread is not None:
            try:
                thread.run(super().close())
            finally:
                thread.stop()
            self._check_use(error)

    async def start(self) -> None:
        """Raise RuntimeError: a ThreadedRelay is started by `with`."""
        raise RuntimeError("a ThreadedRelay runs in a thread of its own; start it by `with`")

    async def close(self) -> None:
        """Raise RuntimeError: a ThreadedRelay is closed at the end of its `with` block."""
        raise RuntimeError("a ThreadedRelay is closed at the end of its `with` block; leave that")

    def call(self, function: Callable[[], _T]) -> _T:
        """Run a function in the thread of the relay, and return its result.

        Raises the exception of the function, and RuntimeError if the relay is not started.
        """
        if self._loop_thread is None:
            raise RuntimeError("this ThreadedRelay does not run; start it by `with` first")
        return self._loop_thread.call(function)

    if not TYPE_CHECKING:  # the signatures are those of FakeRelay
        add = _in_the_thread(FakeRelay.add)
        submit = _in_the_thread(FakeRelay.submit)
        finish = _in_the_thread(FakeRelay.finish)
        forget = _in_the_thread(FakeRelay.forget)
        reply = _in_the_thread(FakeRelay.reply)
        busiest_second = _in_the_thread(FakeRelay.busiest_second)
