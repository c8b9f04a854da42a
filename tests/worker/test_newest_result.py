"""The newest result counts, on a real server: for what is stored, and for what a wait returns."""

import asyncio
import logging
from contextlib import aclosing
from typing import Any

import pytest
from nats.js import api

from luma_async import QueueError, State
from luma_async.structs import Generation
from luma_async.testing import FakeRelay
from luma_async.worker import EndState, Queue, leases
from luma_async.worker.leases import Leases
from luma_async.worker.publisher import ResultPublisher
from luma_async.worker.storage.result_store import submission_of
from luma_async.worker.storage.results import encode_result, subject_token
from tests.worker.worker_processes import WorkerPool, until


class HeldIds:
    """The leases of a worker that is cut off: it stores its results when the test lets it."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.leases = Leases(queue, 60.0)
        self.publisher = ResultPublisher(queue, self.leases, None)

    async def take(self, count: int = 1) -> list[str]:
        """Lease ids, and keep them without extending the leases."""
        consumer = await self.queue.pull()
        ids: list[str] = []
        async with asyncio.timeout(20):
            while len(ids) < count:
                ids += await self.leases.accept(await consumer.fetch(count))
        await consumer.close()
        return ids

    async def store(self, task_id: str, reason: str) -> None:
        """Store a result, as after the connection is restored."""
        task = Generation(id=task_id, state=State.FAILED, failure_reason=reason)
        self.publisher.add(task_id, EndState.FAILED, task)
        running = asyncio.create_task(self.publisher.run())
        await until(lambda: not self.publisher.unstored)
        running.cancel()
        await asyncio.wait([running])


async def reasons(queue: Queue, *ids: str) -> list[str | None]:
    """Return the failure reasons of the stored results."""
    async with aclosing(queue.results(ids)) as ends:
        return [end.generation.failure_reason if end.generation else None async for end in ends]


async def test_a_result_of_an_earlier_submission_does_not_replace_a_newer_one(
    queue: Queue,
) -> None:
    await queue.enlist(0.5)
    await queue.submit("a")
    old, new = HeldIds(queue), HeldIds(queue)
    await old.take()
    await new.take()  # after the lease
    await new.store("a", "first")
    await queue.submit("a")
    await new.take()
    await new.store("a", "second")
    await old.store("a", "late")
    assert await reasons(queue, "a") == ["second"]
    assert old.publisher.stored[EndState.FAILED] == 0
    assert len(old.leases) == 0


async def test_a_result_of_an_earlier_submission_does_not_end_the_wait_for_a_newer_one(
    queue: Queue,
) -> None:
    await queue.enlist(0.5)
    await queue.submit("a")
    old, new = HeldIds(queue), HeldIds(queue)
    await old.take()
    await new.take()
    await new.store("a", "first")
    await queue.submit("a")
    waiting = asyncio.create_task(queue.wait_submitted("a", timeout=20))
    await asyncio.sleep(0.1)
    await old.store("a", "late")
    await asyncio.sleep(0.2)
    assert not waiting.done()
    await new.take()
    await new.store("a", "second")
    assert (await waiting).failure_reason == "second"


async def test_a_result_of_version_0_1_0_for_an_earlier_submission_does_not_end_a_wait(
    queue: Queue,
) -> None:
    """Its worker stores without comparing, and without the time of the submission."""
    await queue.submit("a")
    held = HeldIds(queue)
    await held.take()
    await held.store("a", "first")
    (first,) = [end async for end in queue.results("a")]
    await queue.submit("a")
    waiting = asyncio.create_task(queue.wait_submitted("a", timeout=20))
    await asyncio.sleep(0.1)
    payload = f'{{"id": "a", "state": "failed", "url": null, "submission": {first.sequence // 2}, '
    payload += '"generation": null}'
    await queue.js.publish(queue.names.done_subject("a"), payload.encode())
    await asyncio.sleep(0.2)
    assert not waiting.done()
    await held.take()
    await held.store("a", "second")
    assert (await waiting).failure_reason == "second"


async def recreate_from_one(queue: Queue, name: str) -> None:
    """Create a stream again, as an old server or an operator does: the numbers begin at 1."""
    config: Any = (await queue.js.stream_info(name)).config
    await queue.js.delete_stream(name)
    await queue.js.add_stream(config.evolve(first_seq=None))  # pyright: ignore[reportUnknownMemberType]


async def test_a_wait_is_not_ended_by_a_result_from_before_the_wait_stream_was_created_again(
    queue: Queue,
) -> None:
    await recreate_from_one(queue, queue.names.wait)
    held = HeldIds(queue)
    for reason in ("first", "second"):
        await queue.submit("a")
        waiting = asyncio.create_task(queue.wait_submitted("a", timeout=20))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await held.take()
        await held.store("a", reason)
        assert (await waiting).failure_reason == reason
        await recreate_from_one(queue, queue.names.wait)
        await queue.ensure()


async def test_an_ack_from_before_the_wait_stream_was_created_again_deletes_no_other_id(
    queue: Queue,
) -> None:
    await recreate_from_one(queue, queue.names.wait)
    await queue.ensure()
    await queue.submit("a")
    held = HeldIds(queue)
    await held.take()
    await recreate_from_one(queue, queue.names.wait)
    await queue.submit("b")
    other = HeldIds(queue)
    await other.take()
    await queue.ensure()
    await held.store("a", "first")
    assert (await queue.js.stream_info(queue.names.wait)).state.messages == 1
    assert await reasons(queue, "a") == ["first"]


async def test_a_result_that_is_known_is_not_stored_for_a_later_submission(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker had it when the server took the id for answered, and delivered it again."""
    monkeypatch.setattr(leases, "ACK_RETRY_DELAY", 0.0)
    await queue.submit("a")
    held = HeldIds(queue)
    await held.take()
    held.publisher.add("a", EndState.MISSING, None)
    await recreate_from_one(queue, queue.names.wait)
    await queue.submit("a")
    await held.take()
    await held.store("a", "second")
    assert await reasons(queue, "a") == ["second"]


