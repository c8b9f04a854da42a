"""Apply a response to the ids that its request asked about."""

from math import inf
from typing import Generic

from msgspec.structs import replace

from luma_async.protocol.rows import RowText
from luma_async.scheduling.anomalies import Anomaly
from luma_async.scheduling.changes import Answered, Change, Grace
from luma_async.scheduling.items import Group, Item, W
from luma_async.scheduling.missing_evidence import LOOKS, Clock, Rule, Sign, rule
from luma_async.scheduling.request_timing import RequestTiming
from luma_async.structs import State

MIN_LOOK_DELAY = 0.5  # seconds between two polls of a doubted id
_NO_STATE = "no state"


class ResponseApplier(Generic[W]):
    """Apply one response to the groups of its batch.

    `changes` is the news. `solo_groups` are groups of one id that are polled by themselves from now
    on, each with its due and the time by which it has to be polled. `proofs` are the ids of which
    the single endpoint knows a state after batches left them out.
    """

    def __init__(self, answered: Answered, timing: RequestTiming, grace: Grace) -> None:
        self.answered = answered
        self.timing = timing
        self.grace = grace
        self.changes: list[Change[W]] = []
        self.solo_groups: list[tuple[Group[W], float, float]] = []
        self.proofs: list[str] = []
        self._end_count = 0
        self._ended_at: list[float | None] = []

    def apply(self, group: Group[W]) -> None:
        """Compare the response with a group; ids that need special care leave it."""
        silent_for = self.answered.now - group.last_heard_at if group.failed_attempts else 0.0
        group.last_heard_at = self.answered.now
        group.failed_attempts = 0
        group.hangs = False
        states, unknown = self.answered.answer.states, self.answered.answer.unknown_states
        news = [
            item
            for item in group.items
            if states.get(item.task_id, _NO_STATE) is not item.state or item.anomaly
        ]
        if unknown:
            ids = unknown | {item.task_id for item in news}
            news = [item for item in group.items if item.task_id in ids]
        for item in news:
            if item.anomaly and silent_for:
                item.anomaly.after_silence(silent_for)
            state = states.get(item.task_id)
            change = self._on_state(item, group, state) if state else self._on_no_row(item)
            if change:
                self.changes.append(change)
            if item.anomaly and item.group:
                self._handle_anomaly(item, item.anomaly, group)
        self._observe_ends(group)
        group.compact()
        if group.sent_at is None and self.timing.uses_task_age:
            group.update_age_range()
        self._observe_open(group)
        self._mark_polled(group)

    def _observe_open(self, group: Group[W]) -> None:
        """Report the ids that are still open to the timing."""
        if group.sent_at is not None and group.size:
            self.timing.observe_open(
                group.mean_created_at, group.sent_at, self.answered.sent_at, group.size
            )

    def _observe_ends(self, group: Group[W]) -> None:
        """Report the ids that have ended to the timing, all with the mean age of the group."""
        if self._ended_at:
            self.timing.on_removed(self._ended_at)
            self._ended_at = []
        if group.sent_at is not None and self._end_count:
            self.timing.observe_end(
                group.mean_created_at, group.sent_at, self.answered.sent_at, self._end_count
            )
        self._end_count = 0

    def _mark_polled(self, group: Group[W]) -> None:
        """Record when the group was polled."""
        group.sent_at = self.answered.sent_at

    def _handle_anomaly(self, item: Item[W], anomaly: Anomaly, group: Group[W]) -> None:
        """Move an id with an anomaly to a group of its own; drop an anomaly that is clear."""
        if anomaly.is_clear:
            item.anomaly = None
        elif anomaly.is_undecided or anomaly.solo_polls_left:
            solo = group.split_off([item])
            solo.oldest = solo.youngest = item.created_at
            if not anomaly.doubted:
                if anomaly.ended_at is None:
                    self._observe_open(solo)
                self._mark_polled(solo)
            alone = anomaly.solo_polls_left > 0
            delay = self.timing.base_delay if alone else self.timing.delay
            due = self.answered.sent_at + delay(item.created_at, self.answered.sent_at)
            deadline = anomaly.link_deadline(self.answered.now, self.grace.link)
            if anomaly.doubted:
                deadline = min(deadline, self._next_look(item, anomaly))
            if deadline < inf and not alone:
                self.timing.expedite(deadline)
            self.solo_groups.append((solo, due, deadline))

    def _next_look(self, item: Item[W], anomaly: Anomaly) -> float:
        """Return by when to poll a doubted id; inf for one that the key may not see for long."""
        ask_single = anomaly.solo_polls_left and self.answered.single_endpoint
        if self.answered.sign is Sign.OMITTED and ask_single:
            return self.answered.now
        rule, grace = self._rule(item), self.grace.missing
        evidence = anomaly.evidence_or_new()
        if evidence.is_reported and rule.clock is Clock.FORBIDDEN:
            return inf
        step = max(grace if rule.clock is Clock.DOUBTFUL else grace / LOOKS, MIN_LOOK_DELAY)
        remaining = evidence.remaining(rule, grace)
        return min(self.answered.sent_at + step, self.answered.now + remaining)

    def _on_state(self, item: Item[W], group: Group[W], state: State) -> Change[W] | None:
        known = item.state
        if item.anomaly and item.anomaly.on_row(single=self.answered.single):
            self.proofs.append(item.task_id)
        if item.task_id in self.answered.answer.unknown_states:
            state = self._state_of_unknown(item, state)
        elif item.anomaly:
            item.anomaly.unknown_state_since = None
        item.state = state
        if state.is_done:
            return self._on_end(item, known, group)
        if state is known:
            return None
        if known is None and self.timing.uses_task_age:
            item.created_at = min(
                item.created_at, self.answered.sent_at - self.answered.answer.age(item.task_id)
            )
        item.last_row = self.answered.answer.row(item.task_id)
        return self._change(item, known, group)

    def _state_of_unknown(self, item: Item[W], state: State) -> State:
        """Return COMPLETED once an unknown state has had a link to a video for the grace period."""
        if not self.answered.answer.generation(item.task_id).url:
            return state
        anomaly = item.anomaly_or_new()
        if anomaly.unknown_state_since is None:
            anomaly.unknown_state_since = self.answered.now
        over = self.answered.now >= anomaly.unknown_state_since + self.grace.link
        return State.COMPLETED if over else state

    def _on_end(self, item: Item[W], known: State | None, group: Group[W]) -> Change[W] | None:
        """Handle a final state; one without a link is not reported during its grace period."""
        ended_at = item.anomaly.ended_at if item.anomaly else None
        if ended_at is None:
            last = item.created_at if group.sent_at is None else group.sent_at
            ended_at = (last + self.answered.sent_at) / 2
            self._end_count += 1
        generation = self.answered.answer.generation(item.task_id)
        if generation.state is not item.state:
            generation = replace(generation, state=item.state)
        item.last_row = RowText(item.task_id, b"", generation)
        if item.state is State.COMPLETED and not generation.url:
            anomaly = item.anomaly_or_new()
            anomaly.ended_at = ended_at
            if anomaly.no_link_since is None:
                anomaly.no_link_since = self.answered.now
            if self.answered.now < anomaly.no_link_since + self.grace.link:
                return None
        change = self._change(item, known, group, ended=True)
        self._finish(item, ended_at)
        return change

    def _rule(self, item: Item[W]) -> Rule:
        return rule(
            self.answered.sign,
            seen=item.state is not None,
            single_endpoint=self.answered.single_endpoint,
        )

    def _on_no_row(self, item: Item[W]) -> Change[W] | None:
        """Weigh an answer without a row of the id; it ends if it counts as missing."""
        anomaly, rule = item.anomaly_or_new(), self._rule(item)
        evidence, grace = anomaly.evidence_or_new(), self.grace.missing
        anomaly.doubted = True
        if self.answered.sign is Sign.OMITTED:
            proved = anomaly.quarantines > 0 or not grace
            ask = evidence.omit(seen=item.state is not None, proved=proved)
            if ask and self.answered.single_endpoint:
                anomaly.solo_polls_left = max(1, anomaly.solo_polls_left)
        elif evidence.left_out:
            anomaly.solo_polls_left = max(0, anomaly.solo_polls_left - 1)
        evidence.add(rule, self.answered.now, grace)
        if not evidence.is_decided(rule, grace):
            return None
        done = item.state is not None and item.state.is_done
        forbidden = rule.clock is Clock.FORBIDDEN
        change = Change(
            task_id=item.task_id,
            row=item.last_row if done or forbidden else None,
            ended=not forbidden,
            watchers=tuple(item.watchers),
            state=item.state if done else None,
            previous_state=item.state,
            error=self.answered.error,
            forbidden=forbidden,
            is_repeated=forbidden and evidence.is_reported,
        )
        evidence.is_reported = True
        if not forbidden:
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
        return Change(
            task_id=item.task_id,
            row=item.last_row,
            ended=ended,
            watchers=tuple(item.watchers),
            max_lag=None if group.sent_at is None else self.answered.now - group.sent_at,
            state=item.state,
            previous_state=was,
        )

    def _finish(self, item: Item[W], ended_at: float | None) -> None:
        """Remove an id that has ended from its group."""
        item.leave()
        self._ended_at.append(ended_at)
