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

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from datetime import datetime
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import Generic, Protocol

from msgspec import Struct

from luma_async.entries import LOOKS, Call, Entry, Event, Halved, Phase, W
from luma_async.pace import PATIENCE, Pace
from luma_async.seats import Seats
from luma_async.structs import Generation, State
from luma_async.timetable import timetable


class Told(Protocol):
    """What an answer must offer: the state of each id that it names, the whole task on demand."""

    @property
    def states(self) -> Mapping[str, State]:
        """The state of each id that the answer names."""
        ...

    @property
    def retry_after(self) -> float | None:
        """The seconds for which the relay asks to be left alone, or None."""
        ...

    @property
    def date(self) -> datetime | None:
        """The relay's clock when it answered, or None."""
        ...

    def generation(self, task_id: str, /) -> Generation:
        """Build the whole task."""
        ...


class Grace(Struct, frozen=True):
    """How long to go on asking, in seconds, before an odd answer is believed."""

    missing: float = 30.0
    link: float = 60.0


class Change(Struct, Generic[W], frozen=True):
    """News of one id for those who want it.

    `generation` is None where the id ended as missing. `unseen` is the seconds since the answer
    before this one, the most by which the news can be late; None for the first answer.
    """

    task_id: str
    generation: Generation | None
    ended: bool
    watchers: tuple[W, ...]
    unseen: float | None


