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

from luma_async.scheduling.anomalies import LOOKS, Odd
from luma_async.structs import Generation, State


class Phase(StrEnum):
    """Where an id stands with the book."""

    ABSENT = "absent"
    FRESH = "fresh"
    ASKED = "asked"
    ORPHANED = "orphaned"
    RESTING = "resting"
    HELD = "held"
    SUSPECT = "suspect"
    EXILED = "exiled"


class Event(StrEnum):
    """What can happen to an id."""

    WATCH = "watch"
    UNWATCH = "unwatch"
    TAKE = "take"
    REST = "rest"
    HOLD = "hold"
    SUSPECT = "suspect"
    EXILE = "exile"
    END = "end"


TRANSITIONS: dict[Phase, dict[Event, Phase]] = {
    Phase.ABSENT: {Event.WATCH: Phase.FRESH},
    Phase.FRESH: {Event.TAKE: Phase.ASKED, Event.UNWATCH: Phase.ABSENT},
    Phase.ASKED: {
        Event.REST: Phase.RESTING,
        Event.HOLD: Phase.HELD,
        Event.SUSPECT: Phase.SUSPECT,
        Event.EXILE: Phase.EXILED,
        Event.END: Phase.ABSENT,
        Event.UNWATCH: Phase.ORPHANED,
    },
    Phase.ORPHANED: {Event.WATCH: Phase.ASKED, Event.END: Phase.ABSENT},
    Phase.RESTING: {Event.TAKE: Phase.ASKED, Event.UNWATCH: Phase.ABSENT},
    Phase.HELD: {Event.TAKE: Phase.ASKED, Event.UNWATCH: Phase.ABSENT},
    Phase.SUSPECT: {Event.TAKE: Phase.ASKED, Event.UNWATCH: Phase.ABSENT},
    Phase.EXILED: {Event.TAKE: Phase.ASKED, Event.UNWATCH: Phase.ABSENT},
}

W = TypeVar("W")


class Entry(Struct, Generic[W], gc=False, eq=False):
    """One open id; `told` is what the last news said, read on demand."""

    task_id: str
    since: float
    born: float
    watchers: tuple[W, ...] | dict[W, None] = ()
    told: Generation | bytes | None = None
    state: State | None = None
    odd: Odd | None = None
    place: Optional["Cohort[W]"] = None

    @property
    def phase(self) -> Phase:
        """Where it stands."""
        if self.place is None:
            return Phase.ABSENT
        if not self.watchers and self.place.phase is Phase.ASKED:
            return Phase.ORPHANED
        return self.place.phase

    def join(self, watcher: tuple[W]) -> None:
        """Note one more who wants it."""
        if not self.watchers:
            self.watchers = watcher
        elif watcher[0] not in self.watchers:
            if isinstance(self.watchers, tuple):
                self.watchers = dict.fromkeys(self.watchers)
            self.watchers[watcher[0]] = None

    def part(self, watcher: W) -> bool:
        """Note that one wants it no more; False for one who did not."""
        if watcher not in self.watchers:
            return False
        if isinstance(self.watchers, tuple):
            self.watchers = ()
        else:
            del self.watchers[watcher]
        return True

    def oddity(self) -> Odd:
        """Return what is odd about it, to be written to."""
        if self.odd is None:
            self.odd = Odd()
        return self.odd


