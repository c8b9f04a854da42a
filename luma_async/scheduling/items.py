"""What the scheduler is made of: items (one id each), in groups (ids that are due together).

An id has exactly one status, that of its group, and TRANSITIONS says what changes it. An id in
flight that loses its last watcher is kept as abandoned until its request returns: if it were
forgotten and watched again, it would be in two requests at once.

Groups keep a million open ids cheap. Ids that one request asked about and that are due together
share what is known of that poll: when it was sent and answered, when they are due, how many
attempts failed. A response that shows nothing new costs no work for each id.

The garbage collector would visit a million items again and again. So an Item is hidden from it
(`gc=False`), and a group keeps items in a tuple, which is then hidden, too; a list is not. In
return, the code breaks the cycle of an item and its group where an id is forgotten.
"""

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Generic, Optional, TypeVar

from msgspec import Struct

from luma_async.protocol.rows import RowText
from luma_async.scheduling.anomalies import Anomaly
from luma_async.structs import State

if TYPE_CHECKING:
    from luma_async.scheduling.batches import Batch


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


# FINISH is what `Item.leave` does, in a batch that is in flight or returned.
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

    The last poll that was answered was sent at `sent_at`, None before the first one;
    `last_heard_at` is the time of the last response (of new ids: since when they are watched),
    `failed_attempts` the number of requests without a response since; `hangs`: they timed out while
    others were answered. `size` counts the ids that are left; those removed stay in `items` until
    `compact`. All were created between `oldest` and `youngest`.
    """

    __slots__ = (
        "batch", "due_at", "failed_attempts", "hangs", "items", "last_heard_at",
        "oldest", "sent_at", "size", "status", "youngest",
    )  # fmt: skip

    def __init__(self, items: Iterable[Item[W]], now: float) -> None:
        self.items: tuple[Item[W], ...] = tuple(items)
        self.size: int = len(self.items)
        for item in self.items:
            item.group = self
        self.status: Status = Status.UNTRACKED
        self.sent_at: float | None = None
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
        solo.sent_at, solo.hangs = self.sent_at, self.hangs
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
        """Take in all ids of other groups; of the times of their polls the earliest counts."""
        joining = [item for other in others for item in other.items]
        for item in joining:
            item.group = self
        self.items = (*self.items, *joining)
        self.size += len(joining)
        sent_at = [group.sent_at for group in (self, *others) if group.sent_at is not None]
        self.sent_at = min(sent_at, default=None)
        self.oldest = min([self.oldest, *(other.oldest for other in others)])
        self.youngest = max([self.youngest, *(other.youngest for other in others)])

    def update_age_range(self) -> None:
        """Compute `oldest` and `youngest` again."""
        born = [item.created_at for item in self.items]
        self.oldest = min(born, default=self.oldest)
        self.youngest = max(born, default=self.youngest)


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


def regroup(groups: Iterable[Group[W]], key_of: Callable[[float], float]) -> Iterable[Group[W]]:
    """Sort ids that were polled together into groups of equal `key_of(created_at)`."""
    by_key: dict[float, list[Group[W]]] = {}
    for group in groups:
        for key, part in _split_by_key(group, key_of):
            by_key.setdefault(key, []).append(part)
    for first, *others in by_key.values():
        if others:
            first.merge(others)
        yield first


def _split_by_key(
    group: Group[W], key_of: Callable[[float], float]
) -> Iterable[tuple[float, Group[W]]]:
    if not group.size:
        return ()
    key = key_of(group.oldest)
    if key_of(group.youngest) == key:
        return ((key, group),)
    by_key: dict[float, list[Item[W]]] = {}
    for item in group.items:
        by_key.setdefault(key_of(item.created_at), []).append(item)
    parts = {key: group.split_off(items) for key, items in by_key.items()}
    for part in parts.values():
        part.update_age_range()
    return parts.items()
