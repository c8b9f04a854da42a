"""Storing results by compare-and-set: a model.

It runs the real loop, `store_result`, of three workers against a simulated server, in any order of
requests. Workers are killed at any await; requests and answers are lost.
"""

from collections.abc import Coroutine, Generator
from types import coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from luma_async.worker.storage.result_store import store_result
from luma_async.worker.storage.submissions import (
    StoredKey,
    Submission,
    is_answer,
)
from tests.properties import examples


@coroutine
def turn() -> Generator[None]:
    """Let others run: each request reaches the server in one turn, its answer in another."""
    yield


class LostAnswerError(Exception):
    """The connection broke; the request may have reached the server or not."""


class Server:
    """Both streams, for one id. `history` has the submissions of all stored results."""

    def __init__(self) -> None:
        self.clock = 1_000
        self.sequence = 0
        self.done_sequence = 0
        self.waiting: Submission | None = None
        self.result: StoredKey | None = None
        self.submitted: list[Submission] = []
        self.history: list[Submission] = []

    def submit(self, clock_step: int) -> bool:
        """Store the id, unless it waits already."""
        if self.waiting is not None:
            return False
        self.clock += clock_step
        self.sequence += 1
        self.waiting = Submission(self.sequence, self.clock)
        self.submitted.append(self.waiting)
        return True

    def recreate_wait_stream(self) -> None:
        """Delete the wait stream with its message; the numbers begin again."""
        self.waiting, self.sequence = None, 0

    def publish(self, submission: Submission, expected: int) -> bool:
        if expected != (self.result.sequence if self.result else 0):
            return False
        self.done_sequence += 1
        self.result = StoredKey(self.done_sequence, self.clock, submission)
        self.history.append(submission)
        return True

    def ack(self, submission: Submission) -> None:
        """Delete the message with this number, as a server does; the caller compares the time."""
        if self.waiting == submission:
            self.waiting = None


class Store:
    """The requests of one worker about the id; each may fail before or after the server acts."""

    def __init__(self, server: Server, submission: Submission, faults: "Faults") -> None:
        self._server = server
        self._submission = submission
        self._faults = faults

    async def publish(self, expected: int, /) -> bool:
        await self._request()
        is_stored = self._server.publish(self._submission, expected)
        await self._answer()
        return is_stored

    async def read_stored(self) -> StoredKey | None:
        await self._request()
        result = self._server.result
        await self._answer()
        return result

    async def read_waiting(self) -> Submission | None:
        await self._request()
        waiting = self._server.waiting
        await self._answer()
        return waiting

    async def acknowledge(self) -> None:
        await self._request()
        self._server.ack(self._submission)
        await self._answer()

    async def _request(self) -> None:
        await turn()
        if self._faults.next():
            raise LostAnswerError

    async def _answer(self) -> None:
        await turn()
        if self._faults.next():
            raise LostAnswerError


class Faults:
    """Which of the next requests and answers are lost."""

    def __init__(self) -> None:
        self.is_pending = False

    def next(self) -> bool:
        is_pending, self.is_pending = self.is_pending, False
        return is_pending


async def work(store: Store, submission: Submission) -> None:
    """Store a result and acknowledge its id, as a worker does."""
    for request in (lambda: store_result(store, submission), store.acknowledge):
        while True:
            try:
                await request()
                break
            except LostAnswerError:
                await turn()


class Wait:
    """A wait for the present submission: a lookup, then what a reader would pass to it."""

    def __init__(self, server: Server) -> None:
        self.newest = server.submitted[-1] if server.submitted else None
        self.waiting = server.waiting

    def answer(self, server: Server) -> Submission | None:
        """Return the submission of the result that the wait accepts now."""
        if server.result is not None and is_answer(self.waiting, server.result):
            return server.result.submission
        return None


class Step(Struct, frozen=True):
    kind: str
    worker: int = 0
    amount: int = 1


workers = st.integers(0, 2)
steps = st.one_of(
    st.builds(Step, st.just("run"), workers, st.integers(1, 8)),
    st.builds(Step, st.sampled_from(["deliver", "serve", "kill", "lose"]), workers),
    st.builds(Step, st.sampled_from(["submit", "submit and serve"]), workers, st.integers(1, 50)),
    st.builds(Step, st.just("wait")),
)


