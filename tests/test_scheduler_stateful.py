"""The book's five adjectives, over any interleaving of what can happen to it."""

from math import inf

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from luma_async.scheduling.changes import Change, Grace
from luma_async.scheduling.items import Batch, Status
from luma_async.scheduling.pace import Every
from luma_async.scheduling.scheduler import Scheduler
from luma_async.structs import State
from tests.fake_answers import Told
from tests.properties import examples

SEATS = 3
INTERVAL = 5.0
IDS = [f"id-{number}" for number in range(6)]
WATCHERS = ["ann", "bob"]

some_ids = st.lists(st.sampled_from(IDS), unique=True, min_size=1)
watchers = st.sampled_from(WATCHERS)
states = st.sampled_from(list(State))


class BookMachine(RuleBasedStateMachine):
    """Drives a book beside a model that is told the same and computes the rest by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.book: Scheduler[str] = Scheduler(
            Every(INTERVAL), SEATS, Grace(missing=inf, link=inf), phase=inf
        )
        # Else ids that batches leave out would be polled alone; test_evidence has that.
        self.book.batch_size = replace(self.book.batch_size, no_single_until=inf)
        self.fresh: set[str] = set()
        self.now = 0.0
        self.wanted: dict[str, set[str]] = {}
        self.due: dict[str, float] = {}
        self.held: set[str] = set()
        self.suspects: list[list[str]] = []
        self.suspects_turn = 0
        self.alone: dict[str, int] = {}
        self.exiles: dict[str, int] = {}
        self.under_way: dict[Batch[str], list[str]] = {}

    @rule(watcher=watchers, ids=some_ids)
    def watch(self, watcher: str, ids: list[str]) -> None:
        self.book.subscribe(watcher, ids, self.now)
        for task_id in ids:
            self.wanted.setdefault(task_id, set()).add(watcher)
            if task_id not in self.due and not self.asked(task_id) and not self.suspected(task_id):
                self.due[task_id] = self.now

    @rule(watcher=watchers, ids=some_ids)
    def unwatch(self, watcher: str, ids: list[str]) -> None:
        needless = self.book.unsubscribe(watcher, ids)
        before = {call for call in self.under_way if self.needed(call)}
        for task_id in ids:
            fans = self.wanted.get(task_id, set())
            fans.discard(watcher)
            if not fans:
                self.end(task_id)
        assert set(needless) == {call for call in before if not self.needed(call)}

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 2.5, INTERVAL, 60.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def take(self) -> None:
        idle = not self.under_way
        self.fresh = {i for i in self.due if self.book.status_of(i) is Status.NEW}
        call = self.book.take_batch(self.now)
        if call is None:
            assert not self.must_depart(idle)
            return
        ids = list(call.ids)
        seats = self.book.batch_size.current(self.now)
        assert 1 <= len(ids) <= seats, "bounded"
        assert len(set(ids)) == len(ids), "stingy: an id has one seat"
        assert not any(self.asked(task_id) for task_id in ids), "stingy: asked once at a time"
        assert all(self.wanted.get(task_id) for task_id in ids), "forgetful"
        if self.suspects and set(ids) <= set(self.suspects[0]):
            self.check_suspects(ids, seats)
        else:
            assert self.suspects_turn < 2, "suspects take turns"
            self.suspects_turn += bool(self.suspects)
            self.check_fair(ids, seats)
        self.under_way[call] = ids
        for task_id in ids:
            self.due.pop(task_id, None)
            self.held.discard(task_id)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        call, ids = self.returned(data)
        told = {i: data.draw(states) for i in ids if data.draw(st.booleans())}
        stranger = dict.fromkeys(["stranger"], State.COMPLETED)
        changes = self.book.complete(call, Told(told | stranger), self.now)
        self.check_told(ids, told, changes)
        for task_id in ids:
            if task_id in told:
                self.alone[task_id] = max(0, self.alone.get(task_id, 0) - 1)
            if told.get(task_id, State.PENDING).is_done:
                self.end(task_id)
            elif self.wanted.get(task_id):
                self.due[task_id] = call.sent_at + INTERVAL

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), seconds=st.sampled_from([0.0, 0.3, 20.0]))
    def spoil(self, data: st.DataObject, seconds: float) -> None:
        call, ids = self.returned(data)
        self.book.back_off(call, self.now + seconds)
        for task_id in filter(self.wanted.get, ids):
            self.due[task_id] = self.now + seconds
            self.held.add(task_id)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def split(self, data: st.DataObject) -> None:
        call, ids = self.returned(data)
        self.book.bisect(call)
        left = [i for i in ids if self.wanted.get(i)]
        middle = (len(left) + 1) // 2
        for half in (left[middle:], left[:middle]):
            self.suspects.insert(0, half)
        self.suspects = [half for half in self.suspects if half]

    @invariant()
    def each_wanted_id_is_in_exactly_one_place(self) -> None:
        for task_id in IDS:
            places = (task_id in self.due) + self.asked(task_id) + self.suspected(task_id)
            phase = self.book.status_of(task_id)
            if self.wanted.get(task_id):
                assert places == 1
                assert phase not in (Status.UNTRACKED, Status.ABANDONED)
            else:
                assert phase is (Status.ABANDONED if self.asked(task_id) else Status.UNTRACKED)

    @invariant()
    def nothing_wanted_is_forgotten(self) -> None:
        fresh = any(self.book.status_of(i) is Status.NEW for i in self.due)
        soonest = -inf if self.suspects else min(self.due.values(), default=inf)
        if fresh and not self.suspects:
            assert soonest <= self.book.next_due() < inf
        else:
            assert self.book.next_due() == soonest

    def check_suspects(self, ids: list[str], seats: int) -> None:
        half = self.suspects.pop(0)
        assert ids == half[:seats], "suspects travel apart"
        self.suspects_turn = 0
        if len(half) > seats:
            self.suspects.insert(0, half[seats:])
        else:
            self.exile(*ids)

    def exile(self, task_id: str, *others: str) -> None:
        if not others:
            self.alone[task_id] = 2 ** self.exiles.get(task_id, 0)
            self.exiles[task_id] = self.exiles.get(task_id, 0) + 1

    def check_fair(self, ids: list[str], seats: int) -> None:
        alone = {i: due for i, due in self.due.items() if self.alone.get(i)}
        if ids[0] in alone:
            assert len(ids) == 1, "who stood alone goes on alone"
            assert alone[ids[0]] <= self.now
            assert alone[ids[0]] == min(alone.values()), "fair among those that travel alone"
            others = [self.due[i] for i in self.due if i not in alone and self.is_due(i)]
            assert alone[ids[0]] <= min(others, default=inf), "fair to those that travel together"
            return
        assert not any(i in alone for i in ids), "who stood alone goes on alone"
        first = min(self.due[i] for i in ids)
        if not self.fresh & set(ids):
            assert all(due > min(first, self.now) for due in alone.values()), "fair to who is alone"
        assert not any(i in self.held and self.due[i] > self.now for i in ids), "held until due"
        newest = sorted(self.fresh & set(ids), key=self.due.__getitem__)[-max(1, seats // 3) :]
        latest = max((self.due[i] for i in ids if i not in newest), default=-inf)
        waiting = {
            i: due
            for i, due in self.due.items()
            if i not in ids and i not in alone and not (i in self.held and due > self.now)
        }
        if len(ids) < seats:
            assert not waiting, "a free seat is taken by whoever waits"
        assert all(latest <= due for due in waiting.values()), "fair"

    def check_told(
        self, ids: list[str], told: dict[str, State], changes: list[Change[str]]
    ) -> None:
        news = {change.task_id: change for change in changes}
        assert len(news) == len(changes), "each id is told once"
        assert news.keys() <= {i for i in ids if self.wanted.get(i)}, "strangers are not told"
        for task_id, change in news.items():
            assert set(change.watchers) == self.wanted[task_id], "all who want it are told"
            assert change.generation is not None
            assert change.generation.state is told[task_id]
        done = {i for i in ids if i in told and told[i].is_done and self.wanted.get(i)}
        assert done <= news.keys(), "every end is told"

    def is_due(self, task_id: str) -> bool:
        fresh = self.book.status_of(task_id) is Status.NEW
        return not fresh and self.due[task_id] <= self.now

    def must_depart(self, idle: bool) -> bool:
        due = any(
            at <= self.now for i, at in self.due.items() if self.book.status_of(i) is not Status.NEW
        )
        fresh = any(self.book.status_of(i) is Status.NEW for i in self.due)
        return bool(self.suspects) or due or (idle and fresh)

    def returned(self, data: st.DataObject) -> tuple[Batch[str], list[str]]:
        call = data.draw(st.sampled_from(list(self.under_way)))
        ids = self.under_way.pop(call)
        for task_id in ids:
            if not self.wanted.get(task_id):
                self.end(task_id)
        return call, ids

    def asked(self, task_id: str) -> bool:
        return any(task_id in ids for ids in self.under_way.values())

    def suspected(self, task_id: str) -> bool:
        return any(task_id in half for half in self.suspects)

    def needed(self, call: Batch[str]) -> bool:
        return any(self.wanted.get(task_id) for task_id in self.under_way[call])

    def end(self, task_id: str) -> None:
        self.wanted.pop(task_id, None)
        self.due.pop(task_id, None)
        self.held.discard(task_id)
        if not self.asked(task_id):
            self.alone.pop(task_id, None)
            self.exiles.pop(task_id, None)
        self.suspects = [[i for i in half if i != task_id] for half in self.suspects]
        self.suspects = [half for half in self.suspects if half]


BookMachine.TestCase.settings = settings(max_examples=examples(50), stateful_step_count=40)
TestBook = BookMachine.TestCase
