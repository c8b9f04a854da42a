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
- A third of the ids of a batch, or every third request, is for the ids that came last, so that they
  are not polled behind a backlog.
- Ids of a rejected batch are bisected: sent in halves until the bad one is alone. These requests
  take turns with others. If all parts of a rejected batch pass, it was too large.
- An id found by bisection is quarantined: in a batch, it would have each batch rejected. It rejoins
  after a good response; rejected again, it stays alone for twice as many responses. So is an id
  that batch responses leave out: the single endpoint is asked about it (see `evidence`).
"""

from collections import deque
from collections.abc import Collection, Iterable
from math import inf
from typing import Generic

from luma_async.errors import LumaError
from luma_async.protocol.rows import RowText
from luma_async.scheduling.batch_size import BatchSize, RowCoverage
from luma_async.scheduling.changes import Answered, Change, ChangeDetector, Grace, PollAnswer
from luma_async.scheduling.evidence import Sign
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
from luma_async.scheduling.queues import DueQueue, NewQueue
from luma_async.scheduling.schedule import Schedule, schedule_for

MAX_PART = 10  # ids, of a batch that timed out twice
SHARE_OF_NEW = 3  # one id or request in so many is for the ids that came last


class Scheduler(Generic[W]):
    """The open ids of a session, and which are polled next."""

    def __init__(
        self,
        pace: Pace,
        max_batch: int,
        grace: Grace,
        *,
        phase: float = 1.0,
        spacing: float = 0.0,
        max_in_flight: int = 4,
    ) -> None:
        self.schedule: Schedule = schedule_for(pace, max_batch, spacing)
        self.batch_size: BatchSize = BatchSize(max_batch)
        self.grace = grace
        self.phase = phase
        self._items: dict[str, Item[W]] = {}
        self._in_flight: set[Batch[W]] = set()
        self._new: NewQueue[W] = NewQueue()
        self._scheduled: DueQueue[W] = DueQueue()
        self._backing_off: DueQueue[W] = DueQueue()
        self._quarantined: DueQueue[W] = DueQueue()
        self._hanging: DueQueue[W] = DueQueue()
        self._max_hanging = max(1, max_in_flight - 1)
        self._bisecting: deque[tuple[list[Group[W]], Bisection | None]] = deque()
        self._bisecting_first = True
        self._too_large: Bisection | None = None
        self._coverage = RowCoverage()
        self._empty_count = 0
        self._new_after_return = False
        self._requests_since_newest = 0
        self._first_tick_at = -inf
        self._urgent = False
        self._probing = False
        self._added = 0
        self._folded: dict[str, list[str]] | None = None
        self._folded_at = (0, 0)

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._items

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
            self._added += len(new)
            self._enqueue_new(Group(new, now), now)
            self._urgent |= until < self.schedule.linger_until + MAX_LINGER
        self.schedule.on_added(len(new), now)
        return known

    def ids_like(self, name: str) -> Collection[str]:
        """Return the open ids that equal a name without regard to case."""
        if self._folded is None or self._folded_at != (self._added, len(self._items)):
            self._folded, self._folded_at = {}, (self._added, len(self._items))
            for task_id in self._items:
                self._folded.setdefault(task_id.lower(), []).append(task_id)
        return self._folded.get(name.lower(), ())

    def has_others(self, batch: Batch[W]) -> bool:
        """Return whether ids are open that are not in this batch."""
        return len(self._items) > len(batch.items)

    def probe(self) -> None:
        """Send the next batch at once, whatever is due next."""
        self._probing = True

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
        due = min(
            self._bisected_due(),
            self._hanging_due(),
            self._quarantined.due_at(),
            self._shared_batch_due(),
        )
        can_probe = self._probing and (self._new.ids or self._scheduled.due_at() < inf)
        return -inf if can_probe else due

    def take_batch(self, now: float) -> Batch[W] | None:
        """Return the next batch, None if none is due; complete, back off or bisect it later."""
        if self.next_due() > now:
            return None
        self._requests_since_newest += 1
        batch = self._take_next(now, self.batch_size.current(now))
        self._new_after_return = self._probing = False
        self._in_flight.add(batch)
        return batch

    def complete(
        self,
        batch: Batch[W],
        answer: PollAnswer,
        now: float,
        *,
        sign: Sign | None = None,
        error: LumaError | None = None,
    ) -> list[Change[W]]:
        """Apply the response to a batch. Return what it changes.

        `sign` is what the response says of an id without a row (default: a batch left it out, or
        the single endpoint answered none), `error` the relay's words.
        """
        self._on_returned(batch)
        self.schedule.on_answer(batch.sent_at, now)
        single = not batch.use_batch_endpoint
        if len(batch.items) > 1:
            self._learn_from_batch(batch, answer, now)
        answered = Answered(
            answer,
            batch.sent_at,
            now,
            sign or (Sign.NONE if single else Sign.OMITTED),
            error,
            single,
            self.batch_size.has_single(now),
        )
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
        if detector.proofs:
            self._learn_from_proofs(detector.proofs, now)
        return detector.changes

    def back_off(self, batch: Batch[W], until: float) -> None:
        """Back off after a batch without a response: its ids are due again at `until`."""
        self._on_returned(batch)
        for group in batch.groups:
            if group.size:
                group.failed_attempts += 1
                self._enqueue(group, Transition.BACK_OFF, until, self._backing_off)

    def bisect(
        self, batch: Batch[W], *, parts: int = 2, size_evidence: int = 0, others_first: bool = False
    ) -> None:
        """Send the ids of a batch in parts from now on; `others_first`: after other such parts.

        `size_evidence` is how far its rejection says that it was too large: 0 not at all, 1 if it
        happens to two batches, 2 at once; each time only if all parts pass.
        """
        self._on_returned(batch)
        left = [group for group in batch.groups if group.size]
        size = -(-sum(group.size for group in left) // parts)
        bisection = Bisection(len(batch.items), batch.bisection, size_evidence)
        halves: list[list[Group[W]]] = []
        while left:
            half, left = split_at(left, size)
            halves.append(half)
            for group in half:
                group.apply(Transition.BISECT)
        bisection.parts = len(halves)
        if others_first:
            self._bisecting.extend((half, bisection) for half in halves)
        else:
            self._bisecting.extendleft((half, bisection) for half in reversed(halves))

    def isolate(self, batch: Batch[W], until: float) -> None:
        """Back off a batch that timed out while others were answered, apart from the others.

        From the second time on in parts of `MAX_PART` ids, then of one id. All but one of the
        requests in flight may be such batches: one is left for ids that are answered.
        """
        self._on_returned(batch)
        size = len(batch.items)
        if batch.attempt > 1:
            size = MAX_PART if size > MAX_PART else 1
        left = [group for group in batch.groups if group.size]
        while left:
            part, left = split_at(left, size)
            first, *others = part
            first.merge(others)
            first.failed_attempts = batch.attempt
            first.apply(Transition.BACK_OFF)
            first.hangs = True
            if first.size == 1:
                first.items[0].anomaly_or_new().quarantine()
            self._hanging.push(first, until)

    def _hanging_due(self) -> float:
        """Return when the next batch of ids that timed out is sent."""
        if sum(batch.hangs for batch in self._in_flight) >= self._max_hanging:
            return inf
        return self._hanging.due_at()

    def _learn_from_batch(self, batch: Batch[W], answer: PollAnswer, now: float) -> None:
        """Learn the batch size from a batch that passed."""
        bisection = batch.bisection
        if bisection and bisection.part_passed() and bisection.size_evidence:
            before = self._too_large
            if bisection.size_evidence > 1 or (before and before is not bisection.root):
                self.batch_size = self.batch_size.halved(bisection.size, now)
            self._too_large = bisection.root
        rows = len(answer.states)
        if rows < len(batch.items):
            running = not all(state.is_done for state in answer.states.values())
            self._coverage.record(len(batch.items), rows, running=running)
        else:
            self._coverage.record(len(batch.items), rows, running=True)

    def _learn_from_proofs(self, proofs: int, now: float) -> None:
        """Learn the batch size from ids that batches left out and the single endpoint knows."""
        size = self._coverage.prove(proofs)
        if size == 1:
            self.batch_size = self.batch_size.without_batch(now)
        elif size:
            self.batch_size = self.batch_size.reduced_to(size, now)

    def _abandon(self, item: Item[W]) -> Iterable[Batch[W]]:
        group = item.group
        assert group
        if TRANSITIONS[group.status][Transition.UNSUBSCRIBE] is Status.UNTRACKED:
            self._new.ids -= group.status is Status.NEW
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
        queues: tuple[NewQueue[W] | DueQueue[W], ...] = (
            self._new, self._scheduled, self._backing_off, self._quarantined, self._hanging,
        )  # fmt: skip
        if self._empty_count > 100 + sum(map(len, queues)) // 2:
            for queue in queues:
                queue.drop_empty()
            self._empty_count = 0

    def _enqueue_new(self, group: Group[W], now: float) -> None:
        group.apply(Transition.SUBSCRIBE)
        self._new.push(group, now + (MAX_LINGER if self._in_flight else 0.0))

    def _enqueue(
        self, group: Group[W], transition: Transition, due: float, queue: DueQueue[W]
    ) -> None:
        """Keep a group until it is due; a quarantined id apart from the others."""
        anomaly = group.items[0].anomaly
        alone = anomaly is not None and anomaly.solo_polls_left > 0
        group.apply(Transition.QUARANTINE if alone else transition)
        (self._quarantined if alone else queue).push(group, due)

    def _shared_batch_due(self) -> float:
        return min(
            self._new_due(),
            self._backing_off.due_at(),
            self.schedule.send_at(self._scheduled.due_at()),
        )

    def _take_next(self, now: float, max_ids: int) -> Batch[W]:
        # A part of a rejected batch and anything else take turns; so a bisection delays the others
        # by one request each, and they delay it by one. Of the others, a quarantined id goes alone
        # if it is due before the shared batch, and it is not the turn of new ids.
        alone_at, shared_at = self._quarantined.due_at(), self._shared_batch_due()
        others_at = min(alone_at, shared_at, self._hanging_due())
        if self._bisecting and (self._bisecting_first or others_at > now):
            self._bisecting_first = False
            return self._take_bisected(now, max_ids)
        self._bisecting_first = True
        hanging_at = self._hanging_due()
        if hanging_at <= min(now, alone_at, shared_at):
            return Batch([self._hanging.pop(max_ids)], now)
        if alone_at <= min(now, shared_at) and not (self._is_turn_of_new() and shared_at <= now):
            return Batch([self._quarantined.pop(1)], now)
        batch = Batch(self._fill(now, max_ids), now)
        self._urgent &= self._new.ids > 0
        self.schedule.on_sent(
            now,
            open_ids=len(self._items),
            max_ids=max_ids,
            whole=not self._new.ids and self._scheduled.due_at() == inf,
            again=batch.attempt > 1,
        )
        return batch

    def _is_turn_of_new(self) -> bool:
        """Whether the next request is for the ids that came last, where it has few ids."""
        return self._new.ids > 0 and self._requests_since_newest >= SHARE_OF_NEW

    def _new_due(self) -> float:
        # New ids that fill a batch: at once. Nothing in flight, or a request returned since: at
        # once. Else when that request is late, MAX_LINGER after they came. Not before
        # `linger_until`, where the schedule sends a request soon anyway; urgent ones do not wait.
        first = self._new.first()
        if first is None:
            return inf
        if self._new.ids >= self.batch_size.limit:
            return first.last_heard_at
        at_once = not self._in_flight or self._new_after_return
        leaves_at = first.last_heard_at if at_once else first.due_at
        return leaves_at if self._urgent else max(leaves_at, self.schedule.linger_until)

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
        """Take the ids of the next shared batch: a share of new ones, then those due first."""
        for_new = max_ids // SHARE_OF_NEW or max_ids * self._is_turn_of_new()
        taken = list(self._new.pop_newest(for_new))
        if taken:
            self._requests_since_newest = 0
        left = max_ids - sum(group.size for group in taken)
        while left and (group := self._pop_most_overdue(now, left)):
            taken.append(group)
            left -= group.size
        return taken

    def _pop_most_overdue(self, now: float, max_ids: int) -> Group[W] | None:
        """Pop the ids that are due first; those backing off only once they are due."""
        # New ids are due since they came (`last_heard_at`). Scheduled ids may be taken early, to
        # fill the batch.
        first = self._new.first()
        new_at = first.last_heard_at if first else inf
        scheduled_at, retry_at = self._scheduled.due_at(), self._backing_off.due_at()
        if retry_at <= now and retry_at <= min(new_at, scheduled_at):
            return self._backing_off.pop(max_ids)
        if first and new_at <= scheduled_at:
            return self._new.pop(max_ids)
        return self._scheduled.pop(max_ids) if self._scheduled else None

    def _on_returned(self, batch: Batch[W]) -> None:
        self._in_flight.remove(batch)
        self._new_after_return = self._new.ids > 0
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
        if sent_at < self._first_tick_at and deadline == inf:
            due = min(due, self._first_tick_at)
        self._enqueue(group, Transition.RESCHEDULE, min(due, deadline), self._scheduled)
