"""Which ids are open, who wants them, who is asked next.

The book knows no clock and never waits: `now` is an argument, what is to be done comes back as a
Call. Its promise in five adjectives:

- fair: seats go to the most overdue id, free seats to the one due next;
- stingy: an id is asked about once at a time, whoever and how many want it;
- bounded: a call has at most `seats` ids;
- honest: each id taken is settled or spoiled, once;
- forgetful: nobody wants it, nobody asks.

What is scheduled is the request with its seats, not the id with its timer. A request costs the same
whoever is aboard, so one that departs fills its free seats, and all ids soon share one clock. When
it departs:

- When an id at rest is due, and when the request departs, is for the `Timetable` of the pace to
  say. The very first rest of a busy period is shortened at random (`phase`), so that a fleet that
  started together does not knock together.
- A fresh id departs at once where nothing is under way, unless the timetable has it wait for
  company for a moment. Where something is, it shares the next departure, so that ten thousand
  callers that come one by one cost what one caller costs; a full request's worth need not wait, and
  nobody waits longer than PATIENCE for a request that hangs.
- An id whose call was spoiled is held until it may be asked again; it never takes a free seat.
- Ids whose call was refused are suspects: they travel in halves until the bad one stands alone, and
  take turns with the rest. Where both halves of a refused call pass, twice, it was too large.
- An id that came to stand alone goes on alone: aboard, it would have each batch refused again. Once
  its answer makes sense it may board again; refused again, it stays alone for twice as many looks.
"""

from collections import deque
from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import Generic

from luma_async.scheduling.batch_size import Seats
from luma_async.scheduling.changes import Change, Grace, Look, Reading, Told
from luma_async.scheduling.items import (
    TRANSITIONS,
    Call,
    Cohort,
    Entry,
    Event,
    Halved,
    Phase,
    W,
    halves,
)
from luma_async.scheduling.pace import PATIENCE, Pace
from luma_async.scheduling.schedule import Timetable, timetable
from luma_async.structs import Generation

Heap = list[tuple[float, int, Cohort[W]]]


