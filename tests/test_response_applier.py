"""What a response means for the ids of one group: changes, special care, what the pace learns."""

from collections.abc import Mapping, Sequence
from math import inf

import pytest

from luma_async import Every, Generation, NotFoundError, State
from luma_async.scheduling.anomalies import Anomaly
from luma_async.scheduling.changes import Answered, Grace
from luma_async.scheduling.items import Group, Item
from luma_async.scheduling.missing_evidence import Clock, Evidence, Sign
from luma_async.scheduling.request_timing import RequestTiming
from luma_async.scheduling.response_applier import ResponseApplier
from tests.fake_answers import FakeAnswer

PENDING, OPEN, DONE = State.PENDING, State.PROCESSING, State.COMPLETED
SENT_AT, NOW = 10.0, 11.0  # of the response
POLLED_AT = 4.0  # the poll before
DELAY, ALONE_DELAY = 20.0, 5.0
LINK = "https://cdn.example/video.mp4"


class RecordingTiming(RequestTiming):
    """A pace that may go by the age of tasks; it keeps what it receives."""

    __slots__ = ("_uses_task_age", "ended", "expedited", "open", "removed")

    def __init__(self, *, uses_task_age: bool = True) -> None:
        super().__init__(Every(5.0))
        self._uses_task_age = uses_task_age
        self.open: list[tuple[float, float, float, int]] = []
        self.ended: list[tuple[float, float, float, int]] = []
        self.removed: list[list[float | None]] = []
        self.expedited: list[float] = []

    @property
    def uses_task_age(self) -> bool:
        return self._uses_task_age

    def delay(self, created_at: float, sent_at: float, count: int = 1) -> float:
        return DELAY

    def base_delay(self, created_at: float, sent_at: float) -> float:
        return ALONE_DELAY

    def expedite(self, due: float) -> None:
        self.expedited.append(due)

    def on_removed(self, ended_at: Sequence[float | None]) -> None:
        self.removed.append(list(ended_at))

    def observe_open(self, created_at: float, last: float, sent_at: float, count: int = 1) -> None:
        self.open.append((created_at, last, sent_at, count))

    def observe_end(self, created_at: float, last: float, sent_at: float, count: int = 1) -> None:
        self.ended.append((created_at, last, sent_at, count))


class LinkedAnswer(FakeAnswer):
    """A response whose tasks have a link in any state, in words that may be unknown."""

    def __init__(self, states: Mapping[str, State], *unknown: str) -> None:
        super().__init__(states)
        self.unknown_states = frozenset(unknown)
        self.tasks = {
            task_id: Generation(id=task_id, state=state, result_url=LINK)
            for task_id, state in states.items()
        }

    def generation(self, task_id: str) -> Generation:
        return self.tasks[task_id]


def item_of(
    task_id: str = "a",
    state: State | None = OPEN,
    created_at: float = 2.0,
    anomaly: Anomaly | None = None,
) -> Item[str]:
    return Item[str](task_id, 0.0, created_at, ("ann",), None, state, anomaly)


def group_of(*items: Item[str], sent_at: float | None = POLLED_AT) -> Group[str]:
    group = Group(items, 0.0)
    group.sent_at = sent_at
    group.update_age_range()
    return group


def applied(
    answer: FakeAnswer,
    *groups: Group[str],
    sign: Sign = Sign.OMITTED,
    timing: RecordingTiming | None = None,
    grace: Grace | None = None,
) -> ResponseApplier[str]:
    """Apply a response that came at NOW to a request sent at SENT_AT."""
    answered = Answered(
        answer=answer,
        sent_at=SENT_AT,
        now=NOW,
        sign=sign,
        error=NotFoundError(404),
        single=sign is not Sign.OMITTED,
        single_endpoint=True,
    )
    applier: ResponseApplier[str] = ResponseApplier(
        answered, timing or RecordingTiming(), grace or Grace()
    )
    for group in groups:
        applier.apply(group)
    return applier


