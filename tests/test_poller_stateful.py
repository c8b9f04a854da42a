"""The promise of the whole poller, over any interleaving of callers, responses and faults.

For any script of responses and faults that ends in responses, each wait gets the right result
exactly once, and no second has more requests than the limit.

`python -m tests.test_poller_stateful 2000` tries that many examples, others at each run.
"""

import asyncio
import random
import sys
from collections.abc import Coroutine, Mapping
from math import inf
from typing import Any, TypeVar

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from luma_async.errors import (
    AuthenticationError,
    GenerationsMissing,
    LumaError,
    PermissionDeniedError,
    SessionClosed,
    WaitAborted,
    WaitIncomplete,
    WaitTimeout,
)
from luma_async.polling.direct import DirectClient
from luma_async.polling.interfaces import Watcher
from luma_async.polling.iterator import Reader
from luma_async.polling.wait import Notify
from luma_async.scheduling.changes import Change, Grace
from luma_async.scheduling.hazard import DurationCounts
from luma_async.scheduling.pace import Every, Learned
from luma_async.scheduling.throttle import Limits
from luma_async.structs import Generation, State
from luma_async.testing import VirtualTimeLoop
from tests.in_memory_relays import (
    AMNESIA,
    ROUNDING,
    STATES,
    TROUBLES,
    FaultyRelay,
    LimitChecker,
    Outcome,
    RelayClient,
    Request,
    Stage,
    generation_at,
)
from tests.properties import examples
from tests.recording_waits import Caller, DirectCall, Habit, RecordingPoller, RecordingWait

GRACE = Grace(missing=30.0, link=60.0)
TICK = 0.001
LONGEST = 600.0
IDS = [f"id-{number}" for number in range(10)]
MANY_REJECTIONS = 24  # in a row: two of them are about different ids, within two seconds
REFUSED_KEY = (AuthenticationError, PermissionDeniedError)

T = TypeVar("T")


stages = st.sampled_from(
    [Stage.LINKED, Stage.FAILED, Stage.PROCESSING, Stage.LINKLESS, Stage.PENDING]
)
an_id = st.sampled_from(IDS)
some_ids = st.lists(an_id, unique=True, min_size=1)
timeouts = st.sampled_from([None, None, 0.0, 1.0, 10.0, 45.0, 100.0])
habits = st.sampled_from([(None, 0.0), (None, 0.0), (None, 3.0), (0.7, 0.5), (2.0, 3.0)])
newses = st.sampled_from(list(Notify))
moments = st.sampled_from([0.0, 0.0, 0.05, 0.1, 0.3, 1.0])
passing = moments | st.sampled_from([2.5, 5.0, 15.0, 31.0, 60.0]) | st.floats(0.0, 60.0)
lates = st.sampled_from([0.1, 0.0, 0.5, 2.0, 10.0]) | st.floats(0.1, 40.0)
quiets = st.sampled_from([None, 0.5, 3.0, 20.0, 120.0])
refusals = st.sampled_from([400, 422]), st.sampled_from([200, 400, 404, 422])
faults = st.sampled_from(["429", "500", "502", "503"])
outcomes = st.one_of(
    st.builds(Outcome, late=lates, omitted=st.frozensets(an_id), strangers=st.booleans()),
    st.builds(Outcome, late=moments, after=quiets),
    st.just(Outcome(omitted=frozenset(IDS))),
    st.just(Outcome(late=30.0, fault="timeout")),
    st.builds(Outcome, fault=st.sampled_from(["reset", "senseless"]), late=st.just(0.0)),
    st.builds(Outcome, fault=faults, late=lates, after=quiets),
    st.builds(Outcome, fault=faults, late=moments, after=quiets),
)

KNOWN = [DurationCounts.of([(age, 20.0, 400.0), (2 * age, 5.0, 10.0)]) for age in (0.5, 7.0, 60.0)]


