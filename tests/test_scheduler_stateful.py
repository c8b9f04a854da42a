"""The scheduler's five promises, over any interleaving of events."""

from math import inf

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from luma_async.scheduling.batches import Batch
from luma_async.scheduling.changes import Change, Grace
from luma_async.scheduling.items import Status
from luma_async.scheduling.pace import Every
from luma_async.scheduling.scheduler import Scheduler
from luma_async.structs import State
from tests.fake_answers import FakeAnswer
from tests.properties import examples

MAX_BATCH = 3
INTERVAL = 5.0
IDS = [f"id-{number}" for number in range(6)]
WATCHERS = ["ann", "bob"]

some_ids = st.lists(st.sampled_from(IDS), unique=True, min_size=1)
watchers = st.sampled_from(WATCHERS)
states = st.sampled_from(list(State))


class SchedulerMachine(RuleBasedStateMachine):
    """Drives a scheduler and a model with the same events, and compares them."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler: Scheduler[str] = Scheduler(
            Every(INTERVAL), MAX_BATCH, Grace(missing=inf, link=inf), phase=inf
        )
        # Else ids that batches leave out would be polled alone; test_evidence has that.
        self.scheduler.batch_size = replace(self.scheduler.batch_size, no_single_until=inf)
        self.fresh: set[str] = set()
        self.now = 0.0
        self.wanted: dict[str, set[str]] = {}
        self.due: dict[str, float] = {}
        self.backing_off: set[str] = set()
        self.bisecting: list[list[str]] = []
        self.turns_of_others = 0
        self.alone: dict[str, int] = {}
        self.quarantines: dict[str, int] = {}
        self.in_flight: dict[Batch[str], list[str]] = {}

    @rule(watcher=watchers, ids=some_ids)
    def subscribe(self, watcher: str, ids: list[str]) -> None:
        self.scheduler.subscribe(watcher, ids, self.now)
        for task_id in ids:
            self.wanted.setdefault(task_id, set()).add(watcher)
            if (
                task_id not in self.due
                and not self.is_in_flight(task_id)
                and not self.is_bisecting(task_id)
            ):
                self.due[task_id] = self.now

    @rule(watcher=watchers, ids=some_ids)
    def unsubscribe(self, watcher: str, ids: list[str]) -> None:
        unwatched = self.scheduler.unsubscribe(watcher, ids)
        before = {batch for batch in self.in_flight if self.is_needed(batch)}
        for task_id in ids:
            watching = self.wanted.get(task_id, set())
            watching.discard(watcher)
            if not watching:
                self.end(task_id)
        assert set(unwatched) == {batch for batch in before if not self.is_needed(batch)}

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 2.5, INTERVAL, 60.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def take(self) -> None:
        idle = not self.in_flight
        self.fresh = {i for i in self.due if self.scheduler.status_of(i) is Status.NEW}
        batch = self.scheduler.take_batch(self.now)
        if batch is None:
            assert not self.must_send(idle)
            return
        ids = list(batch.ids)
        max_ids = self.scheduler.batch_size.current(self.now)
        assert 1 <= len(ids) <= max_ids, "bounded"
        assert len(set(ids)) == len(ids), "economical: an id is in a batch once"
        assert not any(self.is_in_flight(task_id) for task_id in ids), (
            "economical: an id is in one request at a time"
        )
        assert all(self.wanted.get(task_id) for task_id in ids), (
            "tidy: an id without a watcher is not polled"
        )
        if self.bisecting and set(ids) <= set(self.bisecting[0]):
            self.check_bisected(ids, max_ids)
        else:
            assert self.turns_of_others < 2, "bisected batches take turns"
            self.turns_of_others += bool(self.bisecting)
            self.check_fair(ids, max_ids)
        self.in_flight[batch] = ids
        for task_id in ids:
            self.due.pop(task_id, None)
            self.backing_off.discard(task_id)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        batch, ids = self.returned(data)
        reported = {i: data.draw(states) for i in ids if data.draw(st.booleans())}
        stranger = dict.fromkeys(["stranger"], State.COMPLETED)
        changes = self.scheduler.complete(batch, FakeAnswer(reported | stranger), self.now)
        self.check_changes(ids, reported, changes)
        for task_id in ids:
            if task_id in reported:
                self.alone[task_id] = max(0, self.alone.get(task_id, 0) - 1)
            if reported.get(task_id, State.PENDING).is_done:
                self.end(task_id)
            elif self.wanted.get(task_id):
                self.due[task_id] = batch.sent_at + INTERVAL

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), seconds=st.sampled_from([0.0, 0.3, 20.0]))
    def back_off(self, data: st.DataObject, seconds: float) -> None:
        batch, ids = self.returned(data)
        self.scheduler.back_off(batch, self.now + seconds)
        for task_id in filter(self.wanted.get, ids):
            self.due[task_id] = self.now + seconds
            self.backing_off.add(task_id)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def bisect(self, data: st.DataObject) -> None:
        batch, ids = self.returned(data)
        self.scheduler.bisect(batch)
        left = [i for i in ids if self.wanted.get(i)]
        middle = (len(left) + 1) // 2
        for half in (left[middle:], left[:middle]):
            self.bisecting.insert(0, half)
        self.bisecting = [half for half in self.bisecting if half]

    @invariant()
    def each_wanted_id_is_in_exactly_one_place(self) -> None:
        for task_id in IDS:
            places = (task_id in self.due) + self.is_in_flight(task_id) + self.is_bisecting(task_id)
            status = self.scheduler.status_of(task_id)
            if self.wanted.get(task_id):
                assert places == 1
                assert status not in (Status.UNTRACKED, Status.ABANDONED)
            else:
                assert status is (
                    Status.ABANDONED if self.is_in_flight(task_id) else Status.UNTRACKED
                )

    @invariant()
    def nothing_wanted_is_forgotten(self) -> None:
        fresh = any(self.scheduler.status_of(i) is Status.NEW for i in self.due)
        soonest = -inf if self.bisecting else min(self.due.values(), default=inf)
        if fresh and not self.bisecting:
            assert soonest <= self.scheduler.next_due() < inf
        else:
            assert self.scheduler.next_due() == soonest

    def check_bisected(self, ids: list[str], max_ids: int) -> None:
        half = self.bisecting.pop(0)
        assert ids == half[:max_ids], "bisected ids are not mixed with others"
        self.turns_of_others = 0
        if len(half) > max_ids:
            self.bisecting.insert(0, half[max_ids:])
        else:
            self.quarantine(*ids)

    def quarantine(self, task_id: str, *others: str) -> None:
        if not others:
            self.alone[task_id] = 2 ** self.quarantines.get(task_id, 0)
            self.quarantines[task_id] = self.quarantines.get(task_id, 0) + 1

    def check_fair(self, ids: list[str], max_ids: int) -> None:
        alone = {i: due for i, due in self.due.items() if self.alone.get(i)}
        if ids[0] in alone:
            assert len(ids) == 1, "a quarantined id is polled alone"
            assert alone[ids[0]] <= self.now
            assert alone[ids[0]] == min(alone.values()), "fair among quarantined ids"
            others = [self.due[i] for i in self.due if i not in alone and self.is_due(i)]
            assert alone[ids[0]] <= min(others, default=inf), "fair to other ids"
            return
        assert not any(i in alone for i in ids), "a quarantined id is polled alone"
        first = min(self.due[i] for i in ids)
        if not self.fresh & set(ids):
            assert all(due > min(first, self.now) for due in alone.values()), (
                "fair to quarantined ids"
            )
        assert not any(i in self.backing_off and self.due[i] > self.now for i in ids), (
            "no retry before it is due"
        )
        newest = sorted(self.fresh & set(ids), key=self.due.__getitem__)[-max(1, max_ids // 3) :]
        latest = max((self.due[i] for i in ids if i not in newest), default=-inf)
        waiting = {
            i: due
            for i, due in self.due.items()
            if i not in ids and i not in alone and not (i in self.backing_off and due > self.now)
        }
        if len(ids) < max_ids:
            assert not waiting, "a batch is filled up with the ids that wait"
        assert all(latest <= due for due in waiting.values()), "fair"

    def check_changes(
        self, ids: list[str], reported: dict[str, State], changes: list[Change[str]]
    ) -> None:
        news = {change.task_id: change for change in changes}
        assert len(news) == len(changes), "each id is reported once"
        assert news.keys() <= {i for i in ids if self.wanted.get(i)}, "other ids are not reported"
        for task_id, change in news.items():
            assert set(change.watchers) == self.wanted[task_id], "all watchers receive it"
            assert change.generation is not None
            assert change.generation.state is reported[task_id]
        done = {i for i in ids if i in reported and reported[i].is_done and self.wanted.get(i)}
        assert done <= news.keys(), "every end is reported"

    def is_due(self, task_id: str) -> bool:
        fresh = self.scheduler.status_of(task_id) is Status.NEW
        return not fresh and self.due[task_id] <= self.now

    def must_send(self, idle: bool) -> bool:
        due = any(
            at <= self.now
            for i, at in self.due.items()
            if self.scheduler.status_of(i) is not Status.NEW
        )
        fresh = any(self.scheduler.status_of(i) is Status.NEW for i in self.due)
        return bool(self.bisecting) or due or (idle and fresh)

    def returned(self, data: st.DataObject) -> tuple[Batch[str], list[str]]:
        batch = data.draw(st.sampled_from(list(self.in_flight)))
        ids = self.in_flight.pop(batch)
        for task_id in ids:
            if not self.wanted.get(task_id):
                self.end(task_id)
        return batch, ids

    def is_in_flight(self, task_id: str) -> bool:
        return any(task_id in ids for ids in self.in_flight.values())

    def is_bisecting(self, task_id: str) -> bool:
        return any(task_id in half for half in self.bisecting)

    def is_needed(self, batch: Batch[str]) -> bool:
        return any(self.wanted.get(task_id) for task_id in self.in_flight[batch])

    def end(self, task_id: str) -> None:
        self.wanted.pop(task_id, None)
        self.due.pop(task_id, None)
        self.backing_off.discard(task_id)
        if not self.is_in_flight(task_id):
            self.alone.pop(task_id, None)
            self.quarantines.pop(task_id, None)
        self.bisecting = [[i for i in half if i != task_id] for half in self.bisecting]
        self.bisecting = [half for half in self.bisecting if half]


SchedulerMachine.TestCase.settings = settings(max_examples=examples(50), stateful_step_count=40)
TestScheduler = SchedulerMachine.TestCase