# the group


def test_a_group_that_was_answered_has_no_failed_attempts_any_more() -> None:
    group = group_of(item_of())
    group.failed_attempts, group.hangs = 3, True
    applied(FakeAnswer({"a": OPEN}), group)
    assert (group.failed_attempts, group.hangs) == (0, False)
    assert (group.last_heard_at, group.sent_at) == (NOW, SENT_AT)


def test_a_response_without_news_changes_nothing() -> None:
    timing = RecordingTiming()
    group = group_of(item_of("a"), item_of("b", PENDING, created_at=3.0))
    applier = applied(FakeAnswer({"a": OPEN, "b": PENDING}), group, timing=timing)
    assert (applier.changes, applier.solo_groups, applier.proofs) == ([], [], [])
    assert (timing.removed, timing.ended, timing.expedited) == ([], [], [])
    assert timing.open == [(2.5, POLLED_AT, SENT_AT, 2)]


def test_of_ids_that_have_ended_the_pace_receives_how_many_and_about_when() -> None:
    timing = RecordingTiming()
    first = group_of(item_of("a"), item_of("b", created_at=3.0), item_of("c", created_at=6.0))
    second = group_of(item_of("d"), item_of("e"))
    new = group_of(item_of("f", None), sent_at=None)
    states = {"a": DONE, "b": DONE, "c": OPEN, "d": DONE, "e": OPEN, "f": DONE}
    applier = applied(FakeAnswer(states), first, second, new, timing=timing)
    assert [change.task_id for change in applier.changes if change.ended] == ["a", "b", "d", "f"]
    assert timing.removed == [[7.0, 7.0], [7.0], [6.0]], "in the middle since the last poll"
    assert timing.ended == [(4.0, POLLED_AT, SENT_AT, 2), (2.0, POLLED_AT, SENT_AT, 1)]
    assert timing.open == [(4.0, POLLED_AT, SENT_AT, 1), (2.0, POLLED_AT, SENT_AT, 1)]
    assert [len(group.items) for group in (first, second, new)] == [1, 1, 0]


def test_the_ages_of_a_group_are_known_after_its_first_response_and_stay() -> None:
    items = [item_of("a", None, 9.0), item_of("b", None, 9.0)]
    group = group_of(*items, sent_at=None)
    answer = FakeAnswer({"a": PENDING, "b": PENDING}, ages={"a": 30.0, "b": 10.0})
    applied(answer, group)
    assert (group.oldest, group.youngest) == (SENT_AT - 30.0, SENT_AT - 10.0)
    answer = FakeAnswer({"a": DONE, "b": OPEN}, ages={"a": 99.0, "b": 99.0})
    applied(answer, group)
    assert (group.oldest, group.youngest) == (SENT_AT - 30.0, SENT_AT - 10.0)
    assert items[1].created_at == SENT_AT - 10.0


def test_for_a_pace_that_does_not_use_it_the_age_is_the_time_since_an_id_is_watched() -> None:
    item = item_of("a", None, 9.0)
    answer = FakeAnswer({"a": OPEN}, ages={"a": 30.0})
    applied(answer, group_of(item, sent_at=None), timing=RecordingTiming(uses_task_age=False))
    assert item.created_at == 9.0


# ids with special care


def solo_of(applier: ResponseApplier[str]) -> tuple[Group[str], float, float]:
    """Return the only group of one id that is polled by itself, its due and its deadline."""
    (solo,) = applier.solo_groups
    return solo


def test_an_id_in_quarantine_is_polled_alone_at_the_interval() -> None:
    for left in (2, 3):
        timing = RecordingTiming()
        group = group_of(
            item_of(anomaly=Anomaly(solo_polls_left=left, quarantines=2)),
            item_of("b", created_at=6.0),
        )
        applier = applied(FakeAnswer({"a": OPEN, "b": OPEN}), group, timing=timing)
        solo, due, deadline = solo_of(applier)
        assert (due, deadline) == (SENT_AT + ALONE_DELAY, inf)
        assert (solo.oldest, solo.youngest, solo.sent_at) == (2.0, 2.0, SENT_AT)
        assert timing.open == [(2.0, POLLED_AT, SENT_AT, 1), (4.0, POLLED_AT, SENT_AT, 1)]
        assert (applier.changes, timing.expedited) == ([], []), "its state is the same"