async def test_the_time_of_a_submission_is_the_same_in_the_message_and_in_the_stream(
    queue: Queue,
) -> None:
    await queue.submit(ids := [f"id-{n}" for n in range(50)])
    consumer = await queue.pull()
    messages: list[Any] = []
    while len(messages) < len(ids):
        messages += await consumer.fetch(100)
    for message in messages:
        found = await queue.id_streams(message.data.decode()).read_waiting()
        assert found == submission_of(message)
    await consumer.close()


async def test_a_wait_for_a_submission_that_the_server_lost_is_not_ended_by_the_result_before(
    queue: Queue,
) -> None:
    """As after a restart without the newest part of the data; the id is then submitted again."""
    held = HeldIds(queue)
    await queue.submit("a")
    await held.take()
    await held.store("a", "first")
    await queue.submit("a")
    waiting = asyncio.create_task(queue.wait_submitted("a", timeout=20))
    await asyncio.sleep(0.1)
    await queue.js.purge_stream(queue.names.wait)
    await recreate_with_its_results(queue)
    await asyncio.sleep(1.5)
    assert not waiting.done()
    await queue.submit("a")
    await held.take()
    await held.store("a", "second")
    assert (await waiting).failure_reason == "second"


async def recreate_with_its_results(queue: Queue) -> None:
    """Create the done stream again with the same messages: all readers start again."""
    stored = await queue.id_streams("a").read_result()
    assert stored is not None
    await recreate_from_one(queue, queue.names.done)
    await queue.js.publish(queue.names.done_subject("a"), stored[1])


async def test_a_worker_that_was_cut_off_stores_nothing_while_a_newer_submission_waits(
    queue: Queue,
) -> None:
    """The newer result before it was deleted, by an operator or by its age."""
    await queue.enlist(0.5)
    await queue.submit("a")
    old, new = HeldIds(queue), HeldIds(queue)
    await old.take()
    await new.take()  # after the lease
    await new.store("a", "first")
    await queue.js.purge_stream(queue.names.done)
    await queue.submit("a")
    old.leases.period = 0.5
    await old.store("a", "late")
    assert (await queue.js.stream_info(queue.names.done)).state.messages == 0


async def test_a_wait_hears_a_result_after_the_done_stream_was_deleted(
    queue: Queue, workers: WorkerPool, relay: FakeRelay
) -> None:
    worker = await workers.start()
    before = [relay.add(duration=0.0) for _ in range(3)]
    await queue.submit(before)
    await queue.wait_submitted(before, timeout=20)
    await queue.submit(task_id := relay.add(duration=1.0))
    waiting = asyncio.create_task(queue.wait_submitted(task_id, timeout=20))
    await worker.holds(1)
    await recreate_from_one(queue, queue.names.done)
    assert (await waiting).state is State.COMPLETED