class Cohort(Generic[W]):
    """Ids that travel together.

    They were `asked` about and `looked` at (when the answer came) at the same times last, if ever,
    `heard` of at the same time (of those that are new: watched since then), asked about in vain for
    as many `tries` since, and are `due` together. Who has left is dropped from `entries` when the
    cohort moves, or when they are half of it; `alive` is how many have not. Nobody is older than
    `oldest`, or younger than `youngest`.
    """

    __slots__ = (
        "alive", "asked", "call", "due", "entries", "heard", "looked", "oldest", "phase", "tries",
        "youngest",
    )  # fmt: skip

    def __init__(self, entries: Iterable[Entry[W]], now: float) -> None:
        self.entries: tuple[Entry[W], ...] = tuple(entries)
        self.alive: int = len(self.entries)
        for entry in self.entries:
            entry.place = self
        self.phase: Phase = Phase.ABSENT
        self.asked: float | None = None
        self.looked: float | None = None
        self.due: float = now
        self.heard: float = now
        self.oldest: float = now
        self.youngest: float = now
        self.tries: int = 0
        self.call: Call[W] | None = None

    def move(self, event: Event) -> None:
        """Go to the phase that the event leads to."""
        self.phase = TRANSITIONS[self.phase][event]

    def muster(self) -> None:
        """Drop those who have left."""
        if self.alive < len(self.entries):
            self.entries = tuple([entry for entry in self.entries if entry.place is self])

    def lose(self, entry: Entry[W]) -> None:
        """Let one id go."""
        entry.place = None
        self.alive -= 1
        if 2 * self.alive < len(self.entries) and self.call is None:
            self.muster()

    def detach(self, entries: Iterable[Entry[W]]) -> "Cohort[W]":
        """Make a cohort of its own of some of those here; the others have to be mustered."""
        apart = Cohort(entries, self.heard)
        apart.phase, apart.due, apart.tries = self.phase, self.due, self.tries
        apart.asked, apart.looked = self.asked, self.looked
        apart.oldest, apart.youngest = self.oldest, self.youngest
        self.alive -= apart.alive
        return apart

    @property
    def born(self) -> float:
        """When those here were born, about."""
        return (self.oldest + self.youngest) / 2

    def take_first(self, most: int) -> "Cohort[W]":
        """Detach the first so many here; return this one if it has no more than that."""
        self.muster()
        if self.alive <= most:
            return self
        first = self.detach(self.entries[:most])
        self.entries = self.entries[most:]
        return first

    def absorb(self, others: Sequence["Cohort[W]"]) -> None:
        """Take in all of others, of which the same is known."""
        joining = [entry for other in others for entry in other.entries]
        for entry in joining:
            entry.place = self
        self.entries = (*self.entries, *joining)
        self.alive += len(joining)
        self.oldest = min([self.oldest, *(other.oldest for other in others)])
        self.youngest = max([self.youngest, *(other.youngest for other in others)])

    def measure(self) -> None:
        """Note anew when the oldest and the youngest were born."""
        born = [entry.born for entry in self.entries]
        self.oldest = min(born, default=self.oldest)
        self.youngest = max(born, default=self.youngest)


class Call(Generic[W]):
    """One request to make: whom it asks about, and how many of them are still wanted."""

    __slots__ = ("by_batch", "cohorts", "departed", "entries", "halved", "wanted")

    def __init__(
        self, cohorts: Sequence[Cohort[W]], now: float, halved: "Halved | None" = None
    ) -> None:
        self.cohorts: Sequence[Cohort[W]] = cohorts
        self.entries: list[Entry[W]] = [entry for cohort in cohorts for entry in cohort.entries]
        self.halved: Halved | None = halved
        self.wanted: int = len(self.entries)
        self.by_batch: bool = self.wanted > 1
        self.departed: float = now
        for cohort in cohorts:
            cohort.move(Event.TAKE)
            cohort.call = self

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids asked about, each once."""
        return tuple([entry.task_id for entry in self.entries])

    @property
    def tries(self) -> int:
        """How many times in a row the ids have been taken, this time included."""
        return 1 + max(cohort.tries for cohort in self.cohorts)

    @property
    def exiled(self) -> bool:
        """Whether it asks about one id that has to travel alone."""
        odd = self.entries[0].odd
        return len(self.entries) == 1 and odd is not None and odd.alone > 0

    @property
    def in_vain(self) -> bool:
        """Whether the single call has told so little of the id that the batch call is worth a try.

        That is once where it is unknown, and every other time where it brings no answer at all.
        """
        tries = self.cohorts[0].tries
        if tries:
            return tries > LOOKS and tries % 2 == 0
        odd = self.entries[0].odd
        return odd is not None and odd.absences == LOOKS // 2

    @property
    def since(self) -> float:
        """Since when the youngest of the ids has been watched."""
        return max(entry.since for entry in self.entries)

    def __repr__(self) -> str:
        return f"<Call of {len(self.entries)} ids, {self.wanted} wanted>"


def halves(cohorts: Iterable[Cohort[W]], size: int) -> tuple[list[Cohort[W]], list[Cohort[W]]]:
    """Part cohorts into the first `size` ids and the others."""
    first: list[Cohort[W]] = []
    rest: list[Cohort[W]] = []
    for cohort in cohorts:
        if size and cohort.alive:
            aboard = cohort.take_first(size)
            size -= aboard.alive
            first.append(aboard)
            if aboard is cohort:
                continue
        if cohort.alive:
            rest.append(cohort)
    return first, rest


class Halved:
    """A refused call that travels in parts; it was too large if all of them pass.

    A part of one id says nothing: it goes by the single call.
    """

    __slots__ = ("parts", "root", "size")

    def __init__(self, size: int, parent: "Halved | None") -> None:
        self.size: int = size
        self.parts: int = 2
        self.root: Halved = parent.root if parent else self

    def passed(self) -> bool:
        """Note that a part passed; return whether all have."""
        self.parts -= 1
        return self.parts == 0
