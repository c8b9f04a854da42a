"""The interfaces of the poller: its relay, the waits that it informs, and a shared budget."""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from math import inf
from typing import Protocol, runtime_checkable

from luma_async import validation as checks
from luma_async.protocol.submissions import Submission, Submitted
from luma_async.scheduling.changes import Change, PollAnswer
from luma_async.scheduling.slots import Slots
from luma_async.scheduling.throttle import Limits


class Relay(Protocol):
    """The two HTTP calls that ask about tasks: `Transport`, or `InstrumentedRelay` around it."""

    async def get(self, task_id: str, /) -> PollAnswer:
        """Get one task."""
        ...

    async def get_many(self, ids: Sequence[str], /) -> PollAnswer:
        """Get many tasks by one request."""
        ...


class SubmittingRelay(Relay, Protocol):
    """The calls of a relay, those that submit tasks among them."""

    async def submit(self, submission: Submission, on_write: Callable[[], None], /) -> Submitted:
        """Submit a task, at most once; call `on_write` before the first byte is written."""
        ...


class Watcher(Protocol):
    """A wait that watches ids: `Wait` and, of a `Following`, its `Feed`."""

    @property
    def watched_ids(self) -> Collection[str]:
        """The ids that it watches."""
        ...

    @property
    def needs_rows(self) -> bool:
        """Whether the last row of an open id must be kept for it."""
        ...

    def on_change(self, change: "Change[Watcher]", /) -> None:
        """Receive a change of one id. It must not raise or block."""
        ...

    def abort(self, cause: Exception, /) -> None:
        """End the wait with a cause."""
        ...


@runtime_checkable
class Budget(Protocol):
    """A rate limit that several sessions share: a SharedBudget of `luma_async.worker`."""

    def share(
        self, account: str, slots: Slots, spacing: float, /
    ) -> AbstractAsyncContextManager[None]:
        """Reserve slots for a session while the context is entered.

        `account` identifies the relay and the key, `spacing` is in seconds.
        """
        ...


def checked_budget(budget: Budget | None, limits: Limits) -> Budget | None:
    """Return a shared budget, or None; it needs a rate to share."""
    if budget is None:
        return None
    if limits.max_rate == inf:
        raise ValueError("max_rate is inf; give the total of the budget in limits")
    return checks.instance("budget", budget, Budget, "a SharedBudget of luma_async.worker")
