"""Many things a few at a time, so that nothing holds up the event loop for long."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import islice
from typing import Generic, TypeVar

SLICE = 2_000

T = TypeVar("T")


def slices(items: Iterable[T], size: int = SLICE) -> Iterator[Sequence[T]]:
    """Yield the items in parts."""
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part
        if len(part) < size:
            return


class Unhurried(AsyncIterator[Sequence[T]], Generic[T]):
    """The items in parts; between two of them the loop turns once.

    A class and not an async generator, so that leaving early runs no cleanup in a foreign task.
    """

    def __init__(self, items: Iterable[T], size: int = SLICE) -> None:
        self._parts = slices(items, size)
        self._begun = False

    async def __anext__(self) -> Sequence[T]:
        part = next(self._parts, None)
        if part is None:
            raise StopAsyncIteration
        if self._begun:
            await asyncio.sleep(0)
        self._begun = True
        return part
