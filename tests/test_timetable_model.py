"""The timetable of a shared budget: a model of sessions, their messages, and a server.

The server compares and sets. Messages are lost and late, sessions are frozen and killed, and the
server loses the record.
"""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from luma_async.scheduling.shared_budget import (
    Reservation,
    Timetable,
    Wish,
    plan,
)
from luma_async.scheduling.slots import MAX_LATENESS
from tests.properties import examples

SPACING = 0.105  # of ten requests per second


class Step(Struct, frozen=True):
    kind: str
    session: int = 0
    amount: float = 0.0


sessions = st.integers(0, 2)
steps = st.one_of(
    st.builds(Step, st.just("wait"), sessions, st.sampled_from([0.001, 0.03, 0.11, 0.4, 1.3])),
    st.builds(Step, st.sampled_from(["prepare", "reserve"]), sessions, st.integers(1, 12)),
    st.builds(Step, st.sampled_from(["send", "send", "lose"]), sessions),
    st.builds(Step, st.sampled_from(["kill", "kill", "prepare", "restart server"]), sessions),
)


class Model:
    """Three sessions, each with a message under way at most. A frozen one makes no step."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.record: Timetable | None = None
        self.sequence = 0
        self.sent: dict[int, tuple[Reservation, int]] = {}
        self.own_next = [0.0, 0.0, 0.0]
        self.slots: list[list[float]] = [[], [], []]
        self.used: list[float] = []

    def step(self, step: Step) -> None:
        one = step.session
        match step.kind:
            case "wait":
                self.now += step.amount
            case "prepare":
                self.plan(one, int(step.amount))
            case "send":
                self.accept(one, is_answered=True)
            case "lose":
                self.accept(one, is_answered=False)
            case "reserve":
                self.plan(one, int(step.amount))
                self.accept(one, is_answered=True)
            case "kill":
                self.slots[one], self.own_next[one] = [], 0.0
                self.sent.pop(one, None)
            case _:
                self.record = None  # its messages in flight are refused: numbers are new
                self.sequence += 1000
                self.sent.clear()
        self.use()

    def plan(self, one: int, count: int) -> None:
        wanted = Wish(str(one), 10, SPACING, count, self.own_next[one])
        if isinstance(planned := plan(self.record, wanted, self.now), Reservation):
            self.sent[one] = planned, self.sequence

    def accept(self, one: int, *, is_answered: bool) -> None:
        """Let the message arrive, now or long after it was planned; its answer may be lost."""
        if one not in self.sent:
            return
        planned, sequence = self.sent.pop(one)
        if sequence != self.sequence:
            return
        self.record, self.sequence = planned.timetable, self.sequence + 1
        if is_answered:
            self.own_next[one] = planned.own_next
            self.slots[one] += planned.slots

    def use(self) -> None:
        """Send as late or as early as a slot allows."""
        for slots in self.slots:
            while slots and slots[0] <= self.now:
                slot = slots.pop(0)
                if self.now <= slot + MAX_LATENESS:
                    self.used.append(slot)


@given(st.lists(steps, min_size=30, max_size=60))
@settings(max_examples=examples(150))
def test_no_two_sessions_send_closer_than_the_spacing_whatever_is_lost_or_frozen(
    plan_of_steps: list[Step],
) -> None:
    model = Model()
    for step in plan_of_steps:
        model.step(step)
    pending = [slot for slots in model.slots for slot in slots if slot + MAX_LATENESS >= model.now]
    times = sorted(model.used + pending)
    for earlier, later in pairwise(times):
        assert later - earlier >= SPACING - 1e-6