def test_an_id_that_was_in_quarantine_rejoins_the_others() -> None:
    item = item_of(anomaly=Anomaly(solo_polls_left=1, quarantines=2))
    applier = applied(FakeAnswer({"a": OPEN}), group_of(item))
    assert applier.solo_groups == []
    assert item.anomaly
    assert item.anomaly.quarantines == 2


@pytest.mark.parametrize(("failed_attempts", "silent_for"), [(0, 0.0), (1, NOW - 3.0)])
def test_the_grace_period_of_a_link_does_not_count_the_time_without_a_response(
    failed_attempts: int, silent_for: float
) -> None:
    timing = RecordingTiming()
    group = group_of(item_of(state=DONE, anomaly=Anomaly(no_link_since=2.0, ended_at=1.0)))
    group.failed_attempts, group.last_heard_at = failed_attempts, 3.0
    applier = applied(FakeAnswer({"a": DONE}, url=None), group, timing=timing)
    solo, due, deadline = solo_of(applier)
    assert (due, deadline) == (SENT_AT + DELAY, 2.0 + silent_for + 60.0)
    assert solo.sent_at == SENT_AT
    assert timing.expedited == [deadline]
    assert (timing.open, timing.ended) == ([], []), "it has ended before"


def test_a_task_that_runs_again_after_its_grace_period_has_no_deadline() -> None:
    timing = RecordingTiming()
    group = group_of(item_of(state=DONE, anomaly=Anomaly(no_link_since=-100.0)))
    _, due, deadline = solo_of(applied(FakeAnswer({"a": OPEN}), group, timing=timing))
    assert (due, deadline, timing.expedited) == (SENT_AT + DELAY, inf, [])


def test_a_doubted_id_is_polled_again_in_a_sixth_of_the_grace_period() -> None:
    timing = RecordingTiming()
    group = group_of(item_of())
    applier = applied(FakeAnswer({}), group, sign=Sign.NOT_FOUND, timing=timing)
    solo, due, deadline = solo_of(applier)
    assert (due, deadline) == (SENT_AT + DELAY, SENT_AT + 5.0)
    assert solo.sent_at == POLLED_AT, "the response had no state of it"
    assert timing.expedited == [deadline]
    assert timing.open == []


@pytest.mark.parametrize(
    ("anomaly", "grace", "asks_single"),
    [
        (Anomaly(), 30.0, False),
        (Anomaly(quarantines=1), 30.0, True),
        (Anomaly(quarantines=2), 30.0, True),
        (Anomaly(), 0.0, True),
    ],
)
def test_where_batches_leave_an_id_out_provably_or_without_grace_one_is_enough_to_ask_get(
    anomaly: Anomaly, grace: float, asks_single: bool
) -> None:
    timing = RecordingTiming()
    applier = applied(
        FakeAnswer({}), group_of(item_of(anomaly=anomaly)), timing=timing, grace=Grace(grace)
    )
    _, due, deadline = solo_of(applier)
    assert anomaly.solo_polls_left == asks_single
    if asks_single:
        assert (due, deadline) == (SENT_AT + ALONE_DELAY, NOW)
        assert timing.expedited == [], "a request of its own"


@pytest.mark.parametrize(
    ("left_out", "before", "after"),
    [(True, 0, 0), (True, 1, 0), (True, 2, 1), (True, 3, 2), (False, 2, 2)],
)
def test_an_id_that_get_does_not_know_is_in_a_batch_again_that_may_contain_it(
    left_out: bool, before: int, after: int
) -> None:
    anomaly = Anomaly(solo_polls_left=before, evidence=Evidence(left_out=left_out))
    applied(FakeAnswer({}), group_of(item_of(anomaly=anomaly)), sign=Sign.NOT_FOUND)
    assert anomaly.solo_polls_left == after


