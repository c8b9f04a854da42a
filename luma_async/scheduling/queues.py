"""Queues of groups of ids: those that are due at a time, and those that are new."""

from collections import deque
from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import Generic

from luma_async.scheduling.items import Group, W


class DueQueue(Generic[W]):
    """Groups in the order in which they are due."""

    __slots__ = ("_heap", "_order")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Group[W]]] = []
        self._order = count()

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, group: Group[W], due: float) -> None:
        """Add a group."""
        group.due_at = due
        heappush(self._heap, (due, next(self._order), group))

    def due_at(self) -> float:
        """Return when the first group is due; inf if there is none."""
        while self._heap and not self._heap[0][2].size:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else inf

    def pop(self, most: int) -> Group[W]:
        """Remove the group that is due first; of a larger one, its first `most` ids."""
        group = self._heap[0][2]
        taken = group.take(most)
        if taken is group:
            heappop(self._heap)
        return taken

    def drop_empty(self) -> None:
        """Drop the groups of which no id is left."""
        self._heap[:] = [one for one in self._heap if one[2].size]
        heapify(self._heap)


class NewQueue(Generic[W]):
    """Groups of ids that were not polled yet, in the order in which they came.

    `ids` counts the ids in it.
    """

    __slots__ = ("_groups", "ids")

    def __init__(self) -> None:
        self._groups: deque[Group[W]] = deque()
        self.ids: int = 0

    def __len__(self) -> int:
        return len(self._groups)

    def push(self, group: Group[W], due: float) -> None:
        """Add a group that may linger until `due`."""
        group.due_at = due
        self._groups.append(group)
        self.ids += group.size

    def first(self) -> Group[W] | None:
        """Return the group that came first, None if there is none."""
        while self._groups and not self._groups[0].size:
            self._groups.popleft()
        return self._groups[0] if self._groups else None

    def pop(self, most: int) -> Group[W]:
        """Remove the group that came first; of a larger one, its first `most` ids."""
        taken = self._groups[0].take(most)
        if taken is self._groups[0]:
            self._groups.popleft()
        self.ids -= taken.size
        return taken

    def pop_newest(self, most: int) -> Iterator[Group[W]]:
        """Remove `most` ids, those that came last first."""
        while most and self._groups:
            group = self._groups[-1]
            taken = group.take(most)
            if taken is group:
                self._groups.pop()
            self.ids -= taken.size
            most -= taken.size
            if taken.size:
                yield taken

    def drop_empty(self) -> None:
        """Drop the groups of which no id is left."""
        self._groups = deque(group for group in self._groups if group.size)
