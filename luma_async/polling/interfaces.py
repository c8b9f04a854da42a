"""What the poller asks of a relay, and what it tells a wait."""

from collections.abc import Collection, Sequence
from typing import Protocol

from luma_async.scheduling.changes import Change, Told


class Relay(Protocol):
    """The two calls, whoever makes them."""

    async def get(self, task_id: str, /) -> Told:
        """Ask about one task."""
        ...

    async def get_many(self, ids: Sequence[str], /) -> Told:
        """Ask about many tasks at once."""
        ...


class Watcher(Protocol):
    """Somebody who waits."""

    @property
    def asked(self) -> Collection[str]:
        """The ids waited for."""
        ...

    def tell(self, change: "Change[Watcher]", /) -> None:
        """Take news of one id; never raises, never waits."""
        ...

    def abort(self, cause: Exception, /) -> None:
        """Learn that the wait cannot go on."""
        ...