class Book(Generic[W]):
    """The open ids of a session."""

    def __init__(
        self, pace: Pace, seats: int, grace: Grace, *, phase: float = 1.0, spacing: float = 0.0
    ) -> None:
        self.timetable: Timetable = timetable(pace, seats, spacing)
        self.seats: Seats = Seats(seats)
        self.grace = grace
        self.phase = phase
        self._entries: dict[str, Entry[W]] = {}
        self._calls: set[Call[W]] = set()
        self._fresh: deque[Cohort[W]] = deque()
        self._fresh_ids = 0
        self._suspects: deque[tuple[list[Cohort[W]], Halved | None]] = deque()
        self._suspects_turn = True
        self._too_large: Halved | None = None
        self._resting: Heap[W] = []
        self._held: Heap[W] = []
        self._exiled: Heap[W] = []
        self._order = count()
        self._dead = 0
        self._returned = False
        self._first_tick = -inf
        self._urgent = False

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        calls = f"{len(self._calls)} calls under way"
        return f"<Book: {len(self)} open, {calls}, {self.seats.limit} seats>"

    def phase_of(self, task_id: str) -> Phase:
        """Return where an id stands."""
        entry = self._entries.get(task_id)
        return entry.phase if entry else Phase.ABSENT

    def oldest(self) -> float | None:
        """Return since when the oldest open id has been watched; None where nothing is open."""
        return next((entry.since for entry in self._entries.values()), None)

    def clear(self) -> None:
        """Forget all ids."""
        for entry in self._entries.values():
            entry.place = None
            entry.watchers = ()
        self._entries.clear()

    def watch(
        self, watcher: W, ids: Iterable[str], now: float, *, until: float = inf
    ) -> dict[str, Generation | bytes]:
        """Note that somebody wants these ids; whoever leaves soon, at `until`, does not wait.

        Returns what was told already of those that were open before.
        """
        if not self._entries:
            self._first_tick = now + self.phase * self.timetable.alone(now, now)
            self.timetable.begin(self.phase)
        fresh: list[Entry[W]] = []
        known: dict[str, Generation | bytes] = {}
        only = (watcher,)
        for task_id in ids:
            entry = self._entries.get(task_id)
            if entry is None:
                entry = self._entries[task_id] = Entry(task_id, now, now, only)
                fresh.append(entry)
                continue
            if entry.phase is Phase.ORPHANED and entry.place and entry.place.call:
                entry.place.call.wanted += 1
            entry.join(only)
            if entry.told is not None:
                known[task_id] = entry.told
        if fresh:
            self._line_up(Cohort(fresh, now), now)
            self._urgent |= until < self.timetable.shared_until + PATIENCE
        self.timetable.watched(len(fresh), now)
        return known

    def unwatch(self, watcher: W, ids: Iterable[str]) -> list[Call[W]]:
        """Note that somebody wants these ids no more; return the calls that nobody needs now."""
        idle: list[Call[W]] = []
        for task_id in ids:
            entry = self._entries.get(task_id)
            if entry is not None and entry.part(watcher) and not entry.watchers:
                idle += self._abandon(entry)
        return idle

    def next_at(self) -> float:
        """Return when the next call departs; inf where none will."""
        return min(
            self._suspected_at(),
            _due_at(self._exiled),
            self._boarding_at(),
        )

    def take(self, now: float) -> Call[W] | None:
        """Return the next call to make, or None where nothing is due; settle or spoil it later."""
        if self.next_at() > now:
            return None
        call = self._next(now, self.seats.at(now))
        self._returned = False
        self._calls.add(call)
        return call

    def settle(
        self, call: Call[W], told: Told, now: float, *, doubt: float = 1.0
    ) -> list[Change[W]]:
        """Note the answer to a call; return what it changes.

        An id that it does not name is missing after `doubt` times the grace.
        """
        self._return(call)
        self.timetable.answered(call.departed, now)
        if call.halved and len(call.entries) > 1 and call.halved.passed():
            self._learn_size(call.halved, now)
        look = Look(told, call.departed, now, self.grace.missing * doubt)
        reading: Reading[W] = Reading(look, self.timetable, self.grace)
        for cohort in call.cohorts:
            reading.read(cohort)
        for change in reading.changes:
            if change.ended:
                del self._entries[change.task_id]
        for cohort, due, hurry in reading.apart:
            self._rest(cohort, due, call.departed, hurry)
        for cohort in self._alike(call.cohorts, call.departed):
            due = call.departed + self.timetable.rest(cohort.born, call.departed, cohort.alive)
            self._rest(cohort, due, call.departed)
        return reading.changes

    def spoil(self, call: Call[W], until: float) -> None:
        """Note that a call brought no answer; its ids are due again at `until`."""
        self._return(call)
        for cohort in call.cohorts:
            if cohort.alive:
                cohort.tries += 1
                self._put(cohort, Event.HOLD, until, self._held)

    def split(self, call: Call[W], *, refused: bool = True) -> None:
        """Note that a call is no good as it stands; its ids travel in halves from now on.

        Only of one that the relay `refused` can it be learned that it was too large.
        """
        self._return(call)
        halved = Halved(len(call.entries), call.halved) if refused else None
        left = sum(cohort.alive for cohort in call.cohorts)
        first, second = halves(call.cohorts, (left + 1) // 2)
        for half in (second, first):
            for cohort in half:
                cohort.move(Event.SUSPECT)
            self._suspects.appendleft((half, halved))

    def _learn_size(self, halved: Halved, now: float) -> None:
        """Ask for less at a time once it has happened twice that all parts of a call passed."""
        if self._too_large and self._too_large is not halved.root:
            self.seats = self.seats.shrunk(halved.size, now)
        self._too_large = halved.root

    def _abandon(self, entry: Entry[W]) -> Iterable[Call[W]]:
        cohort = entry.place
        assert cohort
        if TRANSITIONS[cohort.phase][Event.UNWATCH] is Phase.ABSENT:
            self._fresh_ids -= cohort.phase is Phase.FRESH
            self._forget(entry)
            if not cohort.alive:
                self._bury()
        elif cohort.call:
            cohort.call.wanted -= 1
            if not cohort.call.wanted:
                yield cohort.call

    def _bury(self) -> None:
        """Drop the cohorts of which nobody is left once they outnumber the others."""
        self._dead += 1
        rooms = len(self._fresh) + len(self._resting) + len(self._held) + len(self._exiled)
        if self._dead > 100 + rooms // 2:
            self._fresh = deque(cohort for cohort in self._fresh if cohort.alive)
            for heap in (self._resting, self._held, self._exiled):
                heap[:] = [one for one in heap if one[2].alive]
                heapify(heap)
            self._dead = 0

    def _line_up(self, cohort: Cohort[W], now: float) -> None:
        cohort.move(Event.WATCH)
        cohort.due = now + (PATIENCE if self._calls else 0.0)
        self._fresh.append(cohort)
        self._fresh_ids += cohort.alive

    def _put(self, cohort: Cohort[W], event: Event, due: float, heap: "Heap[W]") -> None:
        """Lay a cohort aside until it is due; an id that travels alone apart from the others."""
        odd = cohort.entries[0].odd
        alone = odd is not None and odd.alone > 0
        cohort.move(Event.EXILE if alone else event)
        cohort.due = due
        heappush(self._exiled if alone else heap, (due, next(self._order), cohort))

    def _boarding_at(self) -> float:
        return min(
            self._fresh_at(),
            _due_at(self._held),
            self.timetable.departs_at(_due_at(self._resting)),
        )

    def _next(self, now: float, seats: int) -> Call[W]:
        others_at = min(_due_at(self._exiled), self._boarding_at())
        if self._suspects and (self._suspects_turn or others_at > now):
            self._suspects_turn = False
            return self._suspected(now, seats)
        self._suspects_turn = True
        if _due_at(self._exiled) <= min(now, self._boarding_at()):
            return Call([heappop(self._exiled)[2]], now)
        call = Call(self._aboard(now, seats), now)
        self._urgent &= self._fresh_ids > 0
        self.timetable.departed(
            now,
            open_ids=len(self._entries),
            seats=seats,
            whole=not self._fresh_ids and _due_at(self._resting) == inf,
            again=call.tries > 1,
        )
        return call

    def _fresh_at(self) -> float:
        first = self._first_fresh()
        if first is None:
            return inf
        if self._fresh_ids >= self.seats.limit:
            return first.heard
        at_once = not self._calls or self._returned
        leaves_at = first.heard if at_once else first.due
        return leaves_at if self._urgent else max(leaves_at, self.timetable.shared_until)

    def _first_fresh(self) -> Cohort[W] | None:
        while self._fresh and not self._fresh[0].alive:
            self._fresh.popleft()
        return self._fresh[0] if self._fresh else None

    def _suspected_at(self) -> float:
        while self._suspects and not any(cohort.alive for cohort in self._suspects[0][0]):
            self._suspects.popleft()
        return -inf if self._suspects else inf

    def _suspected(self, now: float, seats: int) -> Call[W]:
        half, halved = self._suspects.popleft()
        aboard, rest = halves(half, seats)
        if rest:
            if halved:
                halved.parts += 1
            self._suspects.appendleft((rest, halved))
        elif sum(cohort.alive for cohort in aboard) == 1:
            aboard[0].entries[0].oddity().exile()
        return Call(aboard, now, halved)

    def _aboard(self, now: float, seats: int) -> list[Cohort[W]]:
        aboard: list[Cohort[W]] = []
        while seats and (cohort := self._most_overdue(now, seats)):
            aboard.append(cohort)
            seats -= cohort.alive
        return aboard

    def _most_overdue(self, now: float, seats: int) -> Cohort[W] | None:
        """Take the ids with the earliest due; those that are held only once they are due."""
        first = self._first_fresh()
        fresh = first.heard if first else inf
        resting, held = _due_at(self._resting), _due_at(self._held)
        if held <= now and held <= min(fresh, resting):
            return _popped(self._held, seats)
        if first and fresh <= resting:
            aboard = first.take_first(seats)
            if aboard is first:
                self._fresh.popleft()
            self._fresh_ids -= aboard.alive
            return aboard
        return _popped(self._resting, seats) if self._resting else None

    def _return(self, call: Call[W]) -> None:
        self._calls.remove(call)
        self._returned = self._fresh_ids > 0
        if call.wanted < len(call.entries):
            for entry in call.entries:
                if not entry.watchers:
                    self._forget(entry)
        for cohort in call.cohorts:
            cohort.call = None
            cohort.muster()

    def _forget(self, entry: Entry[W]) -> None:
        del self._entries[entry.task_id]
        entry.watchers = ()
        if entry.place:
            entry.place.lose(entry)
        self.timetable.forgotten(None)

    def _alike(self, cohorts: Iterable[Cohort[W]], departed: float) -> Iterable[Cohort[W]]:
        """Sort those who were looked at together into cohorts that rest equally long."""
        kinds: dict[float, list[Cohort[W]]] = {}
        for cohort in cohorts:
            for kind, part in self._parts(cohort, departed):
                kinds.setdefault(kind, []).append(part)
        for first, *others in kinds.values():
            if others:
                first.absorb(others)
            yield first

    def _parts(self, cohort: Cohort[W], departed: float) -> Iterable[tuple[float, Cohort[W]]]:
        if not cohort.alive:
            return ()
        kind = self.timetable.kind(cohort.oldest, departed)
        if self.timetable.kind(cohort.youngest, departed) == kind:
            return ((kind, cohort),)
        kinds: dict[float, list[Entry[W]]] = {}
        for entry in cohort.entries:
            kinds.setdefault(self.timetable.kind(entry.born, departed), []).append(entry)
        parts = {kind: cohort.detach(entries) for kind, entries in kinds.items()}
        for part in parts.values():
            part.measure()
        return parts.items()

    def _rest(self, cohort: Cohort[W], due: float, departed: float, hurry: float = inf) -> None:
        if departed < self._first_tick:
            due = min(due, self._first_tick)
        self._put(cohort, Event.REST, min(due, hurry), self._resting)


def _due_at(heap: "Heap[W]") -> float:
    while heap and not heap[0][2].alive:
        heappop(heap)
    return heap[0][0] if heap else inf


def _popped(heap: "Heap[W]", seats: int) -> Cohort[W]:
    """Take the cohort that is due first off a heap; of a large one as many as have seats."""
    cohort = heap[0][2]
    aboard = cohort.take_first(seats)
    if aboard is cohort:
        heappop(heap)
    return aboard