# states in unknown words


def test_a_link_beside_an_unknown_state_starts_its_grace_period() -> None:
    unknown, other = item_of("a"), item_of("b")
    answer = LinkedAnswer({"a": OPEN, "b": OPEN}, "a")
    applier = applied(answer, group_of(unknown, other))
    assert applier.changes == []
    assert unknown.anomaly
    assert unknown.anomaly.unknown_state_since == NOW
    assert other.anomaly is None, "its state is known"
    _, _, deadline = solo_of(applier)
    assert deadline == NOW + 60.0


def test_a_state_that_is_known_ends_that_grace_period() -> None:
    item = item_of(anomaly=Anomaly(unknown_state_since=5.0))
    applier = applied(LinkedAnswer({"a": OPEN}), group_of(item))
    assert item.anomaly is None
    assert (applier.changes, applier.solo_groups) == ([], [])


def test_after_the_grace_period_an_unknown_state_with_a_link_is_completed() -> None:
    item = item_of(anomaly=Anomaly(unknown_state_since=NOW - 60.0))
    (change,) = applied(LinkedAnswer({"a": OPEN}, "a"), group_of(item)).changes
    assert change.ended
    assert (change.state, change.previous_state) == (DONE, OPEN)
    assert change.generation
    assert (change.generation.state, change.generation.url) == (DONE, LINK)


def test_a_completed_task_is_reported_as_the_response_has_it() -> None:
    answer = LinkedAnswer({"a": DONE})
    (change,) = applied(answer, group_of(item_of())).changes
    assert change.generation is answer.tasks["a"]
    assert change.max_lag == NOW - POLLED_AT


# ids that are missing or forbidden


def almost(clock: Clock) -> Anomaly:
    """Return an id that counts as missing or forbidden at the next answer of the same kind."""
    evidence = Evidence(last=clock, at=NOW - 5.0)
    setattr(evidence, clock.value, 25.0)
    return Anomaly(evidence=evidence, ended_at=3.0)


@pytest.mark.parametrize(
    ("state", "reported"), [(None, None), (OPEN, None), (DONE, DONE), (State.FAILED, State.FAILED)]
)
def test_a_missing_id_is_reported_with_a_final_state_if_one_was_seen(
    state: State | None, reported: State | None
) -> None:
    timing = RecordingTiming()
    item = item_of(state=state, anomaly=almost(Clock.NOT_FOUND))
    item.last_row = row = FakeAnswer({"a": state or OPEN}).row("a")
    group = group_of(item)
    (change,) = applied(FakeAnswer({}), group, sign=Sign.NOT_FOUND, timing=timing).changes
    assert (change.state, change.previous_state) == (reported, state)
    assert change.row is (row if reported else None)
    assert (change.ended, change.forbidden, change.watchers) == (True, False, ("ann",))
    assert isinstance(change.error, NotFoundError)
    assert (group.size, timing.removed) == (0, [[3.0]])


def test_a_forbidden_id_is_reported_with_its_last_row_and_its_polling_continues() -> None:
    timing = RecordingTiming()
    item = item_of(anomaly=almost(Clock.FORBIDDEN))
    item.last_row = row = FakeAnswer({"a": OPEN}).row("a")
    applier = applied(FakeAnswer({}), group_of(item), sign=Sign.FORBIDDEN, timing=timing)
    (change,) = applier.changes
    assert (change.ended, change.forbidden, change.watchers) == (False, True, ("ann",))
    assert (change.state, change.previous_state) == (None, OPEN)
    assert change.row is row
    assert item.watchers == ("ann",)
    assert ([solo.size for solo, *_ in applier.solo_groups], timing.removed) == ([1], [])
