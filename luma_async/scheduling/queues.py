"""Queues of groups of ids: due at a time, new, hanging, and parts of rejected batches."""

from collections import deque
from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import Generic

from luma_async.scheduling.batches import Batch, Bisection
from luma_async.scheduling.items import Group, Transition, W, split_at

MAX_PART = 10  # ids, of a batch that timed out twice


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


class HangingQueue(DueQueue[W]):
    """Groups of ids that timed out while others were answered, in the order in which they are due.

    From the second time on a batch is sent in parts of `MAX_PART` ids, then of one id.
    """

    __slots__ = ()

    def push_parts(self, batch: Batch[W], due: float) -> None:
        """Add the ids of a batch that timed out, in parts."""
        size = len(batch.items)
        if batch.attempt > 1:
            size = MAX_PART if size > MAX_PART else 1
        # Those that were never polled are not merged with others.
        left = [group for group in batch.groups if group.size and group.sent_at is not None]
        new = [group for group in batch.groups if group.size and group.sent_at is None]
        while left or new:
            if left:
                part, left = split_at(left, size)
            else:
                part, new = split_at(new, size)
            first, *others = part
            first.merge(others)
            first.failed_attempts = batch.attempt
            first.apply(Transition.BACK_OFF)
            first.hangs = True
            if first.size == 1:
                first.items[0].anomaly_or_new().quarantine()
            self.push(first, due)


class BisectionQueue(Generic[W]):
    """The parts of rejected batches, in the order in which they are sent."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: deque[tuple[list[Group[W]], Bisection]] = deque()

    def push(self, batch: Batch[W], parts: int, size_evidence: int, *, last: bool) -> None:
        """Split the ids of a batch; `last`: they are sent after other parts."""
        left = [group for group in batch.groups if group.size]
        size = -(-sum(group.size for group in left) // parts)
        bisection = Bisection(len(batch.items), batch.bisection, size_evidence)
        split: list[list[Group[W]]] = []
        while left:
            part, left = split_at(left, size)
            split.append(part)
            for group in part:
                group.apply(Transition.BISECT)
        bisection.parts = len(split)
        if last:
            self._parts.extend((part, bisection) for part in split)
        else:
            self._parts.extendleft((part, bisection) for part in reversed(split))

    def is_due(self) -> bool:
        """Return whether there is a part to send; parts without ids are dropped."""
        while self._parts and not any(group.size for group in self._parts[0][0]):
            self._parts.popleft()
        return bool(self._parts)

    def pop(self, most: int) -> tuple[list[Group[W]], Bisection]:
        """Remove the first part; of a larger one, its first `most` ids."""
        part, bisection = self._parts.popleft()
        taken, rest = split_at(part, most)
        if rest:
            bisection.parts += 1
            self._parts.appendleft((rest, bisection))
        elif sum(group.size for group in taken) == 1:
            taken[0].items[0].anomaly_or_new().quarantine()
        return taken, bisection
