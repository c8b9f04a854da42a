"""Which ids are open, who watches them, and what a response means for them.

Pure: `now` is an argument, and what to do comes back as a Batch. Five promises:

- fair: a batch is filled with the ids that are overdue longest, then with those due next;
- economical: an id is in one request at a time, however many watchers it has;
- bounded: a batch has at most `batch_size` ids;
- exact: each batch taken is completed, backed off or bisected, once;
- tidy: an id without a watcher is not polled.

`polling_order` says what is sent next, `changes` what a response changes.
"""

from collections.abc import Collection, Iterable
from functools import partial
from math import inf
from typing import Generic

from luma_async.errors import LumaError
from luma_async.protocol.rows import RowText
from luma_async.scheduling.batch_size import BatchSize, RowCoverage
from luma_async.scheduling.batches import Batch, Bisection
from luma_async.scheduling.changes import Answered, Change, ChangeDetector, Grace, PollAnswer
from luma_async.scheduling.evidence import Sign
from luma_async.scheduling.items import (
    TRANSITIONS,
    Group,
    Item,
    Status,
    Transition,
    W,
    regroup,
)
from luma_async.scheduling.pace import Pace
from luma_async.scheduling.polling_order import PollingOrder
from luma_async.scheduling.schedule import Schedule, schedule_for


class Scheduler(Generic[W]):
    """The open ids of a session, and which are polled next.

    The first delays of a busy period are shortened at random, to `phase` of them, so that clients
    which started together do not poll together. `spacing` is the seconds between two requests.
    """

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
        self._order: PollingOrder[W] = PollingOrder(self.schedule, max_batch, max_in_flight)
        self._too_large: Bisection | None = None
        self._coverage = RowCoverage()
        self._first_tick_at = -inf
        self._added = 0
        self._folded: dict[str, list[str]] | None = None
        self._folded_at = (0, 0)

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._items

    def __repr__(self) -> str:
        return (
            f"<Scheduler: {len(self)} open, {len(self._order.in_flight)} batches in flight, "
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
            self._order.add_new(Group(new, now), now, until=until)
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
        self._order.probe()

    def next_due(self) -> float:
        """Return when the next batch is sent; inf if none will be."""
        return self._order.next_due()

    def take_batch(self, now: float) -> Batch[W] | None:
        """Return the next batch, None if none is due; complete, back off or bisect it later."""
        if self._order.next_due() > now:
            return None
        return self._order.take(now, self.batch_size.current(now), len(self._items))

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
        sign = sign or (Sign.NONE if single else Sign.OMITTED)
        has_single = self.batch_size.has_single(now)
        answered = Answered(answer, batch.sent_at, now, sign, error, single, has_single)
        detector: ChangeDetector[W] = ChangeDetector(answered, self.schedule, self.grace)
        for group in batch.groups:
            detector.apply(group)
        for change in detector.changes:
            if change.ended:
                del self._items[change.task_id]
        for group, due, deadline in detector.solo_groups:
            self._reschedule(group, due, batch.sent_at, deadline)
        for group in regroup(batch.groups, partial(self.schedule.group_key, sent_at=batch.sent_at)):
            delay = self.schedule.delay(group.mean_created_at, batch.sent_at, group.size)
            self._reschedule(group, batch.sent_at + delay, batch.sent_at)
        if detector.proofs:
            self._learn_from_proofs(detector.proofs, now)
        return detector.changes

    def back_off(self, batch: Batch[W], until: float) -> None:
        """Back off after a batch without a response: its ids are due again at `until`."""
        self._on_returned(batch)
        for group in batch.groups:
            if group.size:
                self._order.back_off(group, until)

    def bisect(
        self, batch: Batch[W], *, parts: int = 2, size_evidence: int = 0, others_first: bool = False
    ) -> None:
        """Send the ids of a batch in parts from now on; `others_first`: after other such parts.

        `size_evidence` is how far its rejection says that it was too large: 0 not at all, 1 if it
        happens to two batches, 2 at once; each time only if all parts pass.
        """
        self._on_returned(batch)
        self._order.bisect(batch, parts, size_evidence, last=others_first)

    def isolate(self, batch: Batch[W], until: float) -> None:
        """Back off a batch that timed out while others were answered, apart from the others."""
        self._on_returned(batch)
        self._order.isolate(batch, until)

    def _learn_from_batch(self, batch: Batch[W], answer: PollAnswer, now: float) -> None:
        """Learn the batch size from a batch that passed."""
        bisection = batch.bisection
        if bisection and bisection.part_passed() and bisection.size_evidence:
            before = self._too_large
            if bisection.size_evidence > 1 or (before and before is not bisection.root):
                self.batch_size = self.batch_size.halved(bisection.size, now)
            self._too_large = bisection.root
        self._coverage.record(len(batch.items), answer.states)

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
            self._forget(item)
            self._order.on_removed(group)
        elif group.batch:
            group.batch.watched_count -= 1
            if not group.batch.watched_count:
                yield group.batch

    def _on_returned(self, batch: Batch[W]) -> None:
        self._order.on_returned(batch)
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

    def _reschedule(
        self, group: Group[W], due: float, sent_at: float, deadline: float = inf
    ) -> None:
        if sent_at < self._first_tick_at and deadline == inf:
            due = min(due, self._first_tick_at)
        self._order.reschedule(group, min(due, deadline))
