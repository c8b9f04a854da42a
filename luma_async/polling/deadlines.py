"""The deadlines of waits, with one timer for all waits that have the same timeout.

Waits with the same timeout end in the order in which they began, so a timer for the first of them
is enough. A timer for each would cost as much as the rest of a wait for one id.
"""

import asyncio
from contextvars import Context
from itertools import takewhile
from typing import Protocol


class Expiring(Protocol):
    """What has a deadline: a `Wait`."""

    def expire(self) -> None:
        """End, because the timeout is over. It must not raise or block."""
        ...


class Deadlines:
    """Call `expire` of each wait at its deadline, in `context`."""

    __slots__ = ("_context", "_loop", "_timers", "_waits")

    def __init__(self, loop: asyncio.AbstractEventLoop, context: Context) -> None:
        self._loop = loop
        self._context = context
        self._waits: dict[float, dict[Expiring, float]] = {}
        self._timers: dict[float, asyncio.TimerHandle] = {}

    def add(self, wait: Expiring, timeout: float) -> float:
        """Add a wait that ends after `timeout` seconds. Return its deadline."""
        deadline = self._loop.time() + timeout
        waits = self._waits.setdefault(timeout, {})
        waits[wait] = deadline
        if len(waits) == 1:
            self._set_timer(timeout, deadline)
        return deadline

    def remove(self, wait: Expiring, timeout: float) -> None:
        """Remove a wait; one that is not in it is ignored."""
        waits = self._waits.get(timeout)
        if waits is not None and waits.pop(wait, None) is not None and not waits:
            del self._waits[timeout]
            self._timers.pop(timeout).cancel()

    def _set_timer(self, timeout: float, when: float) -> None:
        self._timers[timeout] = self._loop.call_at(
            when, self._on_timer, timeout, when, context=self._context
        )

    def _on_timer(self, timeout: float, when: float) -> None:
        """Expire the waits that are due, and set the timer for the next one."""
        # The loop calls a timer up to one tick of its clock early: `when` counts as now.
        now = max(when, self._loop.time())
        waits = self._waits[timeout]
        due = [wait for wait, _ in takewhile(lambda one: one[1] <= now, waits.items())]
        try:
            for wait in due:
                if wait in waits:
                    self.remove(wait, timeout)
                    wait.expire()
        finally:
            if waits:
                self._set_timer(timeout, next(iter(waits.values())))
