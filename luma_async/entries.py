"""What the book is made of: an id and where it stands, a request and whom it carries.

An id is in exactly one phase, and TRANSITIONS says what moves it. An id that is taken and that
nobody wants any more stays, orphaned, until its call returns: forgetting it earlier would ask about
it twice at once if somebody wanted it again.
"""

from enum import StrEnum
from typing import Generic, TypeVar

from luma_async.structs import Generation

LOOKS = 6


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


class Entry(Generic[W]):
    """One open id."""

    __slots__ = (
        "absences", "alone", "asked", "born", "call", "due", "ended_at", "exiles", "generation",
        "heard", "linkless", "looked", "missing", "phase", "since", "task_id", "tries", "watchers",
    )  # fmt: skip

    def __init__(self, task_id: str, now: float) -> None:
        self.task_id = task_id
        self.phase = Phase.ABSENT
        self.watchers: dict[W, None] = {}
        self.since = self.born = self.due = self.heard = now
        self.asked: float | None = None
        self.ended_at: float | None = None
        self.tries = 0
        self.alone = self.exiles = self.absences = 0
        self.call: Call[W] | None = None
        self.generation: Generation | None = None
        self.looked: float | None = None
        self.missing: float | None = None
        self.linkless: float | None = None

    def move(self, event: Event) -> None:
        """Go to the phase that the event leads to."""
        self.phase = TRANSITIONS[self.phase][event]

    def hear(self, now: float) -> None:
        """Note an answer; the grace of an odd one does not run while requests bring none."""
        unheard = now - self.heard if self.tries else 0.0
        self.missing = None if self.missing is None else self.missing + unheard
        self.linkless = None if self.linkless is None else self.linkless + unheard
        self.heard = now
        self.tries = 0

    def exile(self) -> None:
        """Let it travel alone for 1, 2, 4, … answers that make sense."""
        self.alone = 2**self.exiles
        self.exiles += 1


class Call(Generic[W]):
    """One request to make: which ids it asks about, and how often they were spoiled in a row."""

    __slots__ = ("by_batch", "departed", "entries", "halved", "wanted")

    def __init__(self, entries: list[Entry[W]], now: float, halved: "Halved | None" = None) -> None:
        self.entries = entries
        self.halved = halved
        self.by_batch = len(entries) > 1
        self.departed = now
        self.wanted = len(entries)
        for entry in entries:
            entry.move(Event.TAKE)
            entry.call = self

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids asked about, each once."""
        return tuple(entry.task_id for entry in self.entries)

    @property
    def tries(self) -> int:
        """How many times in a row the ids have been taken, this time included."""
        return 1 + max(entry.tries for entry in self.entries)

    @property
    def exiled(self) -> bool:
        """Whether it asks about one id that has to travel alone."""
        return len(self.entries) == 1 and self.entries[0].alone > 0

    @property
    def in_vain(self) -> bool:
        """Whether the single call has told so little of the id that the batch call is worth a try.

        That is once where it is unknown, and every other time where it brings no answer at all.
        """
        first = self.entries[0]
        if first.tries:
            return first.tries > LOOKS and first.tries % 2 == 0
        return first.absences == LOOKS // 2

    @property
    def since(self) -> float:
        """Since when the youngest of the ids has been watched."""
        return max(entry.since for entry in self.entries)

    def watchers(self) -> dict[W, None]:
        """Return everybody who wants one of the ids, or did when it ended."""
        return {watcher: None for entry in self.entries for watcher in entry.watchers}

    def __repr__(self) -> str:
        return f"<Call of {len(self.entries)} ids, {self.wanted} wanted>"


class Halved:
    """A refused call that travels in parts; it was too large if all of them pass.

    A part of one id says nothing: it goes by the single call.
    """

    __slots__ = ("parts", "root", "size")

    def __init__(self, size: int, parent: "Halved | None") -> None:
        self.size = size
        self.parts = 2
        self.root: Halved = parent.root if parent else self

    def passed(self) -> bool:
        """Note that a part passed; return whether all have."""
        self.parts -= 1
        return self.parts == 0
