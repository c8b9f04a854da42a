"""What a response changes: the news of each id, and which ids need special care from then on."""

from collections.abc import Mapping
from math import inf
from typing import Generic, Protocol

from msgspec import Struct

from luma_async.protocol.rows import reread
from luma_async.scheduling.anomalies import LOOKS, Odd
from luma_async.scheduling.items import Cohort, Entry, W
from luma_async.scheduling.schedule import Timetable
from luma_async.structs import Generation, State

_UNTOLD = "untold"


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

    def age(self, task_id: str, /) -> float:
        """Return the seconds since a task was created; 0 where the relay says none."""
        ...

    def kept(self, task_id: str, /) -> Generation | bytes:
        """Return what to keep of a task that somebody may want to read later."""
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

    `told` is what the answer said of it, None where the id ended as missing; `state` is the state
    in that, `was` the one before. `unseen` is the seconds since the answer before this one, the
    most by which the news can be late; None for the first answer.
    """

    task_id: str
    told: Generation | bytes | None
    ended: bool
    watchers: tuple[W, ...]
    unseen: float | None
    state: State | None = None
    was: State | None = None

    @property
    def generation(self) -> Generation | None:
        """The whole task, read when it is asked for; None where the id ended as missing."""
        return reread(self.task_id, self.told)


class Look(Struct, frozen=True):
    """An answer, when its request departed, when it came, and the grace of who is not in it."""

    told: Told
    departed: float
    now: float
    missing: float


class Reading(Generic[W]):
    """Applies one response to the groups of its batch.

    `changes` is the news. `apart` are groups of one id that are polled by themselves from now on,
    each with its due and the time by which it has to be polled.
    """

    def __init__(self, look: Look, timetable: Timetable, grace: Grace) -> None:
        self.look = look
        self.timetable = timetable
        self.grace = grace
        self.changes: list[Change[W]] = []
        self.apart: list[tuple[Cohort[W], float, float]] = []

    def read(self, cohort: Cohort[W]) -> None:
        """Read what an answer says of a cohort; an id in doubt travels apart from then on."""
        unheard = self.look.now - cohort.heard if cohort.tries else 0.0
        cohort.heard = self.look.now
        cohort.tries = 0
        states = self.look.told.states
        news = [
            entry
            for entry in cohort.entries
            if states.get(entry.task_id, _UNTOLD) is not entry.state or entry.odd
        ]
        for entry in news:
            if entry.odd:
                entry.odd.unheard(unheard)
            state = states.get(entry.task_id)
            if state is None:
                change = self._missed(entry, cohort)
            else:
                change = self._found(entry, cohort, state)
            if change:
                self.changes.append(change)
            if entry.odd and entry.place:
                self._heed(entry, entry.odd, cohort)
        cohort.muster()
        if cohort.asked is None and self.timetable.heeds_age:
            cohort.measure()
        self._learn(cohort)
        self._note(cohort)

    def _learn(self, cohort: Cohort[W]) -> None:
        """Learn how long tasks take from those that are open still."""
        if cohort.asked is not None and cohort.alive:
            self.timetable.passed(cohort.born, cohort.asked, self.look.departed, cohort.alive)

    def _note(self, cohort: Cohort[W]) -> None:
        """Note when a cohort was looked at."""
        cohort.asked = self.look.departed
        cohort.looked = self.look.now

    def _heed(self, entry: Entry[W], odd: Odd, cohort: Cohort[W]) -> None:
        """Let an id travel apart that is in doubt or in exile; forget what was odd and is over."""
        if odd.is_over:
            entry.odd = None
        elif odd.is_in_doubt or odd.alone:
            apart = cohort.detach([entry])
            apart.oldest = apart.youngest = entry.born
            if odd.missing is None:
                if odd.ended_at is None:
                    self._learn(apart)
                self._note(apart)
            rest = self.timetable.alone if odd.alone else self.timetable.rest
            due = self.look.departed + rest(entry.born, self.look.departed)
            hurry = odd.hurry(
                self.look.departed, self.look.now, self.grace.missing, self.grace.link
            )
            if hurry < inf:
                self.timetable.hurry(hurry)
            self.apart.append((apart, due, hurry))

    def _found(self, entry: Entry[W], cohort: Cohort[W], state: State) -> Change[W] | None:
        known, entry.state = entry.state, state
        if entry.odd:
            entry.odd.named()
        if state.is_done:
            return self._done(entry, known, cohort)
        if state is known:
            return None
        if known is None and self.timetable.heeds_age:
            entry.born = min(entry.born, self.look.departed - self.look.told.age(entry.task_id))
        if entry.odd:
            entry.odd.linkless = None
        entry.told = self.look.told.kept(entry.task_id)
        return self._change(entry, known, cohort)

    def _done(self, entry: Entry[W], known: State | None, cohort: Cohort[W]) -> Change[W] | None:
        """Note an end; a completed task without a link is not told while its grace runs."""
        ended_at = entry.odd.ended_at if entry.odd else None
        if ended_at is None:
            last = entry.born if cohort.asked is None else cohort.asked
            ended_at = (last + self.look.departed) / 2
            if cohort.asked is not None:
                self.timetable.ended(entry.born, cohort.asked, self.look.departed)
        entry.told = generation = self.look.told.generation(entry.task_id)
        if entry.state is State.COMPLETED and not generation.url:
            odd = entry.oddity()
            odd.ended_at = ended_at
            odd.linkless = self.look.now if odd.linkless is None else odd.linkless
            if self.look.now < odd.linkless + self.grace.link:
                return None
        change = self._change(entry, known, cohort, ended=True)
        self._end(entry, ended_at)
        return change

    def _missed(self, entry: Entry[W], cohort: Cohort[W]) -> Change[W] | None:
        odd = entry.oddity()
        odd.missing = self.look.now if odd.missing is None else odd.missing
        odd.absences += 1
        if self.look.now < odd.missing + self.look.missing or (
            self.look.missing and odd.absences <= LOOKS
        ):
            return None
        done = entry.state is not None and entry.state.is_done
        change = Change(
            entry.task_id,
            entry.told if done else None,
            True,
            tuple(entry.watchers),
            None,
            entry.state if done else None,
            entry.state,
        )
        self._end(entry, odd.ended_at)
        return change

    def _change(
        self,
        entry: Entry[W],
        was: State | None,
        cohort: Cohort[W],
        *,
        ended: bool = False,
    ) -> Change[W]:
        unseen = None if cohort.looked is None else self.look.now - cohort.looked
        watchers = tuple(entry.watchers)
        return Change(entry.task_id, entry.told, ended, watchers, unseen, entry.state, was)

    def _end(self, entry: Entry[W], ended_at: float | None) -> None:
        """Take an id that has ended out of its group."""
        entry.watchers = ()
        if entry.place:
            entry.place.lose(entry)
        self.timetable.forgotten(ended_at)
