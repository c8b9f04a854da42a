"""The scripted replies of a FakeRelay, in a queue. Pure: no event loop, no HTTP."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from luma_async.testing.types import Reply

Endpoint = Literal["get", "tasks", "submit", "media"]

_ENDPOINTS: tuple[Endpoint, ...] = get_args(Endpoint)


@dataclass(frozen=True, slots=True)
class _Scripted:
    """A reply, the endpoint that it is for (None: all but "media"), and whether it may stay."""

    reply: Reply
    on: Endpoint | None
    optional: bool

    def fits(self, endpoint: Endpoint | None) -> bool:
        return self.on == endpoint or (self.on is None and endpoint != "media")

    def __str__(self) -> str:
        what = self.reply.breakage or str(self.reply.status)
        return f"{what} on any request" if self.on is None else f'{what} on="{self.on}"'


class ScriptedReplies:
    """The replies that are still to be sent: each once, in their order."""

    def __init__(self) -> None:
        self._queue: list[_Scripted] = []

    def add(self, replies: Sequence[Reply], on: Endpoint | None, *, optional: bool) -> None:
        """Queue replies, for one endpoint or for all but "media".

        Raises ValueError or TypeError for invalid arguments.
        """
        if on is not None and on not in _ENDPOINTS:
            known = ", ".join(f'"{endpoint}"' for endpoint in _ENDPOINTS)
            raise ValueError(f"on is {on!r}: give {known} or None")
        for reply in replies:
            if not isinstance(reply, Reply):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(f"a reply is of type {type(reply).__name__}: wrap it in Reply")
            self._queue.append(_Scripted(reply, on, optional))

    def take(self, endpoint: Endpoint | None) -> Reply | None:
        """Remove the first reply that fits a request, and return it; None if none fits."""
        for index, scripted in enumerate(self._queue):
            if scripted.fits(endpoint):
                del self._queue[index]
                return scripted.reply
        return None

    def unused(self) -> list[str]:
        """Return a text for each reply that was not sent, without the optional ones."""
        return [str(scripted) for scripted in self._queue if not scripted.optional]
