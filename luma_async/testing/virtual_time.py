"""Virtual time: an event loop whose clock is a number, so that an hour takes a moment.

The loop runs the callbacks that are ready. If none is ready, and no byte is in flight on loopback,
nothing can happen before the next timer: the clock jumps to it instead of sleeping. This is correct
only if everything that can wake the loop runs in the loop. Jobs of `run_in_executor` are the one
exception: while such a job runs, the loop waits in real time. The loop cannot know of a server or a
client in another process, or in any other thread.
"""

import asyncio
import math
import selectors
import sys
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

if TYPE_CHECKING:
    from concurrent.futures import Executor

    import pytest

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

_LONG_JUMP = 1.0  # virtual seconds
_LONG_JUMP_WAIT = 0.001  # real seconds
_SHORT_JUMP_POLLS = 5
_STUCK_TIMEOUT = 2.0  # real seconds
_TEN_YEARS = 3.2e8  # seconds

_STUCK = (
    "this VirtualTimeLoop has no timer, and nothing happened for "
    f"{_STUCK_TIMEOUT:g} real seconds: its tasks wait for each other or for something outside of "
    "the loop; run that in this loop or with run_in_executor, or use a loop with real time"
)


class _JumpingSelector(selectors.DefaultSelector):
    """Waits by an increase of `now`; in real time only for jobs in threads and bytes in flight."""

    def __init__(self, now: float) -> None:
        super().__init__()
        self.now = now
        self.jobs = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return self._wait_for_outside()
        ready = super().select(timeout if self.jobs else 0)
        if ready or timeout <= 0 or (ready := self._poll_loopback(timeout)):
            return ready
        self.now += timeout
        return ready

    def _wait_for_outside(self) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(None if self.jobs else _STUCK_TIMEOUT)
        if not ready:
            raise RuntimeError(_STUCK)
        return ready

    def _poll_loopback(self, jump: float) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait a moment in real time for bytes in flight on loopback, before a jump of the clock.

        A jump of less than a second delays a byte in flight by that time: as from a slow relay. A
        longer jump may pass a timeout, so it waits a millisecond first. With the self-pipe of the
        loop as the only file there is nothing to wait for.
        """
        if len(self.get_map()) == 1:
            return []
        if jump >= _LONG_JUMP:
            return super().select(_LONG_JUMP_WAIT)
        for _ in range(_SHORT_JUMP_POLLS):
            if ready := super().select(0):
                return ready
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer instead of sleeping.

    `start` is the first value of `time()`, in seconds. Use the class as a loop factory:
    `asyncio.Runner(loop_factory=VirtualTimeLoop)`. Servers and clients on 127.0.0.1 work if both
    are in this loop. Subprocesses, servers elsewhere and other threads (such as those of
    `anyio.to_thread`) do not work. While a job of `run_in_executor` runs, such as a name lookup,
    the loop waits in real time.

    A loop without timers in which nothing happens would hang: it raises RuntimeError after two real
    seconds. Raises ValueError if `start` is not finite.
    """

    def __init__(self, start: float = 0.0) -> None:
        self._jumping = _JumpingSelector(float(start))
        super().__init__(self._jumping)
        if not math.isfinite(start):
            self.close()
            raise ValueError(f"start is {start!r}: give it as a finite number of seconds")
        # asyncio runs the timers due before time() + resolution. Below one ulp that sum is time()
        # itself, and the timer that the clock jumped to would never be due.
        self._clock_resolution = math.ulp(abs(start) + _TEN_YEARS)

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._jumping.now

    def run_in_executor(
        self,
        executor: "Executor | None",
        func: Callable[[*_Ts], _T],
        *args: *_Ts,
    ) -> asyncio.Future[_T]:
        """Run `func` in a thread; until it is done or cancelled, the loop waits in real time."""
        job = super().run_in_executor(executor, func, *args)
        self._jumping.jobs += 1
        job.add_done_callback(self._on_job_done)
        return job

    def _on_job_done(self, _job: asyncio.Future[Any]) -> None:
        self._jumping.jobs -= 1

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Join the threads of the executor; from Python 3.12, `timeout` real seconds at most."""
        self._jumping.jobs += 1
        try:
            if sys.version_info >= (3, 12):
                await super().shutdown_default_executor(timeout)
            else:
                await super().shutdown_default_executor()
        finally:
            self._jumping.jobs -= 1


def run_virtual(coro: Coroutine[Any, Any, _T], *, start: float = 0.0) -> _T:
    """Run a coroutine on a new `VirtualTimeLoop`, and return its result.

    `start` is the first time of the loop, in seconds. Raises the exception of the coroutine.
    """
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(start)) as runner:
        return runner.run(coro)


def loop_factories(item: "pytest.Item") -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Return the loop factory of a test: VirtualTimeLoop if it has the marker `virtual_time`.

    Other tests get asyncio's own loop. Return it from the hook of pytest-asyncio in your conftest:
    `pytest_asyncio_loop_factories(config, item)`.
    """
    if item.get_closest_marker("virtual_time") is not None:
        return {"virtual": VirtualTimeLoop}
    return {"asyncio": asyncio.new_event_loop}
