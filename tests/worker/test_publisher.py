"""Storing results and acknowledging ids: in virtual time, against streams in memory."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from nats.aio.msg import Msg

from luma_async import Generation, State
from luma_async.errors import QueueError
from luma_async.worker import EndState
from luma_async.worker.leases import Lease, Leases
from luma_async.worker.publisher import ResultPublisher
from luma_async.worker.storage.results import StoredResult, decode_result
from luma_async.worker.storage.submissions import StoredKey, Submission
from tests.worker.local_queue import LocalClient, LocalQueue, delivery

pytestmark = pytest.mark.virtual_time

TASK = Generation(id="a", state=State.FAILED, failure_reason="no faces")
LAST = 10**15  # microseconds


class Client(LocalClient):
    max_payload = 4_096

    def __init__(self, events: list[str]) -> None:
        super().__init__()
        self._events = events

    async def request(self, subject: str, payload: bytes, timeout: float) -> None:
        assert payload == Msg.Ack.Ack
        self._events.append("ack")
        await super().request(subject, payload, timeout)


class Streams(LocalQueue):
    """A queue, and its streams with one result for each id; the next requests may fail."""

    def __init__(self) -> None:
        self.events: list[str] = []
        super().__init__(Client(self.events))
        self.payloads: dict[str, bytes] = {}
        self.keys: dict[str, StoredKey] = {}
        self.faults: list[Exception] = []
        self.ensure_fault: Exception | None = None
        self.attempted_at: list[float] = []

    def id_streams(self, task_id: str) -> Any:
        return OneId(self, task_id)

    async def ensure(self) -> Any:
        self.events.append("ensure")
        if self.ensure_fault is not None:
            raise self.ensure_fault

    def store(self, task_id: str, payload: bytes) -> None:
        submission = decode_result(payload, f"luma.done.{task_id}").key
        self.payloads[task_id] = payload
        self.keys[task_id] = StoredKey(len(self.payloads), LAST, submission)

    def result(self, task_id: str) -> StoredResult:
        return decode_result(self.payloads[task_id], f"luma.done.{task_id}")


class OneId:
    """The requests about one id."""

    def __init__(self, streams: Streams, task_id: str) -> None:
        self._streams = streams
        self._id = task_id

    async def publish(self, payload: bytes, expected: int) -> bool:
        self._streams.attempted_at.append(asyncio.get_running_loop().time())
        if self._streams.faults:
            raise self._streams.faults.pop(0)
        stored = self._streams.keys.get(self._id)
        if expected != (stored.sequence if stored else 0):
            return False
        self._streams.events.append("store")
        self._streams.store(self._id, payload)
        return True

    async def read_result(self) -> tuple[StoredKey, bytes] | None:
        self._streams.events.append("read")
        stored = self._streams.keys.get(self._id)
        return (stored, self._streams.payloads[self._id]) if stored else None

    async def read_waiting(self) -> Submission | None:
        return self._streams.waiting


class Publishing:
    """A publisher, the leases of its ids, and the results that were reported."""

    def __init__(self) -> None:
        self.queue = Streams()
        self.leases = Leases(self.queue, 86_400.0)
        self.publisher = ResultPublisher(self.queue, self.leases, self.report)
        self.reported: list[tuple[EndState, float | None]] = []

    def report(self, state: EndState, lag: float | None) -> None:
        self.queue.events.append("report")
        self.reported.append((state, lag))

    async def lease(self, task_id: str, sequence: int = 1) -> Lease:
        await self.leases.accept([delivery(task_id, sequence)])
        lease = self.leases.get(task_id)
        assert lease is not None
        return lease

    def add(self, task_id: str, lag: float | None = 2.5) -> None:
        self.publisher.add(task_id, EndState.MISSING, None, lag)


@pytest.fixture
def publishing() -> Publishing:
    return Publishing()


@asynccontextmanager
async def running(publishing: Publishing) -> AsyncGenerator[None]:
    task = asyncio.create_task(publishing.publisher.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


async def test_a_result_is_stored_then_its_id_acknowledged_then_it_is_reported(
    publishing: Publishing,
) -> None:
    lease, publisher = await publishing.lease("a"), publishing.publisher
    publisher.add("a", EndState.FAILED, TASK, 2.5)
    assert lease.has_ended
    assert (publisher.unstored, publisher.is_unavailable) == (1, False)
    async with running(publishing):
        await asyncio.sleep(1.0)
    stored = publishing.queue.result("a")
    assert (stored.state, stored.generation, stored.key) == (
        EndState.FAILED,
        TASK,
        lease.submission,
    )
    assert publishing.queue.events == ["store", "ack", "report"]
    assert publishing.queue.local.replies == [(lease.reply, Msg.Ack.Ack)]
    assert publishing.reported == [(EndState.FAILED, 2.5)]
    assert dict(publisher.stored) == {EndState.FAILED: 1}
    assert (publisher.unstored, len(publishing.leases)) == (0, 0)


async def test_a_result_of_an_id_that_was_returned_to_the_queue_is_dropped(
    publishing: Publishing,
) -> None:
    await publishing.lease("a")
    await publishing.lease("b")
    await publishing.leases.release(["a"])
    publishing.add("a")
    publishing.add("b")
    assert publishing.publisher.unstored == 1
    await publishing.leases.release(["b"])
    publishing.queue.local.replies.clear()
    async with running(publishing):
        await asyncio.sleep(1.0)
    assert publishing.publisher.unstored == 0
    assert publishing.queue.events == []


async def test_a_result_of_an_earlier_submission_does_not_end_the_newer_one(
    publishing: Publishing,
) -> None:
    await publishing.lease("a", 1)
    publishing.add("a")
    newer = await publishing.lease("a", 7)
    async with running(publishing):
        await asyncio.sleep(1.0)
        assert publishing.queue.events == []
        assert publishing.leases.is_current(newer)
        publishing.add("a")
        await asyncio.sleep(1.0)
    assert publishing.queue.result("a").key == newer.submission


async def test_a_result_is_kept_until_the_server_stores_it(
    publishing: Publishing, caplog: pytest.LogCaptureFixture
) -> None:
    """The delay between two attempts is doubled, up to five seconds."""
    caplog.set_level(logging.INFO, "luma_async")
    queue, publisher = publishing.queue, publishing.publisher
    await publishing.lease("a")
    queue.faults = [TimeoutError("no answer"), *[OSError("closed")] * 9]
    publishing.add("a")
    async with running(publishing):
        await asyncio.sleep(9.0)
        assert publisher.is_unavailable
        assert set(queue.events) == {"ensure"}
        queue.ensure_fault = QueueError("the streams cannot be created; see the log")
        await asyncio.sleep(9.0)
        assert queue.events == ["ensure"] * 10 + ["store", "ack", "report"]
        assert (publisher.unstored, publisher.is_unavailable) == (0, False)
    delays = [0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.0, 5.0]
    assert queue.attempted_at == pytest.approx([sum(delays[:count]) for count in range(11)])
    assert [record.getMessage() for record in caplog.records] == [
        "results cannot be stored (no answer): kept in memory; retrying",
        "results are stored again",
    ]


async def test_a_result_that_another_worker_stored_is_acknowledged_and_not_counted(
    publishing: Publishing,
) -> None:
    await publishing.lease("a")
    publishing.add("a")
    async with running(publishing):
        await asyncio.sleep(1.0)
        again = await publishing.lease("a")
        publishing.add("a")
        await asyncio.sleep(1.0)
    events = ["store", "ack", "report", "read", "ack"]
    assert publishing.queue.events == events
    assert publishing.queue.local.replies[-1] == (again.reply, Msg.Ack.Ack)
    assert (publishing.publisher.stored.total(), publishing.publisher.unstored) == (1, 0)
    assert len(publishing.leases) == 0


async def test_after_a_reconnect_a_worker_reads_what_is_stored_before_it_stores(
    publishing: Publishing,
) -> None:
    lease = await publishing.lease("a")
    publishing.queue.number, publishing.queue.waiting = 1, lease.submission
    publishing.add("a")
    async with running(publishing):
        await asyncio.sleep(1.0)
    assert publishing.queue.events == ["read", "store", "ack", "report"]


async def test_after_a_reconnect_a_result_is_not_stored_for_a_newer_submission(
    publishing: Publishing,
) -> None:
    """Nor is the newer one acknowledged."""
    lease = await publishing.lease("a")
    publishing.queue.number = 1
    publishing.queue.waiting = Submission(7, lease.submission.time + 1)
    publishing.add("a")
    async with running(publishing):
        await asyncio.sleep(1.0)
    assert publishing.queue.events == ["read"]
    assert (publishing.publisher.stored.total(), publishing.publisher.unstored) == (0, 0)
    assert len(publishing.leases) == 0


async def test_an_error_of_on_end_is_logged_and_the_next_results_are_stored(
    publishing: Publishing, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(state: EndState, lag: float | None) -> None:
        raise RuntimeError("a bug of the caller")

    publishing.publisher = ResultPublisher(publishing.queue, publishing.leases, fail)
    for number, task_id in enumerate("ab", 1):
        await publishing.lease(task_id, number)
        publishing.add(task_id)
    async with running(publishing):
        await asyncio.sleep(1.0)
    assert publishing.publisher.stored == {EndState.MISSING: 2}
    assert caplog.text.count("on_end raised an error; the result is stored") == 2
    assert "a bug of the caller" in caplog.text


async def test_without_on_end_results_are_counted(
    publishing: Publishing, caplog: pytest.LogCaptureFixture
) -> None:
    publishing.publisher = ResultPublisher(publishing.queue, publishing.leases, None)
    await publishing.lease("a")
    publishing.publisher.add("a", EndState.GAVE_UP, None)
    async with running(publishing):
        await asyncio.sleep(1.0)
    assert publishing.publisher.stored == {EndState.GAVE_UP: 1}
    assert caplog.text == ""


@pytest.mark.parametrize(("surplus", "is_complete"), [(0, True), (1, False)])
async def test_a_task_that_is_too_large_for_a_message_is_stored_in_part(
    publishing: Publishing, surplus: int, is_complete: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """1 KiB of a message is left for its headers."""

    async def stored(task_id: str, letters: int) -> StoredResult:
        await publishing.lease(task_id)
        task = Generation(id=task_id, state=State.FAILED, original="x" * letters)
        publishing.publisher.add(task_id, EndState.FAILED, task)
        await asyncio.sleep(1.0)
        return publishing.queue.result(task_id)

    async with running(publishing):
        await stored("a", 1)
        room = 4_096 - 1_024 - len(publishing.queue.payloads["a"])
        result = await stored("b", 1 + room + surplus)
    assert result.generation is not None
    assert (len(result.generation.original) > room) is is_complete
    warning = "the task 'b' is too large: its result is stored in part"
    assert [record.getMessage() for record in caplog.records] == [warning][is_complete:]
