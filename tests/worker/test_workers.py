"""Workers on a real nats-server: each submitted id gets a result, whichever process fails."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any

import pytest

from luma_async import (
    AuthenticationError,
    GaveUp,
    GenerationsMissing,
    LumaSession,
    QueueError,
    State,
    WaitAborted,
    WaitTimeout,
)
from luma_async.testing import FakeRelay
from luma_async.worker import (
    EndState,
    Queue,
    Worker,
    balance,
    leases,
    publisher,
    results,
    submit,
    wait_submitted,
)
from luma_async.worker.server.consumer import PullConsumer
from luma_async.worker.storage.results import subject_token
from tests.worker.worker_processes import WorkerPool, until

LEASE = 2.0  # seconds; a third must be enough for a turn of the event loop on a slow machine


async def read_results(queue: Queue, count: int, since: Any = None) -> list[Any]:
    """Read so many results."""
    ends: list[Any] = []
    async with asyncio.timeout(20):
        async for end in queue.results(since=since):
            ends.append(end)
            if len(ends) == count:
                break
    return ends


async def stored_count(queue: Queue) -> int:
    """Return how many results were stored since the first one that is left."""
    state = (await queue.js.stream_info(queue.names.done)).state
    return state.last_seq - state.first_seq + 1


async def test_any_process_can_wait_for_submitted_ids_and_gets_them_in_order(
    queue: Queue, workers: WorkerPool, relay: FakeRelay, server: str, pool: str
) -> None:
    ids = [relay.add(duration=0.1 * (n % 3), ends=("completed", "failed")[n % 2]) for n in range(9)]
    assert await submit(ids, server, pool=pool) == ids
    worker = await workers.start()
    done = await queue.wait_submitted(ids, timeout=20)
    assert list(done) == ids
    assert [one.state for one in done.values()] == [State.COMPLETED, State.FAILED] * 4 + [
        State.COMPLETED
    ]
    assert (await wait_submitted(ids[0], server, pool=pool)).url
    await until(lambda: worker.work.held == 0)
    assert worker.work.ends == {
        EndState.COMPLETED: 5, EndState.FAILED: 4, EndState.MISSING: 0, EndState.GAVE_UP: 0,
    }  # fmt: skip
    ends = [end async for end in results(ids, server, pool=pool)]
    assert sorted(end.id for end in ends) == sorted(ids)
    assert (await queue.js.stream_info(queue.names.wait)).state.messages == 0


async def test_an_id_in_the_queue_is_not_added_again(queue: Queue) -> None:
    assert await queue.submit(["a", "b", "a"]) == ["a", "b"]
    assert await queue.submit(["b", "c"]) == ["c"]
    assert await queue.submit("d") == ["d"]
    assert await queue.submit([]) == []
    assert (await queue.js.stream_info(queue.names.wait)).state.messages == 4


async def test_an_id_with_a_result_may_be_submitted_again_and_gets_another_result(
    queue: Queue, workers: WorkerPool, relay: FakeRelay
) -> None:
    worker = await workers.start()
    await queue.submit(task_id := relay.add(duration=0.0))
    (first,) = await read_results(queue, 1)
    await worker.holds(0)
    assert await queue.submit(task_id) == [task_id]
    (second,) = await read_results(queue, 1, since=first.sequence)
    assert second.id == first.id
    assert second.sequence > first.sequence


async def test_stored_results_can_be_read_from_any_position(
    queue: Queue, workers: WorkerPool, relay: FakeRelay
) -> None:
    await workers.start()
    before = datetime.now(UTC)
    for _ in range(3):
        await queue.submit(task_id := relay.add(duration=0.0))
        await queue.wait_submitted(task_id, timeout=20)
    all_of_them = await read_results(queue, 3)
    assert await read_results(queue, 2, since=all_of_them[0].sequence) == all_of_them[1:]
    assert await read_results(queue, 1, since=all_of_them[2].told_at) == all_of_them[2:]
    assert await read_results(queue, 3, since=before) == all_of_them


async def test_an_id_that_the_relay_does_not_know_is_missing(
    queue: Queue, workers: WorkerPool, relay: FakeRelay
) -> None:
    await workers.start()
    good = relay.add(duration=0.0)
    await queue.submit([good, "unknown"])
    with pytest.raises(GenerationsMissing) as caught:
        await queue.wait_submitted([good, "unknown"], timeout=20)
    assert caught.value.missing == ("unknown",)
    assert list(caught.value.done) == [good]


async def test_a_wait_for_an_id_submitted_again_returns_its_new_result(
    queue: Queue, workers: WorkerPool, relay: FakeRelay
) -> None:
    await workers.start()
    await queue.submit("late")
    with pytest.raises(GenerationsMissing):
        await queue.wait_submitted("late", timeout=20)
    await wait_until_empty(queue)
    relay.add("late", duration=0.3)
    await queue.submit("late")
    assert (await queue.wait_submitted("late", timeout=20)).state is State.COMPLETED
    ends = [end async for end in queue.results("late")]
    assert [end.state for end in ends] == ["completed"]


async def test_an_id_that_is_given_up_keeps_its_last_known_task(
    queue: Queue, workers: WorkerPool, relay: FakeRelay
) -> None:
    await workers.start(give_up=0.5)
    await queue.submit(task_id := relay.add(duration=100))
    with pytest.raises(GaveUp, match="submit error.pending again") as caught:
        await queue.wait_submitted([task_id], timeout=20)
    seen = caught.value.pending[task_id]
    assert seen is not None
    assert seen.state is State.PROCESSING
    (end,) = await read_results(queue, 1)
    assert end.state == "gave_up"
    assert await queue.submit(task_id) == [task_id]


async def test_a_stopped_worker_returns_its_ids_at_once_and_another_polls_them(
    queue: Queue, workers: WorkerPool, relay: FakeRelay
) -> None:
    """A lease is a minute: ids that are delivered sooner were returned."""
    first = await workers.start()
    await queue.submit([relay.add(duration=100) for _ in range(300)])
    await first.holds(300)
    second = await workers.start()
    await first.stop()
    await second.holds(300)
    assert second.work.redelivered == 300
    assert second.luma.stats.open == 300


async def test_the_ids_of_a_dead_worker_are_redelivered_when_their_leases_end(
    queue: Queue, workers: WorkerPool, relay: FakeRelay
) -> None:
    dead = await workers.start(ack_wait=LEASE)
    await queue.submit([relay.add(duration=100) for _ in range(50)])
    await dead.holds(50)
    await dead.queue.client.close()
    second = await workers.start()
    await second.holds(50)
    assert second.work.redelivered == 50
    with pytest.raises(Exception, match="start the worker again"):
        await dead.task


async def test_an_id_held_longer_than_a_lease_is_not_redelivered(
    queue: Queue, workers: WorkerPool, relay: FakeRelay
) -> None:
    pair = [await workers.start(ack_wait=LEASE), await workers.start(ack_wait=LEASE)]
    await queue.submit(ids := [relay.add(duration=1.2 * LEASE) for _ in range(50)])
    await queue.wait_submitted(ids, timeout=20)
    await until(lambda: not any(worker.work.held for worker in pair))
    assert sum(worker.work.redelivered for worker in pair) == 0
    assert sum(worker.work.ends[EndState.COMPLETED] for worker in pair) == 50
    assert await stored_count(queue) == 50


async def test_a_result_published_twice_is_stored_once(
    queue: Queue, workers: WorkerPool, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a kill between storing the result and the ack."""
    monkeypatch.setattr(leases, "MAX_ACK_ATTEMPTS", 0)
    worker = await workers.start(ack_wait=0.5)
    await queue.submit(relay.add(duration=0.0))
    await until(lambda: worker.work.redelivered >= 2)
    assert await stored_count(queue) == 1


