"""Which open ids the next request asks about, and when it is sent.

What is scheduled is the request, not a timer per id. A request costs the same with 1 id or 100, so
one that is sent is filled up, and soon all ids share one clock. When it is sent:

- Scheduled ids: the RequestTiming of the pace says when an id is due and when the request is sent.
- New ids are sent at once where nothing is in flight, unless the timing lets them linger for a
  moment. Where something is in flight they share the next request, so that ten thousand callers
  that come one by one cost what one caller costs. A full batch does not wait, and nothing waits
  longer than MAX_LINGER for a request that hangs.
- Ids whose request got no response back off until they may be sent again; they never fill up a
  batch.
- A third of the ids of a batch, or every third request, is for the ids that came last, so that they
  are not polled behind a backlog.
- Ids of a rejected batch are bisected: sent in halves until the bad one is alone. These requests
  take turns with others.
- An id found by bisection is quarantined: in a batch, it would have each batch rejected. It rejoins
  after a good response; rejected again, it stays alone for twice as many responses. So is an id
  that batch responses leave out: the single endpoint is asked about it (see `missing_evidence`).
"""

from math import inf
from typing import Generic

from luma_async.scheduling.batches import Batch
from luma_async.scheduling.items import Group, Status, Transition, W
from luma_async.scheduling.pace import MAX_LINGER
from luma_async.scheduling.queues import BisectionQueue, DueQueue, HangingQueue, NewQueue
from luma_async.scheduling.request_timing import RequestTiming

SHARE_OF_NEW = 3  # every third id, or every third request, is for the ids that came last
MAX_EMPTY_GROUPS = 100  # plus half the number of the groups that were left the last time


