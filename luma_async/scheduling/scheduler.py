"""Which ids are open, who watches them, and which are polled next.

Pure: `now` is an argument, and what to do comes back as a Batch. Five promises:

- fair: a batch is filled with the ids that are overdue longest, then with those due next;
- economical: an id is in one request at a time, however many watchers it has;
- bounded: a batch has at most `batch_size` ids;
- exact: each batch taken is completed, backed off or bisected, once;
- tidy: an id without a watcher is not polled.

What is scheduled is the request, not a timer per id. A request costs the same with 1 id or 100, so
one that is sent is filled up, and soon all ids share one clock. When it is sent:

- Scheduled ids: the Schedule of the pace says when an id is due and when the request is sent. The
  first delays of a busy period are shortened at random (`phase`), so that clients which started
  together do not poll together.
- New ids are sent at once where nothing is in flight, unless the schedule lets them linger for a
  moment. Where something is in flight they share the next request, so that ten thousand callers
  that come one by one cost what one caller costs. A full batch does not wait, and nothing waits
  longer than MAX_LINGER for a request that hangs.
- Ids whose request got no response back off until they may be sent again; they never fill up a
  batch.
- Ids of a rejected batch are bisected: sent in halves until the bad one is alone. These requests
  take turns with others. Where all parts of a rejected batch pass, twice, it was too large.
- An id found by bisection is quarantined: in a batch, it would have each batch rejected. It rejoins
  after a good response; rejected again, it stays alone for twice as many responses.
"""

from collections import deque
from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import Generic

from luma_async.protocol.rows import RowText
from luma_async.scheduling.batch_size import BatchSize
from luma_async.scheduling.changes import Answered, Change, ChangeDetector, Grace, PollAnswer
from luma_async.scheduling.items import (
    TRANSITIONS,
    Batch,
    Bisection,
    Group,
    Item,
    Status,
    Transition,
    W,
    split_at,
)
from luma_async.scheduling.pace import MAX_LINGER, Pace
from luma_async.scheduling.schedule import Schedule, schedule_for

Heap = list[tuple[float, int, Group[W]]]