class Book(Generic[W]):
    """The open ids of a session."""

    def __init__(
        self, pace: Pace, seats: int, grace: Grace, *, phase: float = 1.0, spacing: float = 0.0
    ) -> None:
        self.timetable = timetable(pace, seats, spacing)
        self.seats = Seats(seats)
        self.grace = grace
        self.phase = phase
        self._entries: dict[str, Entry[W]] = {}
        self._calls: set[Call[W]] = set()
        self._fresh: OrderedDict[str, Entry[W]] = OrderedDict()
        self._suspects: deque[tuple[list[Entry[W]], Halved | None]] = deque()
        self._suspects_turn = True
        self._too_large: Halved | None = None
        self._resting: list[tuple[float, int, Entry[W]]] = []
        self._held: list[tuple[float, int, Entry[W]]] = []
        self._exiled: list[tuple[float, int, Entry[W]]] = []
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

    def seen(self, task_id: str) -> Generation | None:
        """Return what was last told of an open id, if anything was."""
        entry = self._entries.get(task_id)
        return entry.generation if entry else None

    def oldest(self) -> float | None:
        """Return since when the oldest open id has been watched; None where nothing is open."""
        return next((entry.since for entry in self._entries.values()), None)

    def watchers(self) -> list[W]:
        """Return everybody who wants an open id, each once."""
        return list(
            {watcher: None for entry in self._entries.values() for watcher in entry.watchers}
        )

    def watch(self, watcher: W, ids: Iterable[str], now: float, *, until: float = inf) -> None:
        """Note that somebody wants these ids; whoever leaves soon, at `until`, does not wait."""
        if not self._entries:
            self._first_tick = now + self.phase * self.timetable.alone(now, now)
            self.timetable.begin(self.phase)
        known = len(self._entries)
        urgent = until < self.timetable.shared_until + PATIENCE
        for task_id in ids:
            entry = self._entries.get(task_id)
            if entry is None:
                entry = self._entries[task_id] = Entry(task_id, now)
                entry.move(Event.WATCH)
                entry.due = now + (PATIENCE if self._calls else 0.0)
                self._fresh[task_id] = entry
                self._urgent |= urgent
            elif entry.phase is Phase.ORPHANED:
                entry.move(Event.WATCH)
                if entry.call:
                    entry.call.wanted += 1
            entry.watchers[watcher] = None
        self.timetable.watched(len(self._entries) - known, now)

    def unwatch(self, watcher: W, ids: Iterable[str]) -> list[Call[W]]:
        """Note that somebody wants these ids no more; return the calls that nobody needs now."""
        idle: list[Call[W]] = []
        for task_id in ids:
            entry = self._entries.get(task_id)
            if entry is None or watcher not in entry.watchers:
                continue
            del entry.watchers[watcher]
            if not entry.watchers:
                idle += self._abandon(entry)
        return idle

    def next_at(self) -> float:
        """Return when the next call departs; inf where none will."""
        return min(
            self._suspected_at(),
            self._exiled_at(),
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
        states = told.states
        changes: list[Change[W]] = []
        for entry in call.entries:
            if entry.phase is Phase.ORPHANED:
                self._forget(entry)
                continue
            entry.hear(now)
            state = states.get(entry.task_id)
            if state is None:
                change = self._missed(entry, now, self.grace.missing * doubt)
            else:
                change = self._found(entry, told, call.departed, now)
            if change:
                changes.append(change)
            if entry.phase is Phase.ASKED:
                self._rest(entry, call.departed, now)
        return changes

    def spoil(self, call: Call[W], until: float) -> None:
        """Note that a call brought no answer; its ids are due again at `until`."""
        self._return(call)
        for entry in call.entries:
            if entry.phase is Phase.ORPHANED:
                self._forget(entry)
                continue
            entry.tries += 1
            entry.due = until
            self._put(entry, Event.HOLD, self._held)

    def split(self, call: Call[W], *, refused: bool = True) -> None:
        """Note that a call is no good as it stands; its ids travel in halves from now on.

        Only of one that the relay `refused` can it be learned that it was too large.
        """
        self._return(call)
        middle = (len(call.entries) + 1) // 2
        halved = Halved(len(call.entries), call.halved) if refused else None
        for half in (call.entries[middle:], call.entries[:middle]):
            for entry in half:
                if entry.phase is Phase.ORPHANED:
                    self._forget(entry)
                else:
                    entry.move(Event.SUSPECT)
            self._suspects.appendleft((half, halved))

    def _learn_size(self, halved: Halved, now: float) -> None:
        """Ask for less at a time once it has happened twice that all parts of a call passed."""
        if self._too_large and self._too_large is not halved.root:
            self.seats = self.seats.shrunk(halved.size, now)
        self._too_large = halved.root

    def _abandon(self, entry: Entry[W]) -> Iterable[Call[W]]:
        entry.move(Event.UNWATCH)
        if entry.phase is Phase.ABSENT:
            del self._entries[entry.task_id]
            self.timetable.forgotten()
            if self._fresh.pop(entry.task_id, None) is None:
                self._bury()
        elif entry.call:
            entry.call.wanted -= 1
            if not entry.call.wanted:
                yield entry.call

    def _bury(self) -> None:
        """Drop what is dead from the heaps once it outnumbers what lives."""
        self._dead += 1
        if self._dead > 100 + (len(self._resting) + len(self._held) + len(self._exiled)) // 2:
            for heap, phase in (
                (self._resting, Phase.RESTING),
                (self._held, Phase.HELD),
                (self._exiled, Phase.EXILED),
            ):
                heap[:] = [one for one in heap if one[2].phase is phase]
                heapify(heap)
            self._dead = 0

    def _put(
        self, entry: Entry[W], event: Event, heap: "list[tuple[float, int, Entry[W]]]"
    ) -> None:
        """Lay an id aside until its `due`; one that travels alone apart from the others."""
        entry.move(Event.EXILE if entry.alone else event)
        heap = self._exiled if entry.alone else heap
        heappush(heap, (entry.due, next(self._order), entry))

    def _exiled_at(self) -> float:
        return _due_at(self._exiled, Phase.EXILED)

    def _boarding_at(self) -> float:
        return min(
            self._fresh_at(),
            _due_at(self._held, Phase.HELD),
            self.timetable.departs_at(_due_at(self._resting, Phase.RESTING)),
        )

    def _next(self, now: float, seats: int) -> Call[W]:
        others_at = min(self._exiled_at(), self._boarding_at())
        if self._suspects and (self._suspects_turn or others_at > now):
            self._suspects_turn = False
            return self._suspected(now, seats)
        self._suspects_turn = True
        if self._exiled_at() <= min(now, self._boarding_at()):
            return Call([heappop(self._exiled)[2]], now)
        call = Call(self._aboard(now, seats), now)
        self._urgent &= bool(self._fresh)
        self.timetable.departed(
            now,
            open_ids=len(self._entries),
            seats=seats,
            whole=not self._fresh and _due_at(self._resting, Phase.RESTING) == inf,
            again=call.tries > 1,
        )
        return call

    def _fresh_at(self) -> float:
        if not self._fresh:
            return inf
        first = next(iter(self._fresh.values()))
        if len(self._fresh) >= self.seats.limit:
            return first.since
        at_once = not self._calls or self._returned
        leaves_at = first.since if at_once else first.due
        return leaves_at if self._urgent else max(leaves_at, self.timetable.shared_until)

    def _suspected_at(self) -> float:
        while self._suspects:
            suspects, halved = self._suspects[0]
            half = [entry for entry in suspects if entry.phase is Phase.SUSPECT]
            if half:
                self._suspects[0] = half, halved
                return -inf
            self._suspects.popleft()
        return inf

    def _suspected(self, now: float, seats: int) -> Call[W]:
        half, halved = self._suspects.popleft()
        if len(half) > seats:
            if halved:
                halved.parts += 1
            self._suspects.appendleft((half[seats:], halved))
        elif len(half) == 1:
            half[0].exile()
        return Call(half[:seats], now, halved)

    def _aboard(self, now: float, seats: int) -> list[Entry[W]]:
        entries: list[Entry[W]] = []
        while len(entries) < seats and (entry := self._most_overdue(now)):
            entries.append(entry)
        return entries

    def _most_overdue(self, now: float) -> Entry[W] | None:
        """Take the id with the earliest due; one that is held only once it is due."""
        fresh = next(iter(self._fresh.values())).since if self._fresh else inf
        resting = _due_at(self._resting, Phase.RESTING)
        held = _due_at(self._held, Phase.HELD)
        if held <= now and held <= min(fresh, resting):
            return heappop(self._held)[2]
        if fresh < inf and fresh <= resting:
            return self._fresh.popitem(last=False)[1]
        return heappop(self._resting)[2] if self._resting else None

    def _return(self, call: Call[W]) -> None:
        self._calls.remove(call)
        self._returned = bool(self._fresh)
        for entry in call.entries:
            entry.call = None

    def _found(self, entry: Entry[W], told: Told, departed: float, now: float) -> Change[W] | None:
        unseen = None if entry.looked is None else now - entry.looked
        entry.looked = now
        entry.alone = max(0, entry.alone - 1)
        entry.missing = None
        entry.absences = 0
        state = told.states[entry.task_id]
        known = entry.generation
        if entry.ended_at is None:
            self.timetable.looked(entry.born, entry.asked, departed, done=state.is_done)
            if state.is_done:
                last = entry.born if entry.asked is None else entry.asked
                entry.ended_at = (last + departed) / 2
            entry.asked = departed
        if known and known.state is state and not state.is_done:
            return None
        generation = entry.generation = told.generation(entry.task_id)
        if known is None:
            entry.born = min(entry.born, departed - _age(generation, told.date))
        if state is not State.COMPLETED:
            entry.linkless = None
        elif not generation.url:
            entry.linkless = now if entry.linkless is None else entry.linkless
            if now < entry.linkless + self.grace.link:
                return None
        return self._change(entry, generation, ended=state.is_done, unseen=unseen)

    def _missed(self, entry: Entry[W], now: float, grace: float) -> Change[W] | None:
        entry.missing = now if entry.missing is None else entry.missing
        entry.absences += 1
        if now < entry.missing + grace or (grace and entry.absences <= LOOKS):
            return None
        done = entry.generation if entry.generation and entry.generation.is_done else None
        return self._change(entry, done, ended=True, unseen=None)

    def _change(
        self, entry: Entry[W], generation: Generation | None, *, ended: bool, unseen: float | None
    ) -> Change[W]:
        change = Change(entry.task_id, generation, ended, tuple(entry.watchers), unseen)
        if ended:
            self._forget(entry)
        return change

    def _forget(self, entry: Entry[W]) -> None:
        entry.move(Event.END)
        del self._entries[entry.task_id]
        self.timetable.forgotten(entry.ended_at)

    def _rest(self, entry: Entry[W], departed: float, now: float) -> None:
        if entry.alone:
            due = departed + self.timetable.alone(entry.since, departed)
        else:
            due = departed + self.timetable.rest(entry.since, entry.born, departed)
        if departed < self._first_tick:
            due = min(due, self._first_tick)
        hurry = inf
        for odd_since, grace in (
            (entry.missing, self.grace.missing),
            (entry.linkless, self.grace.link),
        ):
            if odd_since is not None and odd_since + grace > now:
                hurry = min(hurry, odd_since + grace)
        if entry.missing is not None and entry.absences <= LOOKS:
            hurry = min(hurry, departed + self.grace.missing / LOOKS)
        if hurry < inf:
            self.timetable.hurry(hurry)
        entry.due = min(due, hurry)
        self._put(entry, Event.REST, self._resting)


def _due_at(heap: "list[tuple[float, int, Entry[W]]]", phase: Phase) -> float:
    while heap and heap[0][2].phase is not phase:
        heappop(heap)
    return heap[0][0] if heap else inf


def _age(generation: Generation, date: datetime | None) -> float:
    """Return the seconds since a task was created, by the relay's own clocks; 0 if it says none."""
    if date is None or generation.created_at is None:
        return 0.0
    return (date - generation.created_at).total_seconds()
