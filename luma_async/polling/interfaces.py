"""The interfaces of the poller: the relay that it polls, and the waits that it informs."""

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from luma_async.protocol.submissions import Submission, Submitted
from luma_async.scheduling.changes import Change, PollAnswer


class Relay(Protocol):
    """The two HTTP calls that ask a relay about tasks."""

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
    """A wait that watches ids."""

    @property
    def watched_ids(self) -> Collection[str]:
        """The ids that it watches."""
        ...

    def on_change(self, change: "Change[Watcher]", /) -> None:
        """Receive a change of one id. It must not raise or block."""
        ...

    def abort(self, cause: Exception, /) -> None:
        """End the wait with a cause."""
        ...
