"""What the scheduler is made of: an item (one id), a group (ids due together), a batch (a request).

An id has exactly one status, that of its group, and TRANSITIONS says what changes it. An id in
flight that loses its last watcher is kept as abandoned until its request returns: if it were
forgotten and watched again, it would be in two requests at once.

Groups keep a million open ids cheap. Ids that one request asked about and that are due together
share what is known of that poll: when it was sent and answered, when they are due, how many
attempts failed. A response that shows nothing new costs no work for each id. An Item is hidden from
the garbage collector (`gc=False`; a tuple of items is hidden, a list is not), which would otherwise
visit a million objects again and again. In return, the cycle of an item and its group is broken
by hand where an id is forgotten.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Generic, Optional, TypeVar

from msgspec import Struct

from luma_async.protocol.rows import RowText
from luma_async.scheduling.anomalies import Anomaly
from luma_async.structs import State

FAILED_ATTEMPTS_OF_SINGLE = 6  # before the batch endpoint is tried for a single id


class Status(StrEnum):
    """The status of an id in the scheduler."""

    UNTRACKED = "untracked"
    NEW = "new"
    IN_FLIGHT = "in_flight"
    ABANDONED = "abandoned"
    SCHEDULED = "scheduled"
    BACKING_OFF = "backing_off"
    BISECTING = "bisecting"
    QUARANTINED = "quarantined"


class Transition(StrEnum):
    """What changes the status of an id."""

    SUBSCRIBE = "subscribe"
    UNSUBSCRIBE = "unsubscribe"
    SEND = "send"
    RESCHEDULE = "reschedule"
    BACK_OFF = "back_off"
    BISECT = "bisect"
    QUARANTINE = "quarantine"
    FINISH = "finish"


TRANSITIONS: dict[Status, dict[Transition, Status]] = {
    Status.UNTRACKED: {Transition.SUBSCRIBE: Status.NEW},
    Status.NEW: {Transition.SEND: Status.IN_FLIGHT, Transition.UNSUBSCRIBE: Status.UNTRACKED},
    Status.IN_FLIGHT: {
        Transition.RESCHEDULE: Status.SCHEDULED,
        Transition.BACK_OFF: Status.BACKING_OFF,
        Transition.BISECT: Status.BISECTING,
        Transition.QUARANTINE: Status.QUARANTINED,
        Transition.FINISH: Status.UNTRACKED,
        Transition.UNSUBSCRIBE: Status.ABANDONED,
    },
    Status.ABANDONED: {Transition.SUBSCRIBE: Status.IN_FLIGHT, Transition.FINISH: Status.UNTRACKED},
    Status.SCHEDULED: {Transition.SEND: Status.IN_FLIGHT, Transition.UNSUBSCRIBE: Status.UNTRACKED},
    Status.BACKING_OFF: {
        Transition.SEND: Status.IN_FLIGHT,
        Transition.UNSUBSCRIBE: Status.UNTRACKED,
    },
    Status.BISECTING: {Transition.SEND: Status.IN_FLIGHT, Transition.UNSUBSCRIBE: Status.UNTRACKED},
    Status.QUARANTINED: {
        Transition.SEND: Status.IN_FLIGHT,
        Transition.UNSUBSCRIBE: Status.UNTRACKED,
    },
}

W = TypeVar("W")


class Item(Struct, Generic[W], gc=False, eq=False):
    """One open id.

    `last_row` is the row of the last change. Times are loop times in seconds.
    """

    task_id: str
    watched_since: float
    created_at: float
    watchers: tuple[W, ...] | dict[W, None] = ()
    last_row: RowText | None = None
    state: State | None = None
    anomaly: Anomaly | None = None
    group: Optional["Group[W]"] = None

    @property
    def status(self) -> Status:
        """The status: that of the group, or abandoned: in flight without a watcher."""
        if self.group is None:
            return Status.UNTRACKED
        if not self.watchers and self.group.status is Status.IN_FLIGHT:
            return Status.ABANDONED
        return self.group.status

    def add_watcher(self, watcher: tuple[W]) -> None:
        """Add a watcher; one that is registered already is not added twice."""
        if not self.watchers:
            self.watchers = watcher
        elif watcher[0] not in self.watchers:
            if isinstance(self.watchers, tuple):
                self.watchers = dict.fromkeys(self.watchers)
            self.watchers[watcher[0]] = None

    def remove_watcher(self, watcher: W) -> bool:
        """Remove a watcher. Return False if it was not registered."""
        if watcher not in self.watchers:
            return False
        if isinstance(self.watchers, tuple):
            self.watchers = ()
        else:
            del self.watchers[watcher]
        return True

    def leave(self) -> None:
        """Drop all watchers, and leave the group."""
        self.watchers = ()
        if self.group:
            self.group.remove(self)

    def anomaly_or_new(self) -> Anomaly:
        """Return its anomaly, made if there was none."""
        if self.anomaly is None:
            self.anomaly = Anomaly()
        return self.anomaly


class Group(Generic[W]):
    """Ids that were polled together and are due together.

    The last poll was sent at `sent_at` and answered at `answered_at`, None before the first one;
    `last_heard_at` is the time of the last response (of new ids: since when they are watched),
    `failed_attempts` the number of requests without a response since; `hangs`: they timed out
    while others were answered. `size` counts the ids that
    are left; those removed stay in `items` until `compact`. All were created between `oldest` and
    `youngest`.
    """

    __slots__ = (
        "answered_at", "batch", "due_at", "failed_attempts", "hangs", "items", "last_heard_at",
        "oldest", "sent_at", "size", "status", "youngest",
    )  # fmt: skip

    def __init__(self, items: Iterable[Item[W]], now: float) -> None:
        self.items: tuple[Item[W], ...] = tuple(items)
        self.size: int = len(self.items)
        for item in self.items:
            item.group = self
        self.status: Status = Status.UNTRACKED
        self.sent_at: float | None = None
        self.answered_at: float | None = None
        self.due_at: float = now
        self.last_heard_at: float = now
        self.oldest: float = now
        self.youngest: float = now
        self.failed_attempts: int = 0
        self.hangs: bool = False
        self.batch: Batch[W] | None = None

    def apply(self, event: Transition) -> None:
        """Change the status; KeyError for a transition that the status does not allow."""
        self.status = TRANSITIONS[self.status][event]

    def compact(self) -> None:
        """Drop removed ids from `items`."""
        if self.size < len(self.items):
            self.items = tuple([item for item in self.items if item.group is self])

    def remove(self, item: Item[W]) -> None:
        """Remove an id."""
        item.group = None
        self.size -= 1
        if 2 * self.size < len(self.items) and self.batch is None:
            self.compact()

    def split_off(self, items: Iterable[Item[W]]) -> "Group[W]":
        """Move some ids to a group of their own; call `compact` on this one afterwards."""
        solo = Group(items, self.last_heard_at)
        solo.status, solo.due_at, solo.failed_attempts = (
            self.status,
            self.due_at,
            self.failed_attempts,
        )
        solo.sent_at, solo.answered_at, solo.hangs = self.sent_at, self.answered_at, self.hangs
        solo.oldest, solo.youngest = self.oldest, self.youngest
        self.size -= solo.size
        return solo

    @property
    def mean_created_at(self) -> float:
        """The middle between `oldest` and `youngest`."""
        return (self.oldest + self.youngest) / 2

    def take(self, most: int) -> "Group[W]":
        """Split off the first `most` ids; return this group if it has no more than that."""
        self.compact()
        if self.size <= most:
            return self
        first = self.split_off(self.items[:most])
        self.items = self.items[most:]
        return first

    def merge(self, others: Sequence["Group[W]"]) -> None:
        """Take in all ids of other groups, which were polled at the same times."""
        joining = [item for other in others for item in other.items]
        for item in joining:
            item.group = self
        self.items = (*self.items, *joining)
        self.size += len(joining)
        self.oldest = min([self.oldest, *(other.oldest for other in others)])
        self.youngest = max([self.youngest, *(other.youngest for other in others)])

    def update_age_range(self) -> None:
        """Compute `oldest` and `youngest` again."""
        born = [item.created_at for item in self.items]
        self.oldest = min(born, default=self.oldest)
        self.youngest = max(born, default=self.youngest)


class Batch(Generic[W]):
    """One request: the ids it asks about, and how many of them still have a watcher."""

    __slots__ = (
        "bisection", "groups", "items", "sent_at", "use_batch_endpoint", "watched_count",
    )  # fmt: skip

    def __init__(
        self, groups: Sequence[Group[W]], now: float, bisection: "Bisection | None" = None
    ) -> None:
        self.groups: Sequence[Group[W]] = groups
        self.items: list[Item[W]] = [item for group in groups for item in group.items]
        self.bisection: Bisection | None = bisection
        self.watched_count: int = len(self.items)
        self.use_batch_endpoint: bool = self.watched_count > 1
        self.sent_at: float = now
        for group in groups:
            group.apply(Transition.SEND)
            group.batch = self

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids, each once."""
        return tuple([item.task_id for item in self.items])

    @property
    def attempt(self) -> int:
        """The number of requests in a row about these ids, this one included."""
        return 1 + max(group.failed_attempts for group in self.groups)

    @property
    def is_quarantined(self) -> bool:
        """Whether it asks about one id that is in quarantine."""
        anomaly = self.items[0].anomaly
        return len(self.items) == 1 and anomaly is not None and anomaly.solo_polls_left > 0

    @property
    def try_batch_endpoint(self) -> bool:
        """Whether to ask about a single id by the batch endpoint.

        Once for an id that the single endpoint does not know, and every other time where the single
        endpoint does not respond at all.
        """
        failed = self.groups[0].failed_attempts
        if failed:
            return failed > FAILED_ATTEMPTS_OF_SINGLE and failed % 2 == 0
        anomaly = self.items[0].anomaly
        evidence = anomaly.evidence if anomaly else None
        return (
            evidence is not None
            and evidence.not_found > 0
            and not (evidence.left_out or evidence.tried_batch)
        )

    def choose_endpoint(self, *, has_single: bool, has_batch: bool) -> None:
        """Use the batch endpoint for a single id, where that may say more."""
        if len(self.items) > 1:
            return
        self.use_batch_endpoint = not has_single or (has_batch and self.try_batch_endpoint)
        anomaly = self.items[0].anomaly
        if self.use_batch_endpoint and anomaly and anomaly.evidence:
            anomaly.evidence.tried_batch = True

    @property
    def hangs(self) -> bool:
        """Whether its ids timed out before, while others were answered."""
        return any(group.hangs for group in self.groups)

    @property
    def last_heard_at(self) -> float:
        """When one of its ids had a response last."""
        return max(group.last_heard_at for group in self.groups)

    @property
    def watched_since(self) -> float:
        """Since when the id watched last has been watched."""
        return max(item.watched_since for item in self.items)

    def __repr__(self) -> str:
        return f"<Batch of {len(self.items)} ids, {self.watched_count} watched>"


def split_at(groups: Iterable[Group[W]], size: int) -> tuple[list[Group[W]], list[Group[W]]]:
    """Split groups into the first `size` ids and the rest."""
    first: list[Group[W]] = []
    rest: list[Group[W]] = []
    for group in groups:
        if size and group.size:
            taken = group.take(size)
            size -= taken.size
            first.append(taken)
            if taken is group:
                continue
        if group.size:
            rest.append(group)
    return first, rest


class Bisection:
    """A rejected batch that is sent in parts; it was too large if all parts pass.

    A part of one id proves nothing: it goes to the single endpoint. `size_evidence` is how far the
    rejection says that the batch was too large.
    """

    __slots__ = ("parts", "root", "size", "size_evidence")

    def __init__(self, size: int, parent: "Bisection | None", size_evidence: int) -> None:
        self.size: int = size
        self.parts: int = 2
        self.root: Bisection = parent.root if parent else self
        self.size_evidence: int = size_evidence

    def part_passed(self) -> bool:
        """Count a part that passed. Return whether all have."""
        self.parts -= 1
        return self.parts == 0
