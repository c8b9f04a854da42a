"""What a response changes: the news of each id, and which ids need special care from then on."""

from collections.abc import Mapping
from math import inf
from typing import Generic, Protocol

from msgspec import Struct

from luma_async.protocol.rows import reread
from luma_async.scheduling.anomalies import MIN_NOT_FOUND_ANSWERS, Anomaly
from luma_async.scheduling.items import Group, Item, W
from luma_async.scheduling.schedule import Schedule
from luma_async.structs import Generation, State

_UNTOLD = "untold"


class PollAnswer(Protocol):
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

    def row_bytes(self, task_id: str, /) -> Generation | bytes:
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
    row: Generation | bytes | None
    ended: bool
    watchers: tuple[W, ...]
    max_lag: float | None
    state: State | None = None
    previous_state: State | None = None

    @property
    def generation(self) -> Generation | None:
        """The whole task, read when it is asked for; None where the id ended as missing."""
        return reread(self.task_id, self.row)


class Answered(Struct, frozen=True):
    """An answer, when its request departed, when it came, and the grace of who is not in it."""

    answer: PollAnswer
    sent_at: float
    now: float
    missing_grace: float


class ChangeDetector(Generic[W]):
    """Applies one response to the groups of its batch.

    `changes` is the news. `apart` are groups of one id that are polled by themselves from now on,
    each with its due and the time by which it has to be polled.
    """

    def __init__(self, answered: Answered, schedule: Schedule, grace: Grace) -> None:
        self.look = answered
        self.timetable = schedule
        self.grace = grace
        self.changes: list[Change[W]] = []
        self.solo_groups: list[tuple[Group[W], float, float]] = []

    def apply(self, group: Group[W]) -> None:
        """Read what an answer says of a cohort; an id in doubt travels apart from then on."""
        unheard = self.look.now - group.last_heard_at if group.failed_attempts else 0.0
        group.last_heard_at = self.look.now
        group.failed_attempts = 0
        states = self.look.answer.states
        news = [
            item
            for item in group.items
            if states.get(item.task_id, _UNTOLD) is not item.state or item.anomaly
        ]
        for item in news:
            if item.anomaly:
                item.anomaly.extend_grace(unheard)
            state = states.get(item.task_id)
            if state is None:
                change = self._on_not_found(item, group)
            else:
                change = self._on_state(item, group, state)
            if change:
                self.changes.append(change)
            if item.anomaly and item.group:
                self._handle_anomaly(item, item.anomaly, group)
        group.compact()
        if group.sent_at is None and self.timetable.uses_task_age:
            group.update_age_range()
        self._observe_open(group)
        self._mark_polled(group)

    def _observe_open(self, group: Group[W]) -> None:
        """Learn how long tasks take from those that are open still."""
        if group.sent_at is not None and group.size:
            self.timetable.observe_open(
                group.mean_created_at, group.sent_at, self.look.sent_at, group.size
            )

    def _mark_polled(self, group: Group[W]) -> None:
        """Note when a cohort was looked at."""
        group.sent_at = self.look.sent_at
        group.answered_at = self.look.now

    def _handle_anomaly(self, item: Item[W], anomaly: Anomaly, group: Group[W]) -> None:
        """Let an id travel apart that is in doubt or in exile; forget what was odd and is over."""
        if anomaly.is_clear:
            item.anomaly = None
        elif anomaly.is_undecided or anomaly.solo_polls_left:
            solo = group.split_off([item])
            solo.oldest = solo.youngest = item.created_at
            if anomaly.not_found_since is None:
                if anomaly.ended_at is None:
                    self._observe_open(solo)
                self._mark_polled(solo)
            rest = self.timetable.base_delay if anomaly.solo_polls_left else self.timetable.delay
            due = self.look.sent_at + rest(item.created_at, self.look.sent_at)
            deadline = anomaly.next_deadline(
                self.look.sent_at, self.look.now, self.grace.missing, self.grace.link
            )
            if deadline < inf:
                self.timetable.expedite(deadline)
            self.solo_groups.append((solo, due, deadline))

    def _on_state(self, item: Item[W], group: Group[W], state: State) -> Change[W] | None:
        known, item.state = item.state, state
        if item.anomaly:
            item.anomaly.reset_on_answer()
        if state.is_done:
            return self._on_end(item, known, group)
        if state is known:
            return None
        if known is None and self.timetable.uses_task_age:
            item.created_at = min(
                item.created_at, self.look.sent_at - self.look.answer.age(item.task_id)
            )
        if item.anomaly:
            item.anomaly.no_link_since = None
        item.last_row = self.look.answer.row_bytes(item.task_id)
        return self._change(item, known, group)

    def _on_end(self, item: Item[W], known: State | None, group: Group[W]) -> Change[W] | None:
        """Note an end; a completed task without a link is not told while its grace runs."""
        ended_at = item.anomaly.ended_at if item.anomaly else None
        if ended_at is None:
            last = item.created_at if group.sent_at is None else group.sent_at
            ended_at = (last + self.look.sent_at) / 2
            if group.sent_at is not None:
                self.timetable.observe_end(item.created_at, group.sent_at, self.look.sent_at)
        item.last_row = generation = self.look.answer.generation(item.task_id)
        if item.state is State.COMPLETED and not generation.url:
            anomaly = item.anomaly_or_new()
            anomaly.ended_at = ended_at
            anomaly.no_link_since = (
                self.look.now if anomaly.no_link_since is None else anomaly.no_link_since
            )
            if self.look.now < anomaly.no_link_since + self.grace.link:
                return None
        change = self._change(item, known, group, ended=True)
        self._finish(item, ended_at)
        return change

    def _on_not_found(self, item: Item[W], group: Group[W]) -> Change[W] | None:
        anomaly = item.anomaly_or_new()
        anomaly.not_found_since = (
            self.look.now if anomaly.not_found_since is None else anomaly.not_found_since
        )
        anomaly.not_found_count += 1
        if self.look.now < anomaly.not_found_since + self.look.missing_grace or (
            self.look.missing_grace and anomaly.not_found_count <= MIN_NOT_FOUND_ANSWERS
        ):
            return None
        done = item.state is not None and item.state.is_done
        change = Change(
            item.task_id,
            item.last_row if done else None,
            True,
            tuple(item.watchers),
            None,
            item.state if done else None,
            item.state,
        )
        self._finish(item, anomaly.ended_at)
        return change

    def _change(
        self,
        item: Item[W],
        was: State | None,
        group: Group[W],
        *,
        ended: bool = False,
    ) -> Change[W]:
        unseen = None if group.answered_at is None else self.look.now - group.answered_at
        watchers = tuple(item.watchers)
        return Change(item.task_id, item.last_row, ended, watchers, unseen, item.state, was)

    def _finish(self, item: Item[W], ended_at: float | None) -> None:
        """Take an id that has ended out of its group."""
        item.watchers = ()
        if item.group:
            item.group.remove(item)
        self.timetable.on_removed(ended_at)
