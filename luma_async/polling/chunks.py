"""Long lists in chunks, so that the event loop is not blocked for long."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Generic, TypeVar

CHUNK_SIZE = 2_000

T = TypeVar("T")


def chunks(items: Iterable[T], size: int | None = None) -> Iterator[Sequence[T]]:
    """Yield the items in chunks of `size`, by default CHUNK_SIZE."""
    rest, size = iter(items), size or CHUNK_SIZE
    while part := list(islice(rest, size)):
        yield part


def run_in_turns(loop: asyncio.AbstractEventLoop, steps: Iterator[None]) -> None:
    """Take the first step at once, and each further one in the next turn of the loop."""
    for _ in steps:
        loop.call_soon(run_in_turns, loop, steps)
        return


def emptied(ids: dict[str, Any]) -> Iterator[str]:
    """Yield the ids, and drop each: to free a million at once would block the loop."""
    while ids:
        yield ids.popitem()[0]


class AsyncChunks(AsyncIterator[Sequence[T]], Generic[T]):
    """Iterate over items in chunks, with a turn of the event loop between two.

    A cancelled caller has not taken the next part from an iterator that is shared. A class
    and not an async generator, so that leaving early runs no cleanup in a foreign task.
    """

    def __init__(self, items: Iterable[T], size: int | None = None) -> None:
        self._rest = iter(items)
        self._size = size or CHUNK_SIZE
        self._more = False

    async def __anext__(self) -> Sequence[T]:
        if self._more:
            await asyncio.sleep(0)
        part = list(islice(self._rest, self._size))
        self._more = len(part) == self._size
        if not part:
            raise StopAsyncIteration
        return part
