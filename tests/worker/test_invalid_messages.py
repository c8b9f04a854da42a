"""Messages of other clients on a shared server: checked, bounded, dropped with one warning."""

import asyncio
import logging
from contextlib import aclosing

import pytest

from luma_async.testing import FakeRelay
from luma_async.worker import EndState, Queue
from luma_async.worker.balance import MAX_PEERS, MIN_LEASE, Load, Peers
from tests.worker.worker_processes import WorkerPool, until

NESTED = b'{"id": "a", "state": ' + b"[" * 100_000
ANNOUNCEMENTS = [
    b"",
    b"\xff",
    b"[]",
    b'{"worker": "w", "held": 1' + b"0" * 400 + b', "capacity": 1, "lease": 60.0}',
    b'{"worker": "w", "held": 1, "capacity": 1' + b"0" * 400 + b', "lease": 60.0}',
    b'{"worker": "w", "held": -1, "capacity": 1, "lease": 60.0}',
    b'{"worker": "w", "held": 1, "capacity": 1, "lease": 1e999}',
    b'{"worker": "w", "held": 1, "capacity": 1, "lease": NaN}',
    b'{"worker": "' + b"w" * 100 + b'", "held": 1, "capacity": 1, "lease": 60.0}',
    b'{"worker": ' + b"[" * 100_000,
]


def warnings_about(caplog: pytest.LogCaptureFixture, what: str) -> list[str]:
    return [r.getMessage() for r in caplog.records if what in r.getMessage()]


async def test_invalid_announcements_are_dropped_with_one_warning(
    queue: Queue, workers: WorkerPool, relay: FakeRelay, caplog: pytest.LogCaptureFixture
) -> None:
    worker = await workers.start()
    await until(lambda: worker.is_well)
    for announcement in ANNOUNCEMENTS:
        await queue.client.publish(queue.names.peers, announcement)
    await until(lambda: bool(warnings_about(caplog, "announcement of a worker")))
    await queue.submit(task_id := relay.add(duration=0.0))
    assert (await queue.wait_submitted(task_id, timeout=20)).url
    assert worker.work.peers == 0
    assert len(warnings_about(caplog, "announcement of a worker")) == 1


async def test_an_announced_lease_is_not_shorter_than_a_worker_may_set(queue: Queue) -> None:
    peers = Peers(queue)
    await peers.listen()
    await queue.client.publish(
        queue.names.peers, b'{"worker": "w", "held": 1, "capacity": 1, "lease": 1e-9}'
    )
    await until(lambda: peers.loads == [Load(1, 1)])
    assert peers.shortest_lease(60.0) == MIN_LEASE


async def test_announcements_of_endless_workers_are_not_all_kept(queue: Queue) -> None:
    peers = Peers(queue)
    await peers.listen()
    for number in range(MAX_PEERS + 50):
        text = f'{{"worker": "{number}", "held": 1, "capacity": 1, "lease": 60.0}}'
        await queue.client.publish(queue.names.peers, text.encode())
    await until(lambda: len(peers.loads) == MAX_PEERS)
    await asyncio.sleep(0.1)
    assert len(peers.loads) == MAX_PEERS


async def test_invalid_results_are_skipped_with_one_warning(
    queue: Queue, workers: WorkerPool, relay: FakeRelay, caplog: pytest.LogCaptureFixture
) -> None:
    """Nested JSON, and a result on the subject of another id."""
    other_id = b'{"id": "b", "state": "missing", "url": null, "submission": 1, "generation": null}'
    for number, payload in enumerate([NESTED, other_id, b"{}"]):
        await queue.js.publish(queue.names.done_subject(f"x{number}"), payload)
    await workers.start()
    await queue.submit(task_id := relay.add(duration=0.0))
    async with asyncio.timeout(20), aclosing(queue.results()) as results:
        assert (await anext(results)).id == task_id
    assert len(warnings_about(caplog, "is not a result")) == 1


async def test_an_invalid_result_ends_no_wait_and_is_replaced(
    queue: Queue, workers: WorkerPool, relay: FakeRelay
) -> None:
    task_id = relay.add("a", duration=0.0)
    await queue.js.publish(queue.names.done_subject("a"), NESTED)
    await queue.submit(task_id)
    waiting = asyncio.create_task(queue.wait_submitted(task_id, timeout=20))
    await asyncio.sleep(0.1)
    await workers.start()
    assert (await waiting).url


@pytest.mark.parametrize("status", ["100", "404", "503"])
async def test_a_submission_with_a_status_header_is_an_id(
    queue: Queue, workers: WorkerPool, relay: FakeRelay, status: str
) -> None:
    task_id = relay.add("a", duration=0.0)
    await queue.js.publish(queue.names.wait_subject("a"), b"", headers={"Status": status})
    worker = await workers.start()
    assert (await queue.wait_submitted(task_id, timeout=20)).url
    await until(lambda: worker.work.held == 0)


async def test_invalid_ids_leave_the_queue_with_one_warning(
    queue: Queue, workers: WorkerPool, relay: FakeRelay, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "luma_async")
    for number, payload in enumerate([b"\xff", b"x" * 5000, b"\xfe"]):
        await queue.js.publish(queue.names.wait_subject(f"x{number}"), payload)
    worker = await workers.start()
    await queue.submit(task_id := relay.add(duration=0.0))
    await queue.wait_submitted(task_id, timeout=20)
    await until(lambda: worker.work.ends[EndState.COMPLETED] == 1)
    await asyncio.sleep(0.1)
    assert (await queue.js.stream_info(queue.names.wait)).state.messages == 0
    assert len(warnings_about(caplog, "is not an id")) == 1