async def test_a_rejected_key_stops_the_worker_and_another_one_takes_its_ids(
    queue: Queue, workers: WorkerPool, relay: FakeRelay
) -> None:
    await queue.submit(ids := [relay.add(duration=0.2) for _ in range(20)])
    bad = await workers.start(key="sk-wrong")
    with pytest.raises(WaitAborted) as caught:
        await bad.task
    assert isinstance(caught.value.cause, AuthenticationError)
    assert bad.work.handed_back == 20
    await workers.start()
    assert len(await queue.wait_submitted(ids, timeout=20)) == 20


async def test_a_worker_does_not_exceed_its_capacity(
    queue: Queue, workers: WorkerPool, relay: FakeRelay
) -> None:
    await queue.submit(ids := [relay.add(duration=0.3) for _ in range(10)])
    worker = await workers.start(capacity=4)
    await worker.holds(4)
    assert worker.luma.stats.open <= 4
    assert len(await queue.wait_submitted(ids, timeout=20)) == 10
    assert worker.work.taken == 10


async def test_a_second_worker_takes_its_share_of_the_ids_of_the_first(
    queue: Queue, workers: WorkerPool, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(balance, "ANNOUNCE_EVERY", 0.1)
    first = await workers.start()
    await queue.submit([relay.add(duration=100) for _ in range(1200)])
    await first.holds(1200)
    second = await workers.start()
    await until(lambda: first.work.held + second.work.held == 1200)
    await until(lambda: 300 <= second.work.held <= 900)
    assert first.work.peers == 1
    assert first.luma.stats.open == first.work.held
    await second.stop()
    await first.holds(1200)
    await until(lambda: first.work.peers == 0)


async def test_ids_with_special_characters_are_not_changed(
    queue: Queue, workers: WorkerPool, relay: FakeRelay
) -> None:
    ids = ["a.b c", "*", ">", "é/ü", "..", ".", "~", "%2E", "x" * 900, "line\nbreak"]
    for task_id in ids:
        relay.add(task_id, duration=0.0)
    await workers.start()
    await queue.submit(ids)
    assert list(await queue.wait_submitted(ids, timeout=20)) == ids


async def test_ids_published_by_other_clients_are_accepted_and_invalid_ones_logged(
    queue: Queue, workers: WorkerPool, relay: FakeRelay, caplog: pytest.LogCaptureFixture
) -> None:
    with_payload, without = relay.add(duration=0.0), relay.add("a.b", duration=0.0)
    await queue.js.publish(queue.names.wait_subject("invalid"), b"\xff\xfe")
    await queue.js.publish(queue.names.wait_subject("anything"), with_payload.encode())
    await queue.js.publish(queue.names.wait_subject(subject_token(without)))
    await workers.start()
    assert len(await queue.wait_submitted([with_payload, without], timeout=20)) == 2
    assert [r.levelname for r in caplog.records if "is not an id" in r.message] == ["WARNING"]
    await wait_until_empty(queue)


async def wait_until_empty(queue: Queue) -> None:
    """Wait until the wait stream has no messages."""
    async with asyncio.timeout(20):
        while (await queue.js.stream_info(queue.names.wait)).state.messages:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def set_full(queue: Queue, *, is_full: bool) -> None:
    """Let the done stream reject new results, or accept them."""
    info = await queue.js.stream_info(queue.names.done)
    stored: Any = info.config
    config = stored.evolve(discard="new" if is_full else "old", max_msgs=1 if is_full else -1)
    await queue.js.update_stream(config)  # pyright: ignore[reportUnknownMemberType]


async def test_an_id_is_kept_until_its_result_is_stored_and_the_worker_is_unhealthy(
    queue: Queue, workers: WorkerPool, relay: FakeRelay
) -> None:
    """A worker that stops meanwhile returns the id: another one stores its result."""
    first = await workers.start()
    await queue.submit(before := relay.add(duration=0.0))
    await queue.wait_submitted(before, timeout=20)
    await set_full(queue, is_full=True)
    await queue.submit(task_id := relay.add(duration=0.0))
    await until(lambda: first.work.untold == 1 and not first.is_well)
    await asyncio.sleep(0.1)
    assert (await queue.js.stream_info(queue.names.wait)).state.messages == 1
    second = await workers.start()
    await first.stop()
    await until(lambda: second.work.untold == 1 and not second.is_well)
    await set_full(queue, is_full=False)
    assert (await queue.wait_submitted(task_id, timeout=20)).state is State.COMPLETED
    await until(lambda: second.is_well and second.work.held == 0)


async def test_an_id_submitted_long_ago_is_polled_before_it_is_given_up(
    queue: Queue, workers: WorkerPool, relay: FakeRelay
) -> None:
    """As after a weekend in which no worker ran."""
    slow = FakeRelay(latency=0.3)
    async with slow, LumaSession(slow.url, api_key=slow.api_key) as luma:
        await queue.submit(task_id := slow.add(duration=0.0))
        await asyncio.sleep(0.7)
        worker = Worker(luma, queue, give_up=0.6)
        running = asyncio.create_task(worker.run())
        assert (await queue.wait_submitted(task_id, timeout=20)).state is State.COMPLETED
        worker.stop()
        await running


async def test_a_stored_result_counts_before_its_id_is_acknowledged(
    queue: Queue, workers: WorkerPool, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "MAX_ACK_ATTEMPTS", 0)
    await workers.start()
    await queue.submit(task_id := relay.add(duration=0.0))
    await queue.wait_submitted(task_id, timeout=20)
    assert (await queue.js.stream_info(queue.names.wait)).state.messages == 1
    assert (await queue.wait_submitted(task_id, timeout=5)).state is State.COMPLETED


async def test_the_results_of_some_ids_can_be_read_from_any_position(
    queue: Queue, workers: WorkerPool, relay: FakeRelay
) -> None:
    await workers.start()
    await queue.submit(task_id := relay.add(duration=0.0))
    await queue.wait_submitted(task_id, timeout=20)
    (end,) = [one async for one in queue.results(task_id)]
    positions = (end.sequence - 1, end.told_at, end.told_at - timedelta(seconds=5))
    for since in positions:
        assert [one async for one in queue.results(task_id, since=since)] == [end]
    for since in (end.sequence, end.told_at + timedelta(seconds=5)):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await anext(queue.results(task_id, since=since))


@pytest.mark.parametrize("position", [1, 3])
async def test_a_message_that_a_reader_lost_is_read_again(
    queue: Queue,
    workers: WorkerPool,
    relay: FakeRelay,
    monkeypatch: pytest.MonkeyPatch,
    position: int,
) -> None:
    """The first or the last of three messages is lost. Only the sequence numbers show it."""
    monkeypatch.setattr("luma_async.worker.storage.result_reader.CHECK_AFTER_EMPTY_FETCHES", 1)
    lost: list[int] = []
    receive = PullConsumer._on_message  # pyright: ignore[reportPrivateUsage]

    async def lose_one(self: PullConsumer, message: Any) -> None:
        if (
            ".done." in message.subject
            and message.metadata.sequence.stream == first + position - 1
            and not lost
        ):
            lost.append(position)
            consumer: Any = self
            consumer._outstanding -= 1
        else:
            await receive(self, message)

    await workers.start()
    ids = [relay.add(duration=0.0) for _ in range(3)]
    await queue.submit(ids)
    await queue.wait_submitted(ids, timeout=20)
    first = (await queue.js.stream_info(queue.names.done)).state.first_seq
    monkeypatch.setattr(PullConsumer, "_on_message", lose_one)
    ends = await read_results(queue, 3)
    assert sorted(end.id for end in ends) == sorted(ids)
    assert lost == [position]


async def test_a_reader_continues_when_the_stream_is_created_again(
    queue: Queue, workers: WorkerPool, relay: FakeRelay
) -> None:
    worker = await workers.start()
    ends = queue.results()
    for _ in range(2):
        await queue.submit(relay.add(duration=0.0))
        await anext(ends)
    await worker.holds(0)
    reading = asyncio.ensure_future(anext(ends))
    await queue.js.delete_stream(queue.names.done)
    await queue.submit(task_id := relay.add(duration=0.0))
    async with asyncio.timeout(20):
        assert (await reading).id == task_id
    await ends.aclose()


async def test_a_task_that_is_too_large_is_stored_in_part(
    queue: Queue, workers: WorkerPool, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(publisher, "HEADERS_SIZE", queue.client.max_payload - 300)
    await workers.start()
    await queue.submit(task_id := relay.add(duration=0.0))
    generation = await queue.wait_submitted(task_id, timeout=20)
    assert generation.state is State.COMPLETED
    assert "stored in part" in caplog.text


async def test_a_wait_timeout_has_the_results_known_so_far(
    queue: Queue, workers: WorkerPool, relay: FakeRelay
) -> None:
    await workers.start()
    quick, slow = relay.add(duration=0.0), relay.add(duration=100)
    await queue.submit([quick, slow])
    await queue.wait_submitted(quick, timeout=20)
    for timeout in (0.1, 0):
        with pytest.raises(WaitTimeout) as caught:
            await queue.wait_submitted([quick, slow, "never"], timeout=timeout)
        assert list(caught.value.done) == [quick]
        assert list(caught.value.pending) == [slow, "never"]


async def test_all_waits_of_a_queue_share_one_reader_that_stops_with_the_last(
    queue: Queue, workers: WorkerPool, relay: FakeRelay
) -> None:
    ids = [relay.add(duration=0.5) for _ in range(40)]
    waits = [asyncio.create_task(queue.wait_submitted(i, timeout=20)) for i in ids]
    left = asyncio.create_task(queue.wait_submitted("never"))
    await queue.submit(ids)
    await workers.start()
    assert {one.id for one in await asyncio.gather(*waits)} == set(ids)
    assert len(await queue.js.consumers_info(queue.names.done)) == 1
    left.cancel()
    await asyncio.wait([left])
    async with asyncio.timeout(20):
        while await queue.js.consumers_info(queue.names.done):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_a_reader_whose_consumer_is_deleted_misses_no_result(
    queue: Queue, workers: WorkerPool, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("luma_async.worker.storage.result_reader.CHECK_AFTER_EMPTY_FETCHES", 1)
    await workers.start()
    ends = queue.results()
    await queue.submit(first := relay.add(duration=0.0))
    assert (await anext(ends)).id == first
    reading = asyncio.ensure_future(anext(ends))
    await asyncio.sleep(0)
    for consumer in await queue.js.consumers_info(queue.names.done):
        await queue.js.delete_consumer(queue.names.done, consumer.name)
    await queue.submit(second := relay.add(duration=0.0))
    async with asyncio.timeout(20):
        assert (await reading).id == second
    await ends.aclose()


async def test_a_worker_continues_when_streams_and_consumer_are_deleted(
    queue: Queue, workers: WorkerPool, relay: FakeRelay
) -> None:
    worker = await workers.start()
    await queue.submit(held := relay.add(duration=1.0))
    await worker.holds(1)
    await queue.js.delete_stream(queue.names.wait)
    await queue.js.delete_stream(queue.names.done)
    assert (await wait_with_retries(queue, held)).state is State.COMPLETED
    await queue.submit(later := relay.add(duration=0.0))
    assert (await queue.wait_submitted(later, timeout=20)).state is State.COMPLETED


async def wait_with_retries(queue: Queue, task_id: str) -> Any:
    async with asyncio.timeout(20):
        while True:
            try:
                return await queue.wait_submitted(task_id, timeout=0.2)
            except Exception:
                await asyncio.sleep(0.05)


async def test_a_worker_whose_session_is_closed_returns_its_ids_and_stops(
    queue: Queue, workers: WorkerPool, relay: FakeRelay
) -> None:
    worker = await workers.start()
    await queue.submit(task_id := relay.add(duration=0.5))
    await worker.holds(1)
    await worker.luma.close()
    with pytest.raises(WaitAborted):
        await worker.task
    await workers.start()
    assert await queue.wait_submitted(task_id, timeout=20)


async def test_a_worker_whose_queue_is_closed_raises_a_queue_error(
    queue: Queue, workers: WorkerPool, relay: FakeRelay
) -> None:
    worker = await workers.start(ack_wait=0.5)
    await queue.submit(relay.add(duration=100))
    await worker.holds(1)
    await worker.queue.close()
    with pytest.raises(QueueError, match="start the worker again|enter another one"):
        await worker.task
    other = await workers.start()
    await other.holds(1)


async def test_a_cancelled_worker_returns_its_ids(
    queue: Queue, workers: WorkerPool, relay: FakeRelay
) -> None:
    worker = await workers.start()
    await queue.submit(task_id := relay.add(duration=0.5))
    await worker.holds(1)
    worker.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await worker.task
    await workers.start()
    assert await queue.wait_submitted(task_id, timeout=20)


async def test_an_error_in_on_end_loses_no_result(
    queue: Queue, workers: WorkerPool, relay: FakeRelay, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_: object) -> None:
        raise KeyError("an error in the callback")

    worker = await workers.start(on_end=failing)
    await queue.submit(ids := [relay.add(duration=0.0) for _ in range(3)])
    assert len(await queue.wait_submitted(ids, timeout=20)) == 3
    await worker.holds(0)
    assert caplog.text.count("on_end raised an error") == 3


async def test_a_worker_can_run_once(workers: WorkerPool) -> None:
    worker = await workers.start()
    await until(lambda: worker.is_well)
    with pytest.raises(RuntimeError, match="make another one"):
        await worker.worker.run()
    await worker.stop()
    with pytest.raises(RuntimeError, match="make another one"):
        await worker.worker.run()


async def test_a_worker_with_a_shorter_lease_takes_no_ids_from_others(
    queue: Queue, workers: WorkerPool, relay: FakeRelay
) -> None:
    first = await workers.start()
    await queue.submit([relay.add(duration=100) for _ in range(20)])
    await first.holds(20)
    second = await workers.start(ack_wait=0.6)
    await asyncio.sleep(1.3)
    assert second.work.redelivered == 0
    assert first.work.held == 20


async def test_reading_from_a_closed_queue_raises_a_queue_error(server: str, pool: str) -> None:
    async with Queue(server, pool=pool) as queue:
        reading = asyncio.ensure_future(anext(queue.results()))
        waiting = asyncio.ensure_future(queue.wait_submitted("a"))
        await asyncio.sleep(0.1)
    for left in (reading, waiting):
        with pytest.raises(QueueError, match="enter another"):
            async with asyncio.timeout(20):
                await left
    with pytest.raises(QueueError, match="enter another"):
        await queue.submit("a")


async def test_invalid_arguments_of_a_worker_are_rejected(queue: Queue, luma: LumaSession) -> None:
    invalid: list[Any] = [{"capacity": 0}, {"give_up": 0}, {"ack_wait": -1}, {"ack_wait": inf}]
    for options in invalid:
        with pytest.raises(ValueError, match="give"):
            Worker(luma, queue, **options)
    with pytest.raises(TypeError, match="give a Queue"):
        Worker(luma, "nats://…")  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def info_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "luma_async")