class PollingOrder(Generic[W]):
    """The queues of groups, and the batches in flight.

    `max_batch` is how many new ids are sent without waiting for more.
    """

    def __init__(self, timing: RequestTiming, max_batch: int, max_in_flight: int) -> None:
        self.in_flight: set[Batch[W]] = set()
        self._timing = timing
        self._max_batch = max_batch
        self._max_hanging = max(1, max_in_flight - 1)
        self._new: NewQueue[W] = NewQueue()
        self._scheduled: DueQueue[W] = DueQueue()
        self._backing_off: DueQueue[W] = DueQueue()
        self._quarantined: DueQueue[W] = DueQueue()
        self._hanging: HangingQueue[W] = HangingQueue()
        self._bisecting: BisectionQueue[W] = BisectionQueue()
        self._bisecting_first = True
        self._new_after_return = False
        self._requests_since_newest = 0
        self._urgent = False
        self._probing = False
        self._empty_count = 0
        self._max_empty = MAX_EMPTY_GROUPS

    def add_new(self, group: Group[W], now: float, *, until: float = inf) -> None:
        """Add new ids; they do not linger if their watcher leaves soon, at `until`."""
        group.apply(Transition.SUBSCRIBE)
        self._new.push(group, now + (MAX_LINGER if self.in_flight else 0.0))
        self._urgent |= until < self._timing.linger_until + MAX_LINGER

    def reschedule(self, group: Group[W], due: float) -> None:
        """Poll answered ids again at `due`."""
        self._push(group, Transition.RESCHEDULE, due, self._scheduled)

    def back_off(self, group: Group[W], until: float) -> None:
        """Poll ids again at `until` whose request got no response."""
        group.failed_attempts += 1
        self._push(group, Transition.BACK_OFF, until, self._backing_off)

    def back_off_hanging(self, batch: Batch[W], until: float) -> None:
        """Poll the ids of a batch again at `until`, apart from others.

        All but one of the requests in flight may be such batches: one is left for ids that are
        answered.
        """
        self._hanging.push_parts(batch, until)

    def bisect(self, batch: Batch[W], parts: int, size_evidence: int, *, last: bool) -> None:
        """Send the ids of a batch in parts from now on; `last`: after other such parts."""
        self._bisecting.push(batch, parts, size_evidence, last=last)

    def probe(self) -> None:
        """Send the next batch at once, whatever is due next."""
        self._probing = True

    def on_returned(self, batch: Batch[W]) -> None:
        """Record that a batch is in flight no more."""
        self.in_flight.remove(batch)
        self._new_after_return = self._new.ids > 0

    def on_removed(self, group: Group[W]) -> None:
        """Record that an id of a group in a queue was removed from it."""
        self._new.ids -= group.status is Status.NEW
        if not group.size:
            self._drop_empty_groups()

    def next_due(self) -> float:
        """Return when the next batch is sent; inf if none will be."""
        if self._bisecting.is_due():
            return -inf
        if self._must_probe():
            return -inf
        return min(self._hanging_due(), self._quarantined.due_at(), self._shared_batch_due())

    def take(self, now: float, max_ids: int, open_ids: int) -> Batch[W]:
        """Return the batch that is due, of at most `max_ids` ids; `open_ids` in all are open."""
        self._requests_since_newest += 1
        batch = self._take_next(now, max_ids, open_ids)
        self._new_after_return = self._probing = False
        self.in_flight.add(batch)
        return batch

    def _must_probe(self) -> bool:
        return self._probing and (self._new.ids > 0 or self._scheduled.due_at() < inf)

    def _take_next(self, now: float, max_ids: int, open_ids: int) -> Batch[W]:
        apart = None if self._must_probe() else self._take_apart(now, max_ids)
        return apart or self._take_shared(now, max_ids, open_ids)

    def _take_apart(self, now: float, max_ids: int) -> Batch[W] | None:
        """Return a batch of ids that are sent apart from the others, None if none is due first."""
        # A part of a rejected batch and anything else take turns; so a bisection delays the others
        # by one request each, and they delay it by one. Of the others, a quarantined id goes alone
        # if it is due before the shared batch, and it is not the turn of new ids.
        alone_at, shared_at = self._quarantined.due_at(), self._shared_batch_due()
        hanging_at = self._hanging_due()
        others_at = min(alone_at, shared_at, hanging_at)
        if self._bisecting.is_due() and (self._bisecting_first or others_at > now):
            self._bisecting_first = False
            groups, bisection = self._bisecting.pop(max_ids)
            return Batch(groups, now, bisection)
        self._bisecting_first = True
        if hanging_at <= min(now, alone_at, shared_at):
            return Batch([self._hanging.pop(max_ids)], now)
        if alone_at <= min(now, shared_at) and not (self._is_turn_of_new() and shared_at <= now):
            return Batch([self._quarantined.pop(1)], now)
        return None

    def _take_shared(self, now: float, max_ids: int, open_ids: int) -> Batch[W]:
        batch = Batch(self._fill(now, max_ids), now)
        self._urgent &= self._new.ids > 0
        self._timing.on_sent(
            now,
            open_ids=open_ids,
            max_ids=max_ids,
            whole=not self._new.ids and self._scheduled.due_at() == inf,
            again=batch.attempt > 1,
        )
        return batch

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

    def _is_turn_of_new(self) -> bool:
        """Whether the next request is for the ids that came last, where it has few ids."""
        return self._new.ids > 0 and self._requests_since_newest >= SHARE_OF_NEW

    def _shared_batch_due(self) -> float:
        return min(
            self._new_due(),
            self._backing_off.due_at(),
            self._timing.send_at(self._scheduled.due_at()),
        )

    def _new_due(self) -> float:
        # New ids that fill a batch: at once. Nothing in flight, or a request returned since: at
        # once. Else when that request is late, MAX_LINGER after they came. Not before
        # `linger_until`, where the timing sends a request soon anyway; urgent ones do not wait.
        first = self._new.first()
        if first is None:
            return inf
        if self._new.ids >= self._max_batch:
            return first.last_heard_at
        at_once = not self.in_flight or self._new_after_return
        leaves_at = first.last_heard_at if at_once else first.due_at
        return leaves_at if self._urgent else max(leaves_at, self._timing.linger_until)

    def _hanging_due(self) -> float:
        """Return when the next batch of ids that timed out is sent."""
        if not self._hanging:
            return inf
        if sum(batch.hangs for batch in self.in_flight) >= self._max_hanging:
            return inf
        return self._hanging.due_at()

    def _push(
        self, group: Group[W], transition: Transition, due: float, queue: DueQueue[W]
    ) -> None:
        """Keep a group until it is due; a quarantined id apart from the others."""
        anomaly = group.items[0].anomaly
        alone = anomaly is not None and anomaly.solo_polls_left > 0
        group.apply(Transition.QUARANTINE if alone else transition)
        (self._quarantined if alone else queue).push(group, due)

    def _drop_empty_groups(self) -> None:
        """Drop empty groups once they outnumber the others."""
        self._empty_count += 1
        if self._empty_count <= self._max_empty:
            return
        queues: tuple[NewQueue[W] | DueQueue[W], ...] = (
            self._new, self._scheduled, self._backing_off, self._quarantined, self._hanging,
        )  # fmt: skip
        for queue in queues:
            queue.drop_empty()
        self._empty_count = 0
        self._max_empty = MAX_EMPTY_GROUPS + sum(map(len, queues)) // 2