async def test_a_reader_hears_results_with_numbers_that_were_used_before(
    queue: Queue,
) -> None:
    """As after a restart of the server without the newest part of its data."""
    await recreate_from_one(queue, queue.names.done)
    held = HeldIds(queue)

    async def store(*ids: str) -> None:
        await queue.submit(ids)
        await held.take(len(ids))
        for task_id in ids:
            await held.store(task_id, "")

    await store("a", "b", "c")
    results = queue.results()
    assert [(await anext(results)).id for _ in range(3)] == ["a", "b", "c"]
    reading = asyncio.ensure_future(anext(results))
    await asyncio.sleep(0)
    config: Any = (await queue.js.stream_info(queue.names.done)).config
    await queue.js.delete_stream(queue.names.done)
    await queue.js.add_stream(config.evolve(first_seq=None))  # pyright: ignore[reportUnknownMemberType]
    await store("d", "e", "f", "g")
    async with asyncio.timeout(20):
        heard = [(await reading).id] + [(await anext(results)).id for _ in range(3)]
    assert heard == ["d", "e", "f", "g"]
    await results.aclose()


async def test_a_position_beyond_the_newest_result_reads_all_results_with_a_warning(
    queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    await queue.submit("a")
    held = HeldIds(queue)
    await held.take()
    await held.store("a", "")
    results = queue.results(since=2**62)
    async with asyncio.timeout(20):
        assert (await anext(results)).id == "a"
    assert "the stream was created again" in caplog.text
    await results.aclose()


async def test_a_wait_for_a_result_that_an_operators_limit_deleted_raises_an_error(
    queue: Queue,
) -> None:
    info = await queue.js.stream_info(queue.names.done)
    await queue.js.update_stream(info.config, max_msgs=1)  # pyright: ignore[reportUnknownMemberType]
    await queue.submit(["a", "b"])
    held = HeldIds(queue)
    for task_id in await held.take(2):
        await held.store(task_id, task_id)
    with pytest.raises(QueueError, match="max_msgs=1.*submit them again") as caught:
        await queue.wait_submitted(["a", "b"], timeout=20)
    assert caught.value.pending == ("a",)
    assert (await queue.wait_submitted("b", timeout=20)).failure_reason == "b"


async def test_a_worker_warns_about_an_operators_limit_once(
    queue: Queue, workers: WorkerPool, caplog: pytest.LogCaptureFixture
) -> None:
    info = await queue.js.stream_info(queue.names.done)
    await queue.js.update_stream(info.config, max_bytes=10_000)  # pyright: ignore[reportUnknownMemberType]
    caplog.set_level(logging.WARNING, "luma_async")
    worker = await workers.start()
    await until(lambda: worker.is_well)
    await until(lambda: "max_bytes=10000" in caplog.text)
    assert caplog.text.count("max_bytes=10000") == 1


async def test_an_age_is_measured_by_the_clock_of_the_server(
    queue: Queue, workers: WorkerPool, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of this machine is 25 hours ahead."""
    import time

    real = time.time
    monkeypatch.setattr(leases, "MIN_POLL_FOR", 0.2)
    monkeypatch.setattr(time, "time", lambda: real() + 90_000.0)
    worker = await workers.start()
    await queue.submit(task_id := relay.add(duration=1.5))
    await worker.holds(1)
    assert worker.work.oldest < 60
    assert (await queue.wait_submitted(task_id, timeout=20)).state is State.COMPLETED


async def test_a_stored_result_names_its_submission(queue: Queue) -> None:
    await queue.submit("a")
    held = HeldIds(queue)
    await held.take()
    submission = await queue.id_streams("a").read_waiting()
    assert submission is not None
    await held.store("a", "")
    stored = await queue.id_streams("a").read_result()
    assert stored is not None
    assert stored[0].submission == submission
    header = api.Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value
    text, _ = encode_result("a", EndState.MISSING, None, submission, max_bytes=1000)
    subject = queue.names.done_subject(subject_token("a"))
    with pytest.raises(Exception, match="wrong last sequence"):
        await queue.js.publish(subject, text, headers={header: "0"})
