"""What a response changes: the new state of each id, and which ids need special care."""

from collections.abc import Mapping
from math import inf
from typing import Generic, Protocol

from msgspec import Struct

from luma_async.protocol.rows import RowText
from luma_async.scheduling.anomalies import MIN_NOT_FOUND_ANSWERS, Anomaly
from luma_async.scheduling.items import Group, Item, W
from luma_async.scheduling.schedule import Schedule
from luma_async.structs import Generation, State

_NO_STATE = "no state"


class PollAnswer(Protocol):
    """What the scheduler needs of a response: the state of each id, the whole task on demand."""

    @property
    def states(self) -> Mapping[str, State]:
        """The state of each id that the response contains."""
        ...

    @property
    def retry_after(self) -> float | None:
        """Retry-After in seconds, or None."""
        ...

    def age(self, task_id: str, /) -> float:
        """Return the age of a task in seconds; 0 if the relay gives no time of creation."""
        ...

    def row(self, task_id: str, /) -> RowText:
        """Return the row of a task."""
        ...

    def generation(self, task_id: str, /) -> Generation:
        """Build the whole task."""
        ...


class Grace(Struct, frozen=True):
    """How long to poll on, in seconds, before an id counts as missing or a link as absent."""

    missing: float = 30.0
    link: float = 60.0


class Change(Struct, Generic[W], frozen=True):
    """A change of one id, for its watchers.

    `row` is its row in the response, None if the id is missing; `state` is the state in it,
    `previous_state` the one before. `max_lag` is the seconds since the response before this one,
    the most by which the news can be late; None for the first response.
    """

    task_id: str
    row: RowText | None
    ended: bool
    watchers: tuple[W, ...]
    max_lag: float | None
    state: State | None = None
    previous_state: State | None = None

    @property
    def generation(self) -> Generation | None:
        """The whole task, decoded on demand; None if the id is missing."""
        return self.row.generation() if self.row else None


class Answered(Struct, frozen=True):
    """A response, when its request was sent, when it came, and the grace period of missing ids."""

    answer: PollAnswer
    sent_at: float
    now: float
    missing_grace: float


class ChangeDetector(Generic[W]):
    """Apply one response to the groups of its batch.

    `changes` is the news. `solo_groups` are groups of one id that are polled by themselves from now
    on, each with its due and the time by which it has to be polled.
    """

    def __init__(self, answered: Answered, schedule: Schedule, grace: Grace) -> None:
        self.answered = answered
        self.schedule = schedule
        self.grace = grace
        self.changes: list[Change[W]] = []
        self.solo_groups: list[tuple[Group[W], float, float]] = []

    def apply(self, group: Group[W]) -> None:
        """Compare the response with a group; ids that need special care leave it."""
        silent_for = self.answered.now - group.last_heard_at if group.failed_attempts else 0.0
        group.last_heard_at = self.answered.now
        group.failed_attempts = 0
        states = self.answered.answer.states
        news = [
            item
            for item in group.items
            if states.get(item.task_id, _NO_STATE) is not item.state or item.anomaly
        ]
        for item in news:
            if item.anomaly:
                item.anomaly.extend_grace(silent_for)
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
        if group.sent_at is None and self.schedule.uses_task_age:
            group.update_age_range()
        self._observe_open(group)
        self._mark_polled(group)

    def _observe_open(self, group: Group[W]) -> None:
        """Report the ids that are still open to the schedule."""
        if group.sent_at is not None and group.size:
            self.schedule.observe_open(
                group.mean_created_at, group.sent_at, self.answered.sent_at, group.size
            )

    def _mark_polled(self, group: Group[W]) -> None:
        """Record when the group was polled."""
        group.sent_at = self.answered.sent_at
        group.answered_at = self.answered.now

    def _handle_anomaly(self, item: Item[W], anomaly: Anomaly, group: Group[W]) -> None:
        """Move an id with an anomaly to a group of its own; drop an anomaly that is clear."""
        if anomaly.is_clear:
            item.anomaly = None
        elif anomaly.is_undecided or anomaly.solo_polls_left:
            solo = group.split_off([item])
            solo.oldest = solo.youngest = item.created_at
            if anomaly.not_found_since is None:
                if anomaly.ended_at is None:
                    self._observe_open(solo)
                self._mark_polled(solo)
            delay = self.schedule.base_delay if anomaly.solo_polls_left else self.schedule.delay
            due = self.answered.sent_at + delay(item.created_at, self.answered.sent_at)
            deadline = anomaly.next_deadline(
                self.answered.sent_at, self.answered.now, self.grace.missing, self.grace.link
            )
            if deadline < inf:
                self.schedule.expedite(deadline)
            self.solo_groups.append((solo, due, deadline))

    def _on_state(self, item: Item[W], group: Group[W], state: State) -> Change[W] | None:
        known, item.state = item.state, state
        if item.anomaly:
            item.anomaly.reset_on_answer()
        if state.is_done:
            return self._on_end(item, known, group)
        if state is known:
            return None
        if known is None and self.schedule.uses_task_age:
            item.created_at = min(
                item.created_at, self.answered.sent_at - self.answered.answer.age(item.task_id)
            )
        if item.anomaly:
            item.anomaly.no_link_since = None
        item.last_row = self.answered.answer.row(item.task_id)
        return self._change(item, known, group)

    def _on_end(self, item: Item[W], known: State | None, group: Group[W]) -> Change[W] | None:
        """Handle an end; one without a link is not reported during its grace period."""
        ended_at = item.anomaly.ended_at if item.anomaly else None
        if ended_at is None:
            last = item.created_at if group.sent_at is None else group.sent_at
            ended_at = (last + self.answered.sent_at) / 2
            if group.sent_at is not None:
                self.schedule.observe_end(item.created_at, group.sent_at, self.answered.sent_at)
        generation = self.answered.answer.generation(item.task_id)
        item.last_row = RowText(item.task_id, b"", generation)
        if item.state is State.COMPLETED and not generation.url:
            anomaly = item.anomaly_or_new()
            anomaly.ended_at = ended_at
            anomaly.no_link_since = (
                self.answered.now if anomaly.no_link_since is None else anomaly.no_link_since
            )
            if self.answered.now < anomaly.no_link_since + self.grace.link:
                return None
        change = self._change(item, known, group, ended=True)
        self._finish(item, ended_at)
        return change

    def _on_not_found(self, item: Item[W], group: Group[W]) -> Change[W] | None:
        anomaly = item.anomaly_or_new()
        anomaly.not_found_since = (
            self.answered.now if anomaly.not_found_since is None else anomaly.not_found_since
        )
        anomaly.not_found_count += 1
        if self.answered.now < anomaly.not_found_since + self.answered.missing_grace or (
            self.answered.missing_grace and anomaly.not_found_count <= MIN_NOT_FOUND_ANSWERS
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
        unseen = None if group.answered_at is None else self.answered.now - group.answered_at
        watchers = tuple(item.watchers)
        return Change(item.task_id, item.last_row, ended, watchers, unseen, item.state, was)

    def _finish(self, item: Item[W], ended_at: float | None) -> None:
        """Remove an id that has ended from its group."""
        item.leave()
        self.schedule.on_removed(ended_at)
