"""What the book is made of: an id and where it stands, those who travel together, a request.

An id is in exactly one phase, that of its cohort, and TRANSITIONS says what moves it. An id that is
taken and that nobody wants any more stays, orphaned, until its call returns: forgetting it earlier
would ask about it twice at once if somebody wanted it again.

What moves is the cohort: ids that were asked about together last time and are due together. All
that such a look tells of them alike (when it was, when they are due, how often it brought nothing)
is said once, of the cohort, and an answer that shows nothing new is no work for each id. So a
million open ids are ten thousand cohorts, and an id is little more than its name and its state:
what is odd about one is kept apart, for most are not. An `Entry` is hidden from the garbage
collector, which would otherwise stop the world to look at a million of them (so is a tuple of
them, and no list is); whoever forgets one breaks its circle by hand.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Generic, Optional, TypeVar

from msgspec import Struct

from luma_async.scheduling.anomalies import MIN_NOT_FOUND_ANSWERS, Anomaly
from luma_async.structs import Generation, State


class Status(StrEnum):
    """Where an id stands with the book."""

    UNTRACKED = "untracked"
    NEW = "new"
    IN_FLIGHT = "in_flight"
    ABANDONED = "abandoned"
    SCHEDULED = "scheduled"
    BACKING_OFF = "backing_off"
    BISECTING = "bisecting"
    QUARANTINED = "quarantined"


class Transition(StrEnum):
    """What can happen to an id."""

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
    """One open id; `told` is what the last news said, read on demand."""

    task_id: str
    watched_since: float
    created_at: float
    watchers: tuple[W, ...] | dict[W, None] = ()
    last_row: Generation | bytes | None = None
    state: State | None = None
    anomaly: Anomaly | None = None
    group: Optional["Group[W]"] = None

    @property
    def status(self) -> Status:
        """Where it stands."""
        if self.group is None:
            return Status.UNTRACKED
        if not self.watchers and self.group.status is Status.IN_FLIGHT:
            return Status.ABANDONED
        return self.group.status

    def add_watcher(self, watcher: tuple[W]) -> None:
        """Note one more who wants it."""
        if not self.watchers:
            self.watchers = watcher
        elif watcher[0] not in self.watchers:
            if isinstance(self.watchers, tuple):
                self.watchers = dict.fromkeys(self.watchers)
            self.watchers[watcher[0]] = None

    def remove_watcher(self, watcher: W) -> bool:
        """Note that one wants it no more; False for one who did not."""
        if watcher not in self.watchers:
            return False
        if isinstance(self.watchers, tuple):
            self.watchers = ()
        else:
            del self.watchers[watcher]
        return True

    def anomaly_or_new(self) -> Anomaly:
        """Return what is odd about it, to be written to."""
        if self.anomaly is None:
            self.anomaly = Anomaly()
        return self.anomaly


class Group(Generic[W]):
    """Ids that travel together.

    They were `asked` about and `looked` at (when the answer came) at the same times last, if ever,
    `heard` of at the same time (of those that are new: watched since then), asked about in vain for
    as many `tries` since, and are `due` together. Who has left is dropped from `entries` when the
    cohort moves, or when they are half of it; `alive` is how many have not. Nobody is older than
    `oldest`, or younger than `youngest`.
    """

    __slots__ = (
        "answered_at", "batch", "due_at", "failed_attempts", "items", "last_heard_at", "oldest",
        "sent_at", "size", "status", "youngest",
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
        self.batch: Batch[W] | None = None

    def apply(self, event: Transition) -> None:
        """Go to the phase that the event leads to."""
        self.status = TRANSITIONS[self.status][event]

    def compact(self) -> None:
        """Drop those who have left."""
        if self.size < len(self.items):
            self.items = tuple([item for item in self.items if item.group is self])

    def remove(self, item: Item[W]) -> None:
        """Let one id go."""
        item.group = None
        self.size -= 1
        if 2 * self.size < len(self.items) and self.batch is None:
            self.compact()

    def split_off(self, items: Iterable[Item[W]]) -> "Group[W]":
        """Make a cohort of its own of some of those here; the others have to be mustered."""
        solo = Group(items, self.last_heard_at)
        solo.status, solo.due_at, solo.failed_attempts = (
            self.status,
            self.due_at,
            self.failed_attempts,
        )
        solo.sent_at, solo.answered_at = self.sent_at, self.answered_at
        solo.oldest, solo.youngest = self.oldest, self.youngest
        self.size -= solo.size
        return solo

    @property
    def mean_created_at(self) -> float:
        """When those here were born, about."""
        return (self.oldest + self.youngest) / 2

    def take(self, most: int) -> "Group[W]":
        """Detach the first so many here; return this one if it has no more than that."""
        self.compact()
        if self.size <= most:
            return self
        first = self.split_off(self.items[:most])
        self.items = self.items[most:]
        return first

    def merge(self, others: Sequence["Group[W]"]) -> None:
        """Take in all of others, of which the same is known."""
        joining = [item for other in others for item in other.items]
        for item in joining:
            item.group = self
        self.items = (*self.items, *joining)
        self.size += len(joining)
        self.oldest = min([self.oldest, *(other.oldest for other in others)])
        self.youngest = max([self.youngest, *(other.youngest for other in others)])

    def update_age_range(self) -> None:
        """Note anew when the oldest and the youngest were born."""
        born = [item.created_at for item in self.items]
        self.oldest = min(born, default=self.oldest)
        self.youngest = max(born, default=self.youngest)


class Batch(Generic[W]):
    """One request to make: whom it asks about, and how many of them are still wanted."""

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
        """The ids asked about, each once."""
        return tuple([item.task_id for item in self.items])

    @property
    def attempt(self) -> int:
        """How many times in a row the ids have been taken, this time included."""
        return 1 + max(group.failed_attempts for group in self.groups)

    @property
    def is_quarantined(self) -> bool:
        """Whether it asks about one id that has to travel alone."""
        anomaly = self.items[0].anomaly
        return len(self.items) == 1 and anomaly is not None and anomaly.solo_polls_left > 0

    @property
    def try_batch_endpoint(self) -> bool:
        """Whether the single call has told so little of the id that the batch call is worth a try.

        That is once where it is unknown, and every other time where it brings no answer at all.
        """
        tries = self.groups[0].failed_attempts
        if tries:
            return tries > MIN_NOT_FOUND_ANSWERS and tries % 2 == 0
        anomaly = self.items[0].anomaly
        return anomaly is not None and anomaly.not_found_count == MIN_NOT_FOUND_ANSWERS // 2

    @property
    def watched_since(self) -> float:
        """Since when the youngest of the ids has been watched."""
        return max(item.watched_since for item in self.items)

    def __repr__(self) -> str:
        return f"<Batch of {len(self.items)} ids, {self.watched_count} watched>"


def split_at(groups: Iterable[Group[W]], size: int) -> tuple[list[Group[W]], list[Group[W]]]:
    """Part cohorts into the first `size` ids and the others."""
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
    """A refused call that travels in parts; it was too large if all of them pass.

    A part of one id says nothing: it goes by the single call.
    """

    __slots__ = ("parts", "root", "size")

    def __init__(self, size: int, parent: "Bisection | None") -> None:
        self.size: int = size
        self.parts: int = 2
        self.root: Bisection = parent.root if parent else self

    def part_passed(self) -> bool:
        """Note that a part passed; return whether all have."""
        self.parts -= 1
        return self.parts == 0
