"""The interfaces of the poller: the relay that it polls, and the waits that it informs."""

from collections.abc import Collection, Sequence
from typing import Protocol

from luma_async.scheduling.changes import Change, PollAnswer


class Relay(Protocol):
    """The two HTTP calls of a relay."""

    async def get(self, task_id: str, /) -> PollAnswer:
        """Get one task."""
        ...

    async def get_many(self, ids: Sequence[str], /) -> PollAnswer:
        """Get many tasks by one request."""
        ...


class Watcher(Protocol):
    """A wait that watches ids."""

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
