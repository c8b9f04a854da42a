"""What the poller asks of a relay, and what it tells a wait."""

from collections.abc import Collection, Sequence
from typing import Protocol

from luma_async.scheduling.changes import Change, PollAnswer


class Relay(Protocol):
    """The two calls, whoever makes them."""

    async def get(self, task_id: str, /) -> PollAnswer:
        """Ask about one task."""
        ...

    async def get_many(self, ids: Sequence[str], /) -> PollAnswer:
        """Ask about many tasks at once."""
        ...


class Watcher(Protocol):
    """Somebody who waits."""

    @property
    def watched_ids(self) -> Collection[str]:
        """The ids waited for."""
        ...

    def on_change(self, change: "Change[Watcher]", /) -> None:
        """Take news of one id; never raises, never waits."""
        ...

    def abort(self, cause: Exception, /) -> None:
        """Learn that the wait cannot go on."""
        ...
