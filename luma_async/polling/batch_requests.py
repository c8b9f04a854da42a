"""The requests of the poller that are in flight: a task for each, given up if it hangs.

One id can make its batch hang. So a batch that takes far longer than requests took lately is given
up before `request_timeout`: the first time early, the second time after twice as long.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
from math import inf
from typing import Any

from luma_async.errors import RequestTimeout
from luma_async.polling.interfaces import Watcher
from luma_async.scheduling.batches import Batch
from luma_async.scheduling.changes import PollAnswer

MIN_BATCH_TIMEOUT = 5.0  # seconds
FIRST_BATCH_TIMEOUT = 10.0  # seconds, until a request was answered
TIMEOUT_FACTOR = 10.0  # times the slowest round trip lately
SLOWEST_DECAY = 0.95  # of the slowest round trip, with each response


class BatchRequests:
    """Run a task for each batch in flight, and pass its outcome to `on_done`.

    The outcome is the response, or an error; CancelledError after `cancel`, None after
    `drop_all`. The tasks and the calls of `on_done` run in `context`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: Context,
        request_timeout: float,
        on_done: Callable[[Batch[Watcher], PollAnswer | BaseException | None], None],
    ) -> None:
        self._loop = loop
        self._context = context
        self._request_timeout = request_timeout
        self._report = on_done
        self._slowest: float | None = None
        self._tasks: dict[Batch[Watcher], asyncio.Task[PollAnswer]] = {}
        self._timeouts: dict[Batch[Watcher], asyncio.TimerHandle] = {}
        self._timed_out: dict[Batch[Watcher], RequestTimeout] = {}

    def send(self, batch: Batch[Watcher], request: Coroutine[Any, Any, PollAnswer]) -> None:
        """Start the request of a batch."""
        # Not by the loop's task factory: an eager one would run it before it is registered.
        task = asyncio.Task(request, loop=self._loop)
        task.add_done_callback(partial(self._on_done, batch), context=self._context)
        self._tasks[batch] = task
        if (timeout := self._timeout_of(batch)) < self._request_timeout:
            self._timeouts[batch] = self._loop.call_later(timeout, self._give_up, batch, timeout)

    def record_round_trip(self, duration: float) -> None:
        """Record how many seconds a request took that was answered."""
        self._slowest = max(duration, SLOWEST_DECAY * (self._slowest or 0.0))

    def cancel(self, batch: Batch[Watcher]) -> None:
        """Cancel the request of a batch."""
        self._tasks[batch].cancel()

    def drop_all(self) -> None:
        """Cancel all requests; their outcome is None."""
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    async def wait_until_done(self) -> None:
        """Wait until no request is in flight."""
        if self._tasks:
            await asyncio.wait(self._tasks.values())

    def _timeout_of(self, batch: Batch[Watcher]) -> float:
        """Return after how many seconds a batch is given up."""
        if self._slowest is None:
            return FIRST_BATCH_TIMEOUT if len(batch.items) > 1 and batch.attempt == 1 else inf
        timeout = max(MIN_BATCH_TIMEOUT, TIMEOUT_FACTOR * self._slowest)
        return 2.0 * timeout if batch.attempt == 2 else timeout

    def _give_up(self, batch: Batch[Watcher], timeout: float) -> None:
        if (task := self._tasks.get(batch)) is not None:
            self._timed_out[batch] = RequestTimeout(f"no answer within {timeout:.3g} s")
            task.cancel()

    def _on_done(self, batch: Batch[Watcher], task: "asyncio.Future[PollAnswer]") -> None:
        if (timer := self._timeouts.pop(batch, None)) is not None:
            timer.cancel()
        timed_out = self._timed_out.pop(batch, None)
        if self._tasks.pop(batch, None) is None:
            self._report(batch, None)
        elif task.cancelled():
            self._report(batch, timed_out or asyncio.CancelledError())
        else:
            self._report(batch, task.exception() or task.result())
