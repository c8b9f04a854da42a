"""Virtual time: an event loop whose clock is a number, so that an hour takes a moment.

The loop runs what is ready. When nothing is, and no byte is on its way through loopback, nothing
can happen before the next timer: the clock jumps there instead of sleeping. That holds only while
all that can wake the loop lives in it. A job handed to `run_in_executor` is the one exception: as
long as one is under way the loop waits for real. A server or a client in another process, or in a
thread that is not an executor's, is not seen coming.
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

_LONG_JUMP_WAIT = 0.001
_LONG_JUMP = 1.0
_SHORT_JUMP_LOOKS = 5
_STUCK_AFTER = 2.0
_TEN_YEARS = 3.2e8

_STUCK = (
    f"nothing is scheduled in this VirtualTimeLoop and nothing came for {_STUCK_AFTER:g} real "
    "seconds: all of its tasks wait for each other or for something outside of it; bring what they "
    "wait for into this loop, hand it to run_in_executor, or use a loop with real time"
)


class _JumpingSelector(selectors.DefaultSelector):
    """Waits by adding to `now`, and for real only for jobs in threads and bytes in flight."""

    def __init__(self, now: float) -> None:
        super().__init__()
        self.now = now
        self.jobs = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return self._wait_for_outside()
        ready = super().select(timeout if self.jobs else 0)
        if ready or timeout <= 0 or (ready := self._last_look(timeout)):
            return ready
        self.now += timeout
        return ready

    def _wait_for_outside(self) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(None if self.jobs else _STUCK_AFTER)
        if not ready:
            raise RuntimeError(_STUCK)
        return ready

    def _last_look(self, jump: float) -> list[tuple[selectors.SelectorKey, int]]:
        """Give loopback a real moment; the loop's own self-pipe alone never needs it.

        A byte that is late by a jump of less than a second is a slow relay at worst. A longer jump
        may pass a timeout, and is worth a millisecond.
        """
        if len(self.get_map()) == 1:
            return []
        if jump >= _LONG_JUMP:
            return super().select(_LONG_JUMP_WAIT)
        for _ in range(_SHORT_JUMP_LOOKS):
            if ready := super().select(0):
                return ready
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose `time()` is a number that jumps to the next timer instead of sleeping.

    `start` and `time()` are seconds. While a job of `run_in_executor` is under way (name lookups
    are such jobs) the loop waits for real. When nothing is scheduled and nothing comes, the test
    would hang: a RuntimeError after two real seconds instead. Use it as a loop factory:
    `asyncio.Runner(loop_factory=VirtualTimeLoop)`. Servers and clients on 127.0.0.1 work when both
    are in this loop; subprocesses, servers elsewhere and threads that are not an executor's
    (`anyio.to_thread` has its own) do not.
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
        """Tell the virtual time, in seconds; it was `start` when the loop was made."""
        return self._jumping.now

    def run_in_executor(
        self,
        executor: "Executor | None",
        func: Callable[[*_Ts], _T],
        *args: *_Ts,
    ) -> asyncio.Future[_T]:
        """Run `func` in a thread; the loop waits for real until it has ended or is cancelled."""
        job = super().run_in_executor(executor, func, *args)
        self._jumping.jobs += 1
        job.add_done_callback(self._job_ended)
        return job

    def _job_ended(self, _job: asyncio.Future[Any]) -> None:
        self._jumping.jobs -= 1

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Join the executor's threads; waits for real, `timeout` real seconds at most (3.12)."""
        self._jumping.jobs += 1
        try:
            if sys.version_info >= (3, 12):
                await super().shutdown_default_executor(timeout)
            else:
                await super().shutdown_default_executor()
        finally:
            self._jumping.jobs -= 1


def run_virtual(coro: Coroutine[Any, Any, _T], *, start: float = 0.0) -> _T:
    """Run a coroutine on a `VirtualTimeLoop` of its own and give back its result.

    `start` is the loop's first `time()`, in seconds. Raises what the coroutine raises.
    """
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(start)) as runner:
        return runner.run(coro)


def loop_factories(item: "pytest.Item") -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Choose the loop of a test: virtual time if it is marked `virtual_time`, asyncio's own if not.

    For your conftest: return it from pytest-asyncio's hook
    `pytest_asyncio_loop_factories(config, item)`.
    """
    if item.get_closest_marker("virtual_time") is not None:
        return {"virtual": VirtualTimeLoop}
    return {"asyncio": asyncio.new_event_loop}