class Model:
    """Three workers, one id, and the order in which they are submitted."""

    def __init__(self) -> None:
        self.server = Server()
        self.faults = [Faults(), Faults(), Faults()]
        self.running: list[Coroutine[Any, Any, None] | None] = [None, None, None]
        self.waits: list[Wait] = []

    def step(self, step: Step) -> None:
        match step.kind:
            case "submit":
                self.server.submit(step.amount)
            case "deliver":
                self.deliver(step.worker)
            case "serve":
                self.serve(step.worker)
            case "submit and serve":
                self.server.submit(step.amount)
                self.serve(step.worker)
            case "kill":
                self.kill(step.worker)
            case "lose":
                self.faults[step.worker].is_pending = True
            case "wait":
                self.waits.append(Wait(self.server))
            case _:
                for _ in range(step.amount):
                    self.run(step.worker)
        self.check()

    def deliver(self, worker: int) -> None:
        """Deliver the id, for the first time or again; an idle worker has its result at once."""
        submission = self.server.waiting
        if submission is not None and self.running[worker] is None:
            store = Store(self.server, submission, self.faults[worker])
            self.running[worker] = work(store, submission)

    def serve(self, worker: int) -> None:
        """Let a worker finish what it does, then take the id and store its result."""
        for _ in range(60):
            self.deliver(worker)
            self.run(worker)

    def kill(self, worker: int) -> None:
        running, self.running[worker] = self.running[worker], None
        if running is not None:
            running.close()

    def run(self, worker: int) -> None:
        running = self.running[worker]
        if running is not None:
            try:
                running.send(None)
            except StopIteration:
                self.running[worker] = None

    def check(self) -> None:
        history = [self.server.submitted.index(one) for one in self.server.history]
        assert history == sorted(set(history)), "an old result replaced a newer one, or came twice"
        for wait in self.waits:
            answer = wait.answer(self.server)
            if answer is not None and wait.newest is not None:
                submitted = self.server.submitted
                assert submitted.index(answer) >= submitted.index(wait.newest)

    def finish(self) -> None:
        """Let workers live: each submission that waits gets its result."""
        for worker in range(3):
            self.serve(worker)
            assert self.running[worker] is None
        self.check()
        assert self.server.waiting is None
        if self.server.submitted:
            assert self.server.history[-1] == self.server.submitted[-1]

    def close(self) -> None:
        for worker in range(3):
            self.kill(worker)


@given(st.lists(steps, min_size=20, max_size=60))
@settings(max_examples=examples(200))
def test_no_order_of_requests_and_kills_lets_an_old_result_win(plan: list[Step]) -> None:
    model = Model()
    try:
        for step in plan:
            model.step(step)
        model.finish()
    finally:
        model.close()


@given(st.lists(steps, max_size=40), st.lists(steps, max_size=40))
@settings(max_examples=examples(120))
def test_after_the_wait_stream_was_created_again_the_newest_submission_gets_its_own_result(
    before: list[Step], after: list[Step]
) -> None:
    """What the stream lost gets a result if a worker holds it; no order is certain among those."""
    model = Model()
    try:
        for step in before:
            model.step(step)
        model.server.recreate_wait_stream()
        model.waits.clear()
        model.server.submit(1000)
        newest = Wait(model.server)
        for step in after:
            if not step.kind.startswith("submit"):
                model.step(step)
            answer = newest.answer(model.server)
            assert answer in (None, newest.newest)
        model.finish()
    finally:
        model.close()


@pytest.mark.parametrize("then", ["run", "kill", "lose"])
@pytest.mark.parametrize("turns", range(12))
def test_a_worker_that_is_frozen_between_two_requests_replaces_no_newer_result(
    turns: int, then: str
) -> None:
    """The other worker stores its result and that of the next submission meanwhile."""
    model = Model()
    plan = [
        Step("submit and serve", 1), Step("submit"), Step("deliver", 0), Step("run", 0, turns),
        Step("serve", 1), Step("submit and serve", 1), Step(then, 0, 20), Step("run", 0, 20),
    ]  # fmt: skip
    for step in plan:
        model.step(step)
    model.finish()
    model.close()
    assert len(model.server.history) == 3