class Scheduler(Generic[W]):
    """The open ids of a session, and which are polled next."""

    def __init__(
        self, pace: Pace, max_batch: int, grace: Grace, *, phase: float = 1.0, spacing: float = 0.0
    ) -> None:
        self.schedule: Schedule = schedule_for(pace, max_batch, spacing)
        self.batch_size: BatchSize = BatchSize(max_batch)
        self.grace = grace
        self.phase = phase
        self._items: dict[str, Item[W]] = {}
        self._in_flight: set[Batch[W]] = set()
        self._new: deque[Group[W]] = deque()
        self._new_count = 0
        self._bisecting: deque[tuple[list[Group[W]], Bisection | None]] = deque()
        self._bisecting_first = True
        self._too_large: Bisection | None = None
        self._scheduled: Heap[W] = []
        self._backing_off: Heap[W] = []
        self._quarantined: Heap[W] = []
        self._order = count()
        self._empty_count = 0
        self._new_after_return = False
        self._first_tick_at = -inf
        self._urgent = False

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return (
            f"<Scheduler: {len(self)} open, {len(self._in_flight)} batches in flight, "
            f"{self.batch_size.limit} ids a batch>"
        )

    def status_of(self, task_id: str) -> Status:
        """Return the status of an id."""
        item = self._items.get(task_id)
        return item.status if item else Status.UNTRACKED

    def oldest_watched_since(self) -> float | None:
        """Return since when the id watched first has been watched; None if none is open."""
        return next((item.watched_since for item in self._items.values()), None)

    def clear(self) -> None:
        """Forget all ids."""
        for item in self._items.values():
            item.group = None
            item.watchers = ()
        self._items.clear()

    def subscribe(
        self, watcher: W, ids: Iterable[str], now: float, *, until: float = inf
    ) -> dict[str, RowText]:
        """Add a watcher to these ids; it will leave at `until`, and new ids do not linger then.

        Return the last row of those that were open already.
        """
        if not self._items:
            self._first_tick_at = now + self.phase * self.schedule.base_delay(now, now)
            self.schedule.start_busy_period(self.phase)
        new: list[Item[W]] = []
        known: dict[str, RowText] = {}
        only = (watcher,)
        for task_id in ids:
            item = self._items.get(task_id)
            if item is None:
                item = self._items[task_id] = Item(task_id, now, now, only)
                new.append(item)
                continue
            if item.status is Status.ABANDONED and item.group and item.group.batch:
                item.group.batch.watched_count += 1
            item.add_watcher(only)
            if item.last_row is not None:
                known[task_id] = item.last_row
        if new:
            self._enqueue_new(Group(new, now), now)
            self._urgent |= until < self.schedule.linger_until + MAX_LINGER
        self.schedule.on_added(len(new), now)
        return known

    def unsubscribe(self, watcher: W, ids: Iterable[str]) -> list[Batch[W]]:
        """Remove a watcher from these ids. Return the batches in flight that have none left."""
        idle: list[Batch[W]] = []
        for task_id in ids:
            item = self._items.get(task_id)
            if item is not None and item.remove_watcher(watcher) and not item.watchers:
                idle += self._abandon(item)
        return idle

    def next_due(self) -> float:
        """Return when the next batch is sent; inf if none will be."""
        return min(
            self._bisected_due(),
            _due_at(self._quarantined),
            self._shared_batch_due(),
        )

    def take_batch(self, now: float) -> Batch[W] | None:
        """Return the next batch, None if none is due; complete, back off or bisect it later."""
        if self.next_due() > now:
            return None
        batch = self._take_next(now, self.batch_size.current(now))
        self._new_after_return = False
        self._in_flight.add(batch)
        return batch

    def complete(
        self, batch: Batch[W], answer: PollAnswer, now: float, *, doubt: float = 1.0
    ) -> list[Change[W]]:
        """Apply the response to a batch. Return what it changes.

        An id that it does not contain is missing after `doubt` times the grace period.
        """
        self._on_returned(batch)
        self.schedule.on_answer(batch.sent_at, now)
        if batch.bisection and len(batch.items) > 1 and batch.bisection.part_passed():
            self._learn_batch_size(batch.bisection, now)
        answered = Answered(answer, batch.sent_at, now, self.grace.missing * doubt)
        detector: ChangeDetector[W] = ChangeDetector(answered, self.schedule, self.grace)
        for group in batch.groups:
            detector.apply(group)
        for change in detector.changes:
            if change.ended:
                del self._items[change.task_id]
        for group, due, deadline in detector.solo_groups:
            self._reschedule(group, due, batch.sent_at, deadline)
        for group in self._regroup(batch.groups, batch.sent_at):
            due = batch.sent_at + self.schedule.delay(
                group.mean_created_at, batch.sent_at, group.size
            )
            self._reschedule(group, due, batch.sent_at)
        return detector.changes

    def back_off(self, batch: Batch[W], until: float) -> None:
        """Back off after a batch without a response: its ids are due again at `until`."""
        self._on_returned(batch)
        for group in batch.groups:
            if group.size:
                group.failed_attempts += 1
                self._enqueue(group, Transition.BACK_OFF, until, self._backing_off)

    def bisect(self, batch: Batch[W], *, refused: bool = True) -> None:
        """Send the ids of a rejected batch in halves from now on.

        Only a batch that the relay rejected (`refused`) can prove to be too large.
        """
        self._on_returned(batch)
        bisection = Bisection(len(batch.items), batch.bisection) if refused else None
        left = sum(group.size for group in batch.groups)
        first, second = split_at(batch.groups, (left + 1) // 2)
        for half in (second, first):
            for group in half:
                group.apply(Transition.BISECT)
            self._bisecting.appendleft((half, bisection))

    def _learn_batch_size(self, bisection: Bisection, now: float) -> None:
        """Halve the batch size once all parts of two rejected batches have passed."""
        if self._too_large and self._too_large is not bisection.root:
            self.batch_size = self.batch_size.halved(bisection.size, now)
        self._too_large = bisection.root

    def _abandon(self, item: Item[W]) -> Iterable[Batch[W]]:
        group = item.group
        assert group
        if TRANSITIONS[group.status][Transition.UNSUBSCRIBE] is Status.UNTRACKED:
            self._new_count -= group.status is Status.NEW
            self._forget(item)
            if not group.size:
                self._drop_empty_groups()
        elif group.batch:
            group.batch.watched_count -= 1
            if not group.batch.watched_count:
                yield group.batch

    def _drop_empty_groups(self) -> None:
        """Drop empty groups once they outnumber the others."""
        self._empty_count += 1
        rooms = (
            len(self._new) + len(self._scheduled) + len(self._backing_off) + len(self._quarantined)
        )
        if self._empty_count > 100 + rooms // 2:
            self._new = deque(group for group in self._new if group.size)
            for heap in (self._scheduled, self._backing_off, self._quarantined):
                heap[:] = [one for one in heap if one[2].size]
                heapify(heap)
            self._empty_count = 0

    def _enqueue_new(self, group: Group[W], now: float) -> None:
        group.apply(Transition.SUBSCRIBE)
        group.due_at = now + (MAX_LINGER if self._in_flight else 0.0)
        self._new.append(group)
        self._new_count += group.size

    def _enqueue(
        self, group: Group[W], transition: Transition, due: float, heap: "Heap[W]"
    ) -> None:
        """Keep a group until it is due; a quarantined id apart from the others."""
        anomaly = group.items[0].anomaly
        alone = anomaly is not None and anomaly.solo_polls_left > 0
        group.apply(Transition.QUARANTINE if alone else transition)
        group.due_at = due
        heappush(self._quarantined if alone else heap, (due, next(self._order), group))

    def _shared_batch_due(self) -> float:
        return min(
            self._new_due(),
            _due_at(self._backing_off),
            self.schedule.send_at(_due_at(self._scheduled)),
        )

    def _take_next(self, now: float, max_ids: int) -> Batch[W]:
        # A part of a rejected batch and anything else take turns; so a bisection delays the others
        # by one request each, and they delay it by one.
        others_at = min(_due_at(self._quarantined), self._shared_batch_due())
        if self._bisecting and (self._bisecting_first or others_at > now):
            self._bisecting_first = False
            return self._take_bisected(now, max_ids)
        self._bisecting_first = True
        if _due_at(self._quarantined) <= min(now, self._shared_batch_due()):
            return Batch([heappop(self._quarantined)[2]], now)
        batch = Batch(self._fill(now, max_ids), now)
        self._urgent &= self._new_count > 0
        self.schedule.on_sent(
            now,
            open_ids=len(self._items),
            max_ids=max_ids,
            whole=not self._new_count and _due_at(self._scheduled) == inf,
            again=batch.attempt > 1,
        )
        return batch

    def _new_due(self) -> float:
        # New ids that fill a batch: at once. Nothing in flight, or a request returned since: at
        # once. Else when that request is late, MAX_LINGER after they came. Not before
        # `linger_until`, where the schedule sends a request soon anyway; urgent ones do not wait.
        first = self._first_new()
        if first is None:
            return inf
        if self._new_count >= self.batch_size.limit:
            return first.last_heard_at
        at_once = not self._in_flight or self._new_after_return
        leaves_at = first.last_heard_at if at_once else first.due_at
        return leaves_at if self._urgent else max(leaves_at, self.schedule.linger_until)

    def _first_new(self) -> Group[W] | None:
        while self._new and not self._new[0].size:
            self._new.popleft()
        return self._new[0] if self._new else None

    def _bisected_due(self) -> float:
        while self._bisecting and not any(group.size for group in self._bisecting[0][0]):
            self._bisecting.popleft()
        return -inf if self._bisecting else inf

    def _take_bisected(self, now: float, max_ids: int) -> Batch[W]:
        half, bisection = self._bisecting.popleft()
        taken, rest = split_at(half, max_ids)
        if rest:
            if bisection:
                bisection.parts += 1
            self._bisecting.appendleft((rest, bisection))
        elif sum(group.size for group in taken) == 1:
            taken[0].items[0].anomaly_or_new().quarantine()
        return Batch(taken, now, bisection)

    def _fill(self, now: float, max_ids: int) -> list[Group[W]]:
        taken: list[Group[W]] = []
        while max_ids and (group := self._pop_most_overdue(now, max_ids)):
            taken.append(group)
            max_ids -= group.size
        return taken

    def _pop_most_overdue(self, now: float, max_ids: int) -> Group[W] | None:
        """Pop the ids that are due first; those backing off only once they are due."""
        # New ids are due since they came (`last_heard_at`). Scheduled ids may be taken early, to
        # fill the batch.
        first = self._first_new()
        new = first.last_heard_at if first else inf
        scheduled, backing_off = _due_at(self._scheduled), _due_at(self._backing_off)
        if backing_off <= now and backing_off <= min(new, scheduled):
            return _pop_group(self._backing_off, max_ids)
        if first and new <= scheduled:
            taken = first.take(max_ids)
            if taken is first:
                self._new.popleft()
            self._new_count -= taken.size
            return taken
        return _pop_group(self._scheduled, max_ids) if self._scheduled else None

    def _on_returned(self, batch: Batch[W]) -> None:
        self._in_flight.remove(batch)
        self._new_after_return = self._new_count > 0
        if batch.watched_count < len(batch.items):
            for item in batch.items:
                if not item.watchers:
                    self._forget(item)
        for group in batch.groups:
            group.batch = None
            group.compact()

    def _forget(self, item: Item[W]) -> None:
        del self._items[item.task_id]
        item.leave()
        self.schedule.on_removed(None)

    def _regroup(self, groups: Iterable[Group[W]], sent_at: float) -> Iterable[Group[W]]:
        """Sort ids that were polled together into groups with equal delays."""
        by_key: dict[float, list[Group[W]]] = {}
        for group in groups:
            for key, part in self._split_by_key(group, sent_at):
                by_key.setdefault(key, []).append(part)
        for first, *others in by_key.values():
            if others:
                first.merge(others)
            yield first

    def _split_by_key(self, group: Group[W], sent_at: float) -> Iterable[tuple[float, Group[W]]]:
        if not group.size:
            return ()
        key = self.schedule.group_key(group.oldest, sent_at)
        if self.schedule.group_key(group.youngest, sent_at) == key:
            return ((key, group),)
        by_key: dict[float, list[Item[W]]] = {}
        for item in group.items:
            by_key.setdefault(self.schedule.group_key(item.created_at, sent_at), []).append(item)
        parts = {key: group.split_off(items) for key, items in by_key.items()}
        for part in parts.values():
            part.update_age_range()
        return parts.items()

    def _reschedule(
        self, group: Group[W], due: float, sent_at: float, deadline: float = inf
    ) -> None:
        if sent_at < self._first_tick_at:
            due = min(due, self._first_tick_at)
        self._enqueue(group, Transition.RESCHEDULE, min(due, deadline), self._scheduled)


def _due_at(heap: "Heap[W]") -> float:
    while heap and not heap[0][2].size:
        heappop(heap)
    return heap[0][0] if heap else inf


def _pop_group(heap: "Heap[W]", max_ids: int) -> Group[W]:
    """Pop the group that is due first; of a large one, as many ids as fit."""
    group = heap[0][2]
    taken = group.take(max_ids)
    if taken is group:
        heappop(heap)
    return taken
