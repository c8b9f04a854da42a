"""Streams that are deleted, created again or limited by an operator; the clock of the server."""

import asyncio
import logging
from typing import Any

import pytest
from nats.js import api

from luma_async import QueueError, State
from luma_async.testing import FakeRelay
from luma_async.worker import EndState, Queue, leases
from luma_async.worker.storage.results import encode_result, subject_token
from tests.worker.held_ids import HeldIds, reasons, recreate_from_one
from tests.worker.worker_processes import WorkerPool, until


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
