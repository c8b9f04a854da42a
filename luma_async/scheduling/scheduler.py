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
from luma_async.scheduling.batches import Batch, Bisection
from luma_async.scheduling.capabilities import Capabilities, RowCoverage
from luma_async.scheduling.changes import Answered, Change, Grace, PollAnswer
from luma_async.scheduling.folded_ids import FoldedIds
from luma_async.scheduling.items import (
    TRANSITIONS,
    Group,
    Item,
    Status,
    Transition,
    W,
    regroup,
)
from luma_async.scheduling.learned_timing import timing_for
from luma_async.scheduling.missing_evidence import Sign
from luma_async.scheduling.pace import Pace
from luma_async.scheduling.polling_order import PollingOrder
from luma_async.scheduling.request_timing import RequestTiming
from luma_async.scheduling.response_applier import ResponseApplier
from luma_async.structs import Generation


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
        self.timing: RequestTiming = timing_for(pace, max_batch, spacing)
        self.capabilities: Capabilities = Capabilities(max_batch)
        self.grace = grace
        self.phase = phase
        self._items: dict[str, Item[W]] = {}
        self._order: PollingOrder[W] = PollingOrder(self.timing, max_batch, max_in_flight)
        self._too_large: Bisection | None = None
        self._coverage = RowCoverage()
        self._first_tick_at = -inf
        self._by_folded: FoldedIds | None = None

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        in_flight, limit = len(self._order.in_flight), self.capabilities.limit
        return f"<Scheduler: {len(self)} open, {in_flight} batches in flight, {limit} ids a batch>"

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
        self._by_folded = None

    def subscribe(
        self, watcher: W, ids: Iterable[str], now: float, *, until: float = inf
    ) -> dict[str, RowText]:
        """Add a watcher to these ids.

        `until` is when it leaves: if that is soon, new ids are sent at once.

        Return the last row of those that were open already; one that was forgotten is replaced by
        a row of its state.
        """
        if not self._items:
            self._first_tick_at = now + self.phase * self.timing.base_delay(now, now)
            self.timing.start_busy_period(self.phase)
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
            elif item.state is not None:
                known[task_id] = RowText(task_id, b"", Generation(id=task_id, state=item.state))
        if new:
            if self._by_folded is not None:
                self._by_folded.add(item.task_id for item in new)
            self._order.add_new(Group(new, now), now, until=until)
        self.timing.on_added(len(new), now)
        return known

    def unsubscribe(self, watcher: W, ids: Iterable[str]) -> list[Batch[W]]:
        """Remove a watcher from these ids. Return the batches in flight that have none left."""
        idle: list[Batch[W]] = []
        for task_id in ids:
            item = self._items.get(task_id)
            if item is None or not item.remove_watcher(watcher) or item.watchers:
                continue
            if (batch := self._abandon(item)) is not None:
                idle.append(batch)
        return idle

    def forget_row(self, task_id: str) -> None:
        """Do not keep the last row of an open id; its state is kept."""
        if (item := self._items.get(task_id)) is not None:
            item.last_row = None

    def ids_like(self, name: str) -> Collection[str]:
        """Return the open ids that equal a name without regard to case."""
        if self._by_folded is None:
            self._by_folded = FoldedIds(self._items)
        return self._by_folded.like(name)

    def has_others(self, batch: Batch[W]) -> bool:
        """Whether ids are open that are not in this batch."""
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
        return self._order.take(now, self.capabilities.max_ids(now), len(self._items))

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
        self.timing.on_answer(batch.sent_at, now)
        single = not batch.use_batch_endpoint
        if len(batch.items) > 1:
            self._learn_from_batch(batch, answer, now)
        elif sign is None and single and not answer.states:
            self._coverage.record_none()
        answered = Answered(
            answer=answer,
            sent_at=batch.sent_at,
            now=now,
            sign=sign or (Sign.NONE if single else Sign.OMITTED),
            error=error,
            single=single,
            single_endpoint=self.capabilities.has_single(now),
        )
        applier: ResponseApplier[W] = ResponseApplier(answered, self.timing, self.grace)
        self._apply(applier, batch)
        self._learn_from_proofs(applier.proofs, now)
        return applier.changes

    def _apply(self, applier: ResponseApplier[W], batch: Batch[W]) -> None:
        """Apply the response to all groups, and reschedule the ids that are still open."""
        for group in batch.groups:
            applier.apply(group)
        for change in applier.changes:
            if change.ended:
                self._remove(change.task_id)
        for group, due, deadline in applier.solo_groups:
            self._reschedule(group, due, batch.sent_at, deadline)
        for group in regroup(batch.groups, partial(self.timing.group_key, sent_at=batch.sent_at)):
            delay = self.timing.delay(group.mean_created_at, batch.sent_at, group.size)
            self._reschedule(group, batch.sent_at + delay, batch.sent_at)

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

        `size_evidence` is what its rejection says of its size: 0 nothing, 1 it was too large if it
        happens to two batches, 2 it was too large; always only if all parts pass.
        """
        self._on_returned(batch)
        self._order.bisect(batch, parts, size_evidence, last=others_first)

    def back_off_hanging(self, batch: Batch[W], until: float) -> None:
        """Back off a batch that timed out while others were answered, apart from the others."""
        self._on_returned(batch)
        self._order.back_off_hanging(batch, until)

    def _learn_from_batch(self, batch: Batch[W], answer: PollAnswer, now: float) -> None:
        """Learn the batch size from a batch that passed."""
        bisection = batch.bisection
        if bisection and bisection.part_passed() and bisection.size_evidence:
            before = self._too_large
            if bisection.size_evidence > 1 or (before and before is not bisection.root):
                self.capabilities = self.capabilities.halved(bisection.size, now)
            self._too_large = bisection.root
        self._coverage.record(len(batch.items), answer.states)

    def _learn_from_proofs(self, proofs: Iterable[str], now: float) -> None:
        size = self._coverage.prove(proofs) if proofs else None
        if size == 0:
            self.capabilities = self.capabilities.without_batch(now)
        elif size:
            self.capabilities = self.capabilities.reduced_to(size, now)

    def _abandon(self, item: Item[W]) -> Batch[W] | None:
        """Handle an id without a watcher. Return its batch in flight, if no other id needs it."""
        group = item.group
        assert group
        if TRANSITIONS[group.status][Transition.UNSUBSCRIBE] is Status.UNTRACKED:
            self._forget(item)
            self._order.on_removed(group)
            return None
        assert group.batch
        group.batch.watched_count -= 1
        return None if group.batch.watched_count else group.batch

    def _on_returned(self, batch: Batch[W]) -> None:
        self._order.on_returned(batch)
        if batch.watched_count < len(batch.items):
            for item in batch.items:
                if not item.watchers:
                    self._forget(item)
        for group in batch.groups:
            group.batch = None
            group.compact()

    def _remove(self, task_id: str) -> None:
        del self._items[task_id]
        if self._by_folded is not None:
            self._by_folded.remove(task_id)

    def _forget(self, item: Item[W]) -> None:
        self._remove(item.task_id)
        item.leave()
        self.timing.on_removed((None,))

    def _reschedule(
        self, group: Group[W], due: float, sent_at: float, deadline: float = inf
    ) -> None:
        if sent_at < self._first_tick_at and deadline == inf:
            due = min(due, self._first_tick_at)
        self._order.reschedule(group, min(due, deadline))