class PollerMachine(RuleBasedStateMachine):
    """Drives a poller on a faulty relay in virtual time, and checks what its callers receive."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualTimeLoop()
        self.loop.set_exception_handler(self.record_unhandled)
        self.faults: list[str] = []
        self.reported = False
        self.relay = FaultyRelay(IDS, self.on_answer)
        self.history: dict[str, list[Stage]] = {}
        self.seen: dict[str, list[tuple[float, Stage]]] = {task_id: [] for task_id in IDS}
        self.unnamed: dict[str, float] = {}
        self.callers: dict[asyncio.Task[None], Caller] = {}
        self.direct_calls: dict[asyncio.Task[None], DirectCall] = {}
        self.cancelled: set[asyncio.Task[None]] = set()
        self.expected: list[tuple[float, RecordingWait, str | None]] = []
        self.session: LimitChecker
        self.poller: RecordingPoller
        self.checked: set[asyncio.Task[None]] = set()
        self.rejections = 0

    @initialize(
        max_batch=st.sampled_from([3, 1, 2, 100]),
        slots=st.sampled_from([4, 1, 2]),
        rate=st.sampled_from([5.0, 2.0, 10.0]),
        seconds=st.sampled_from([5.0, 1.0]),
        known=st.sampled_from([None, DurationCounts(), *KNOWN]),
        seed=st.integers(0, 2**16),
        begun=st.fixed_dictionaries(dict.fromkeys(IDS, st.sampled_from(list(Stage)[:4]))),
        script=st.lists(outcomes, max_size=20),
        waits=st.lists(st.tuples(some_ids, timeouts, newses, habits), min_size=1, max_size=4),
    )
    def begin(
        self,
        max_batch: int,
        slots: int,
        rate: float,
        seconds: float,
        known: DurationCounts | None,
        seed: int,
        begun: dict[str, Stage],
        script: list[Outcome],
        waits: list[tuple[list[str], float | None, Notify, Habit]],
    ) -> None:
        self.limits = Limits(max_batch=max_batch, max_in_flight=slots, max_rate=rate)
        self.pace = Every(seconds) if known is None else Learned(seconds, known)
        self.dice = random.Random(seed).random
        self.relay.stages.update(begun)
        self.history = {task_id: [stage] for task_id, stage in begun.items()}
        self.relay.script.extend(script)
        self.run(self.open())
        for wait in waits:
            self.start(*wait)

    @rule(ids=some_ids, timeout=timeouts, news=newses, habit=habits, then=passing)
    def wait(
        self, ids: list[str], timeout: float | None, news: Notify, habit: Habit, then: float
    ) -> None:
        self.start(ids, timeout, news, habit)
        self.sleep(then)

    @rule(ids=some_ids, alone=st.booleans(), then=passing)
    def get(self, ids: list[str], alone: bool, then: float) -> None:
        direct_call = DirectCall(ids[:1] if alone else ids, alone, self.session)
        client = DirectClient(self.poller, RelayClient(self.relay, self.session, direct=True))
        self.direct_calls[self.loop.create_task(direct_call.run(client, self.history))] = (
            direct_call
        )
        self.sleep(then)

    @rule(task_id=an_id, stage=stages, then=passing)
    def move(self, task_id: str, stage: Stage, then: float) -> None:
        self.move_on(task_id, stage)
        self.sleep(then)

    @rule(more=st.lists(outcomes, min_size=1, max_size=6), then=passing)
    def script(self, more: list[Outcome], then: float) -> None:
        self.relay.script.extend(more)
        self.sleep(then)

    @rule(
        trouble=st.sampled_from([AMNESIA, *TROUBLES]),
        seconds=passing,
        refused=st.dictionaries(an_id, st.tuples(*refusals), max_size=2),
        max_ids=st.sampled_from([inf, 2, 5]),
        then=passing,
    )
    def misbehave(
        self,
        trouble: str,
        seconds: float,
        refused: dict[str, tuple[int, int]],
        max_ids: float,
        then: float,
    ) -> None:
        self.relay.troubles[trouble] = self.loop.time() + seconds
        self.relay.refused = refused
        self.relay.max_ids = max_ids
        self.sleep(then)

    @precondition(lambda self: self.in_flight())
    @rule(data=st.data(), then=passing)
    def cancel(self, data: st.DataObject, then: float) -> None:
        tasks = self.in_flight()
        task = tasks[data.draw(st.integers(0, len(tasks) - 1))]
        task.cancel()
        self.cancelled.add(task)
        self.sleep(then)

    @precondition(lambda self: self.readers())
    @rule(data=st.data(), then=passing)
    def leave(self, data: st.DataObject, then: float) -> None:
        readers = self.readers()
        caller, reader = readers[data.draw(st.integers(0, len(readers) - 1))]
        caller.left = True
        self.run(reader.aclose())
        self.sleep(then)

    @precondition(lambda self: len(self.in_flight()) > 2)
    @rule(then=passing)
    def reopen(self, then: float) -> None:
        self.run(self.close())
        self.run(self.open())
        self.sleep(then)

    @invariant()
    def what_is_expected_was_reported_at_once(self) -> None:
        now = self.loop.time()
        for at, wait, task_id in [expected for expected in self.expected if expected[0] < now]:
            received = (
                wait.ended_at.get(task_id) == at if task_id else not wait.open_after(at + TICK)
            )
            self.claim(
                received or at in wait.left_at, f"{task_id or 'the abort'} at {at} was not reported"
            )
        self.expected = [expected for expected in self.expected if expected[0] >= now]

    @invariant()
    def every_result_is_right(self) -> None:
        for task in self.tasks():
            if task.done() and task not in self.checked:
                self.checked.add(task)
                self.check_end(task)

    @invariant()
    def every_promise_is_kept(self) -> None:
        if self.faults and not self.reported:
            self.reported = True
            raise AssertionError("; ".join(self.faults))

    def teardown(self) -> None:
        try:
            if self.history and not self.reported:
                self.finish()
                self.every_promise_is_kept()
        finally:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.run(asyncio.sleep(1.0))
            self.loop.close()

    def sleep(self, seconds: float) -> None:
        """Let time pass; 0 is one turn of the loop, which ends between two callbacks."""
        if seconds:
            self.run(asyncio.sleep(seconds))
        else:
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    def move_on(self, task_id: str, stage: Stage) -> None:
        if self.relay.stages[task_id].leads_to(stage):
            self.relay.stages[task_id] = stage
            self.history[task_id].append(stage)

    async def open(self) -> None:
        self.session = LimitChecker(self.limits, self.wanted, self.faults)
        door = RelayClient(self.relay, self.session, direct=False)
        self.poller = RecordingPoller(
            door, self.pace, self.limits, GRACE, request_timeout=30.0, roll=self.dice
        )

    async def close(self) -> None:
        """Close the session; none of its requests is in flight when that returns."""
        self.session.closed = True
        self.expect_abort()
        await self.poller.close()
        polls = [request for request in self.session.in_flight if not request.direct]
        self.claim(not polls, f"in flight after the close: {polls}")
        await asyncio.sleep(TICK)
        self.claim(not self.session.in_flight, f"left behind: {self.session.in_flight}")

    def finish(self) -> None:
        """Let the relay answer correctly from now on: each wait ends, and nothing is left."""
        self.relay.stop_faults()
        for caller in self.callers.values():
            caller.patience, caller.pause = None, 0.0
        for task_id in IDS:
            if self.relay.stages[task_id] in (Stage.PENDING, Stage.PROCESSING):
                self.move_on(task_id, Stage.LINKED)
        until = self.loop.time() + LONGEST
        while self.in_flight() and self.loop.time() < until:
            self.run(asyncio.sleep(1.0))
        for task in self.in_flight():
            self.claim(False, f"no result in {LONGEST:g} s: {self.tasks()[task]}")
        self.run(asyncio.sleep(TICK))
        self.what_is_expected_was_reported_at_once()
        self.every_result_is_right()
        self.check_nothing_is_left()
        self.run(self.close())
        self.check_nothing_is_left()

    def check_nothing_is_left(self) -> None:
        loop: Any = self.loop
        timers = [timer for timer in loop._scheduled if not timer.cancelled()]
        stats = self.poller.snapshot()
        self.claim(not asyncio.all_tasks(self.loop), "a task is left")
        self.claim(not timers, f"timers are left: {timers}")
        self.claim((stats.open, stats.in_flight) == (0, 0), f"left open: {stats}")

    def start(self, ids: list[str], timeout: float | None, news: Notify, habit: Habit) -> None:
        door = RelayClient(self.relay, self.session, direct=True)
        wait = RecordingWait(
            self.poller, door, tuple(ids), timeout, news, self.check_change, self.loop.time
        )
        caller = Caller(wait, news, timeout, habit, self.session)
        self.callers[self.loop.create_task(caller.run())] = caller

    def on_answer(self, request: Request, answer: Mapping[str, Stage] | LumaError) -> None:
        """Record a response, and which waits have to receive it at once."""
        if isinstance(answer, LumaError):
            if isinstance(answer, REFUSED_KEY) and not request.direct:
                self.rejections += 1
                if self.rejections == MANY_REJECTIONS:
                    self.expect_abort()
            return
        self.rejections = 0
        if request.direct:
            unnamed = [task_id for task_id in request.ids if task_id not in answer]
            self.unnamed |= dict.fromkeys(unnamed, self.loop.time())
            return
        for task_id in request.ids:
            stage = answer.get(task_id, Stage.UNKNOWN)
            self.seen[task_id].append((self.loop.time(), stage))
            if stage.is_end:
                self.expect_report(task_id)

    def expect_report(self, task_id: str) -> None:
        waits = [wait for wait in self.waits() if wait.wants(task_id)]
        self.expected += [(self.loop.time(), wait, task_id) for wait in waits]

    def expect_abort(self) -> None:
        waits = [wait for wait in self.waits() if any(map(wait.wants, wait.ids))]
        self.expected += [(self.loop.time(), wait, None) for wait in waits]

    def check_change(self, wait: RecordingWait, change: Change[Watcher]) -> None:
        """Check a change of one id when it is reported."""
        task_id = change.task_id
        self.claim(task_id in wait.ids, f"{task_id} is not watched")
        self.claim(task_id not in wait.ends, f"{task_id} is reported again after its end")
        self.claim(
            wait.is_watching or wait.is_direct, f"{task_id} is reported to a wait that has left"
        )
        if not change.ended:
            return
        if wait.is_direct:
            true = [generation_at(task_id, one) for one in self.history[task_id] if one in STATES]
            right = change.generation in true
        else:
            right = self.is_right(wait, task_id, change.generation)
        self.claim(right, f"{task_id} ends wrongly: {change.generation}")

    def is_right(self, wait: RecordingWait, task_id: str, received: Generation | None) -> bool:
        """Whether the responses about an id make this its result, now."""
        seen, now = self.seen[task_id], self.loop.time()
        known = [(at, stage) for at, stage in seen if stage is not Stage.UNKNOWN]
        silent = [at for at, _ in seen[seen.index(known[-1]) + 1 if known else 0 :]]
        gone = bool(silent) and now - silent[0] >= GRACE.missing - ROUNDING
        if received is None:
            return gone and not any(
                at >= wait.watched_at and STATES[one].is_done for at, one in known
            )
        stage = known[-1][1] if known else Stage.PENDING
        if received != generation_at(task_id, stage):
            return False
        linkless = next((at for at, received in known if received is Stage.LINKLESS), now)
        late = now - linkless >= GRACE.link - ROUNDING
        return not silent if stage.is_end else late or gone

    def check_end(self, task: asyncio.Task[None]) -> None:
        """Check how a caller or a direct call ended."""
        if task.cancelled():
            self.claim(task in self.cancelled, "cancelled without a reason")
        elif error := task.exception():
            self.claim(False, f"ended by {error!r}")
        elif task in self.direct_calls:
            self.check_call(self.direct_calls[task])
        else:
            self.check_caller(self.callers[task])

    def check_call(self, direct_call: DirectCall) -> None:
        if isinstance(direct_call.error, SessionClosed):
            self.claim(direct_call.session.closed, "a call found the session closed")
        for task_id, found in direct_call.found.items():
            stages = self.history[task_id][direct_call.stages[task_id] :]
            true = [generation_at(task_id, stage) for stage in stages if stage in STATES]
            self.claim(task_id in direct_call.ids and found in true, f"{found} is not {true}")
        absent = [
            i for i in direct_call.ids if i not in direct_call.found and not direct_call.error
        ]
        lost = [i for i in absent if self.unnamed.get(i, -inf) < direct_call.begun_at]
        self.claim(not lost, f"{lost} are absent, and no response omitted them")

    def check_caller(self, caller: Caller) -> None:
        wait = caller.wait
        ends = {i: wait.ends[i].generation for i in wait.ids if i in wait.ends}
        done = {i: generation for i, generation in ends.items() if generation}
        missing = tuple(i for i, generation in ends.items() if not generation)
        pending = [i for i in wait.ids if i not in ends]
        match caller.error:
            case None:
                right = caller.left or not (missing or pending)
            case GenerationsMissing():
                right = bool(missing) and not pending
            case WaitAborted(cause=cause):
                closed = isinstance(cause, SessionClosed) and caller.session.closed
                right = wait.aborted and (closed or isinstance(cause, REFUSED_KEY))
            case WaitTimeout():
                right = bool(pending) and self.is_in_time(caller)
            case _:
                right = False
        self.claim(right, f"a wait for {wait.ids} ended wrongly: {caller.error!r}")
        if isinstance(error := caller.error, WaitIncomplete):
            received = list(error.done.items()), list(error.pending), error.missing
            self.claim(received == (list(done.items()), pending, missing), f"{error!r} is wrong")
        elif not caller.left:
            self.claim(wait.done == done, f"a wait for {wait.ids} has wrong results")
        self.check_reading(caller, set(done))

    def check_reading(self, caller: Caller, done: set[str]) -> None:
        """Check what a reader received: each change once, in order, the end of each id last."""
        if caller.news is Notify.NOTHING:
            return
        ended = [generation.id for generation in caller.read if generation.is_done]
        read = sorted(set(ended)) == sorted(ended) and (caller.left or set(ended) == done)
        self.claim(read and set(ended) <= done, f"read {ended} of {done}")
        for task_id in caller.wait.ids:
            states = [order(one.state) for one in caller.read if one.id == task_id]
            self.claim(states == sorted(set(states)), f"{task_id} was read as {states}")

    def is_in_time(self, caller: Caller) -> bool:
        if not caller.timeout:
            return caller.timeout == 0
        late = caller.ended_at - caller.begun_at - caller.timeout
        return abs(late) < ROUNDING if caller.steady else late > -ROUNDING

    def wanted(self, task_id: str) -> bool:
        return any(wait.wanted(task_id) for wait in self.waits())

    def waits(self) -> list[RecordingWait]:
        return [caller.wait for caller in self.callers.values()]

    def tasks(self) -> dict[asyncio.Task[None], Caller | DirectCall]:
        return {**self.callers, **self.direct_calls}

    def in_flight(self) -> list[asyncio.Task[None]]:
        return [task for task in self.tasks() if not task.done()]

    def readers(self) -> list[tuple[Caller, Reader]]:
        callers = [caller for task, caller in self.callers.items() if not task.done()]
        return [(caller, caller.reader) for caller in callers if caller.reader]

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def claim(self, holds: bool, fault: str) -> None:
        if not holds:
            self.faults.append(f"at {self.loop.time():g}: {fault}")

    def record_unhandled(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.claim(False, f"unhandled: {context}")


def order(state: State) -> int:
    return [State.PENDING, State.PROCESSING].index(state) if not state.is_done else 2


PollerMachine.TestCase.settings = settings(
    max_examples=examples(25),
    stateful_step_count=30,
    print_blob=True,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
TestPoller = PollerMachine.TestCase


if __name__ == "__main__":
    run_state_machine_as_test(
        PollerMachine,
        settings=settings(
            max_examples=int(sys.argv[1]), stateful_step_count=40, deadline=None, print_blob=True
        ),
    )
