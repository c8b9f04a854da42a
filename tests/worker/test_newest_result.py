"""The newest result counts, on a real server: for what is stored, and for what a wait returns."""

import asyncio
from typing import Any

import pytest

from luma_async.testing import FakeRelay, Reply
from luma_async.worker import EndState, Queue, leases
from luma_async.worker.storage.result_store import submission_of
from tests.worker.held_ids import HeldIds, reasons, recreate_from_one
from tests.worker.worker_processes import WorkerPool, until


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


async def test_a_response_to_a_request_from_before_a_submission_is_not_its_result(
    queue: Queue, workers: WorkerPool, relay: FakeRelay
) -> None:
    """As if the worker was frozen, and another one finished the submission before meanwhile."""
    relay.add("a", ends="failed", failure_reason="second")
    first = b'{"id": "a", "state": "failed", "failure_reason": "first"}'
    relay.reply(Reply(body=first, delay=1.0))
    worker = await workers.start()
    await queue.submit("a")
    await until(lambda: relay.requests == 1)
    await queue.js.purge_stream(queue.names.wait)
    await queue.submit("a")
    await until(lambda: worker.work.taken == 2)
    assert (await queue.wait_submitted("a", timeout=20)).failure_reason == "second"


async def test_an_id_that_was_returned_to_the_queue_and_comes_again_is_polled_again(
    queue: Queue,
) -> None:
    """A request for it may be in flight; it is once more only."""
    await queue.submit(["a", "b"])
    held = HeldIds(queue)
    await held.take(2)
    assert not held.leases.needs_another_poll("a")
    await held.leases.release(["a"])
    await held.take()
    assert held.leases.needs_another_poll("a")
    assert not held.leases.needs_another_poll("a")
    assert not held.leases.needs_another_poll("b")


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
