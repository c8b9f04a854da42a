"""Workers on a real nats-server: what is submitted is told, whatever becomes of whom."""

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
from luma_async.worker import EndState, Queue, peers, results, submit, wait_submitted
from luma_async.worker import publisher as answers
from luma_async.worker import worker as polling
from luma_async.worker.consumer import PullConsumer
from luma_async.worker.results import subject_token
from tests.worker.worker_processes import Crew, until

LEASE = 2.0  # seconds; a third of it must suffice for a turn of the loop, on any machine


async def told(queue: Queue, count: int, since: Any = None) -> list[Any]:
    """Read so many ends."""
    ends: list[Any] = []
    async with asyncio.timeout(20):
        async for end in queue.results(since=since):
            ends.append(end)
            if len(ends) == count:
                break
    return ends


async def test_what_is_submitted_is_told_to_any_process_in_the_order_asked(
    queue: Queue, crew: Crew, relay: FakeRelay, server: str, pool: str
) -> None:
    ids = [relay.add(duration=0.1 * (n % 3), ends=("completed", "failed")[n % 2]) for n in range(9)]
    assert await submit(ids, server, pool=pool) == ids
    hand = await crew.hire()
    done = await queue.wait_submitted(ids, timeout=20)
    assert list(done) == ids
    assert [one.state for one in done.values()] == [State.COMPLETED, State.FAILED] * 4 + [
        State.COMPLETED
    ]
    assert (await wait_submitted(ids[0], server, pool=pool)).url
    await until(lambda: hand.worker.work.held == 0)
    assert hand.worker.work.ends == {
        EndState.COMPLETED: 5, EndState.FAILED: 4, EndState.MISSING: 0, EndState.GAVE_UP: 0,
    }  # fmt: skip
    ends = [end async for end in results(ids, server, pool=pool)]
    assert sorted(end.id for end in ends) == sorted(ids)
    assert (await queue.js.stream_info(queue.names.wait)).state.messages == 0


async def test_an_id_that_waits_is_one_however_often_it_is_submitted(queue: Queue) -> None:
    assert await queue.submit(["a", "b", "a"]) == ["a", "b"]
    assert await queue.submit(["b", "c"]) == ["c"]
    assert await queue.submit("d") == ["d"]
    assert await queue.submit([]) == []
    assert (await queue.js.stream_info(queue.names.wait)).state.messages == 4


async def test_an_id_that_has_ended_may_be_submitted_again_and_is_told_again(
    queue: Queue, crew: Crew, relay: FakeRelay
) -> None:
    hand = await crew.hire()
    await queue.submit(task_id := relay.add(duration=0.0))
    (first,) = await told(queue, 1)
    await hand.holds(0)
    assert await queue.submit(task_id) == [task_id]
    (second,) = await told(queue, 1, since=first.sequence)
    assert second.id == first.id
    assert second.sequence > first.sequence


async def test_ends_that_were_told_while_nobody_listened_are_told_since_any_place(
    queue: Queue, crew: Crew, relay: FakeRelay
) -> None:
    await crew.hire()
    before = datetime.now(UTC)
    for _ in range(3):
        await queue.submit(task_id := relay.add(duration=0.0))
        await queue.wait_submitted(task_id, timeout=20)
    all_of_them = await told(queue, 3)
    assert await told(queue, 2, since=all_of_them[0].sequence) == all_of_them[1:]
    assert await told(queue, 1, since=all_of_them[2].told_at) == all_of_them[2:]
    assert await told(queue, 3, since=before) == all_of_them


async def test_a_missing_id_is_an_end_of_its_own(
    queue: Queue, crew: Crew, relay: FakeRelay
) -> None:
    await crew.hire()
    good = relay.add(duration=0.0)
    await queue.submit([good, "nobody"])
    with pytest.raises(GenerationsMissing) as caught:
        await queue.wait_submitted([good, "nobody"], timeout=20)
    assert caught.value.missing == ("nobody",)
    assert list(caught.value.done) == [good]


async def test_an_id_that_is_submitted_again_is_waited_for_anew(
    queue: Queue, crew: Crew, relay: FakeRelay
) -> None:
    await crew.hire()
    await queue.submit("late")
    with pytest.raises(GenerationsMissing):
        await queue.wait_submitted("late", timeout=20)
    await until_empty(queue)
    relay.add("late", duration=0.3)
    await queue.submit("late")
    assert (await queue.wait_submitted("late", timeout=20)).state is State.COMPLETED
    ends = [end async for end in queue.results("late")]
    assert [end.state for end in ends] == ["completed"]


async def test_what_takes_too_long_is_given_up_with_what_was_seen_last(
    queue: Queue, crew: Crew, relay: FakeRelay
) -> None:
    await crew.hire(give_up=0.5)
    await queue.submit(task_id := relay.add(duration=100))
    with pytest.raises(GaveUp, match="submit error.pending again") as caught:
        await queue.wait_submitted([task_id], timeout=20)
    seen = caught.value.pending[task_id]
    assert seen is not None
    assert seen.state is State.PROCESSING
    (end,) = await told(queue, 1)
    assert end.state == "gave_up"
    assert await queue.submit(task_id) == [task_id]


async def test_a_worker_that_stops_hands_back_at_once_what_another_then_polls(
    queue: Queue, crew: Crew, relay: FakeRelay
) -> None:
    """The lease is a minute: what is lent sooner was handed back."""
    first = await crew.hire()
    await queue.submit([relay.add(duration=100) for _ in range(300)])
    await first.holds(300)
    second = await crew.hire()
    await first.stop()
    await second.holds(300)
    assert second.worker.work.redelivered == 300
    assert second.luma.stats.open == 300


async def test_what_a_dead_worker_held_is_lent_to_another_when_its_lease_is_over(
    queue: Queue, crew: Crew, relay: FakeRelay
) -> None:
    dead = await crew.hire(ack_wait=LEASE)
    await queue.submit([relay.add(duration=100) for _ in range(50)])
    await dead.holds(50)
    await dead.queue.client.close()
    second = await crew.hire()
    await second.holds(50)
    assert second.worker.work.redelivered == 50
    with pytest.raises(Exception, match="start the worker anew"):
        await dead.task


async def test_what_is_held_longer_than_a_lease_is_told_once(
    queue: Queue, crew: Crew, relay: FakeRelay
) -> None:
    hands = [await crew.hire(ack_wait=LEASE), await crew.hire(ack_wait=LEASE)]
    await queue.submit(ids := [relay.add(duration=1.2 * LEASE) for _ in range(50)])
    await queue.wait_submitted(ids, timeout=20)
    await until(lambda: not any(hand.worker.work.held for hand in hands))
    assert sum(hand.worker.work.redelivered for hand in hands) == 0
    assert sum(hand.worker.work.ends[EndState.COMPLETED] for hand in hands) == 50
    assert (await queue.js.stream_info(queue.names.done)).state.last_seq == 50


async def test_an_end_that_is_told_again_soon_is_stored_once(
    queue: Queue, crew: Crew, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the two, a worker has told and not acknowledged."""
    monkeypatch.setattr(answers, "MAX_ACK_ATTEMPTS", 0)
    hand = await crew.hire(ack_wait=0.5)
    await queue.submit(relay.add(duration=0.0))
    await until(lambda: hand.worker.work.redelivered >= 2)
    assert (await queue.js.stream_info(queue.names.done)).state.last_seq == 1


async def test_a_refused_key_stops_the_worker_and_one_with_a_good_key_goes_on(
    queue: Queue, crew: Crew, relay: FakeRelay
) -> None:
    await queue.submit(ids := [relay.add(duration=0.2) for _ in range(20)])
    bad = await crew.hire(key="sk-wrong")
    with pytest.raises(WaitAborted) as caught:
        await bad.task
    assert isinstance(caught.value.cause, AuthenticationError)
    assert bad.worker.work.handed_back == 20
    await crew.hire()
    assert len(await queue.wait_submitted(ids, timeout=20)) == 20


async def test_a_worker_holds_no_more_than_its_capacity(
    queue: Queue, crew: Crew, relay: FakeRelay
) -> None:
    await queue.submit(ids := [relay.add(duration=0.3) for _ in range(10)])
    hand = await crew.hire(capacity=4)
    await hand.holds(4)
    assert hand.luma.stats.open <= 4
    assert len(await queue.wait_submitted(ids, timeout=20)) == 10
    assert hand.worker.work.taken == 10


async def test_a_second_worker_takes_its_part_of_what_the_first_one_holds(
    queue: Queue, crew: Crew, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "ANNOUNCE_EVERY", 0.1)
    first = await crew.hire()
    await queue.submit([relay.add(duration=100) for _ in range(1200)])
    await first.holds(1200)
    second = await crew.hire()
    await until(lambda: first.worker.work.held + second.worker.work.held == 1200)
    await until(lambda: 300 <= second.worker.work.held <= 900)
    assert first.worker.work.peers == 1
    assert first.luma.stats.open == first.worker.work.held
    await second.stop()
    await first.holds(1200)
    await until(lambda: first.worker.work.peers == 0)


async def test_odd_ids_are_carried_as_they_are(queue: Queue, crew: Crew, relay: FakeRelay) -> None:
    ids = ["a.b c", "*", ">", "é/ü", "..", ".", "~", "%2E", "x" * 900, "line\nbreak"]
    for task_id in ids:
        relay.add(task_id, duration=0.0)
    await crew.hire()
    await queue.submit(ids)
    assert list(await queue.wait_submitted(ids, timeout=20)) == ids


async def test_an_id_may_be_submitted_in_any_language_and_what_is_no_id_is_dropped_aloud(
    queue: Queue, crew: Crew, relay: FakeRelay, caplog: pytest.LogCaptureFixture
) -> None:
    with_payload, without = relay.add(duration=0.0), relay.add("a.b", duration=0.0)
    await queue.js.publish(queue.names.waiting("odd"), b"\xff\xfe")
    await queue.js.publish(queue.names.waiting("anything"), with_payload.encode())
    await queue.js.publish(queue.names.waiting(subject_token(without)))
    await crew.hire()
    assert len(await queue.wait_submitted([with_payload, without], timeout=20)) == 2
    assert [r.levelname for r in caplog.records if "is no id" in r.message] == ["ERROR"]
    await until_empty(queue)


async def until_empty(queue: Queue) -> None:
    async with asyncio.timeout(20):
        while (await queue.js.stream_info(queue.names.wait)).state.messages:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def full(queue: Queue, *, is_full: bool) -> None:
    """Let the stream of ends take no end more, or any."""
    info = await queue.js.stream_info(queue.names.done)
    stored: Any = info.config
    config = stored.evolve(discard="new" if is_full else "old", max_msgs=1 if is_full else -1)
    await queue.js.update_stream(config)  # pyright: ignore[reportUnknownMemberType]


async def test_an_id_is_not_let_go_before_its_end_is_stored_and_the_worker_says_it_is_unwell(
    queue: Queue, crew: Crew, relay: FakeRelay
) -> None:
    """A stop meanwhile hands the id back: another worker tells its end."""
    first = await crew.hire()
    await queue.submit(before := relay.add(duration=0.0))
    await queue.wait_submitted(before, timeout=20)
    await full(queue, is_full=True)
    await queue.submit(task_id := relay.add(duration=0.0))
    await until(lambda: first.worker.work.untold == 1 and not first.worker.is_well)
    await asyncio.sleep(0.1)
    assert (await queue.js.stream_info(queue.names.wait)).state.messages == 1
    second = await crew.hire()
    await first.stop()
    await until(lambda: second.worker.work.untold == 1 and not second.worker.is_well)
    await full(queue, is_full=False)
    assert (await queue.wait_submitted(task_id, timeout=20)).state is State.COMPLETED
    await until(lambda: second.worker.is_well and second.worker.work.held == 0)


async def test_what_was_submitted_long_ago_is_looked_at_before_it_is_given_up(
    queue: Queue, crew: Crew, relay: FakeRelay
) -> None:
    """As after a weekend in which no worker ran."""
    slow = FakeRelay(latency=0.3)
    async with slow, LumaSession(slow.url, api_key=slow.api_key) as luma:
        await queue.submit(task_id := slow.add(duration=0.0))
        await asyncio.sleep(0.7)
        worker = polling.Worker(luma, queue, give_up=0.6)
        running = asyncio.create_task(worker.run())
        assert (await queue.wait_submitted(task_id, timeout=20)).state is State.COMPLETED
        worker.stop()
        await running


async def test_an_end_that_is_told_and_not_yet_acknowledged_counts(
    queue: Queue, crew: Crew, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "MAX_ACK_ATTEMPTS", 0)
    await crew.hire()
    await queue.submit(task_id := relay.add(duration=0.0))
    await queue.wait_submitted(task_id, timeout=20)
    assert (await queue.js.stream_info(queue.names.wait)).state.messages == 1
    assert (await queue.wait_submitted(task_id, timeout=5)).state is State.COMPLETED


async def test_the_ends_of_some_ids_are_told_since_any_place(
    queue: Queue, crew: Crew, relay: FakeRelay
) -> None:
    await crew.hire()
    await queue.submit(task_id := relay.add(duration=0.0))
    await queue.wait_submitted(task_id, timeout=20)
    (end,) = [one async for one in queue.results(task_id)]
    places = (end.sequence - 1, end.told_at, end.told_at - timedelta(seconds=5))
    for since in places:
        assert [one async for one in queue.results(task_id, since=since)] == [end]
    for since in (end.sequence, end.told_at + timedelta(seconds=5)):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await anext(queue.results(task_id, since=since))


@pytest.mark.parametrize("losing", [1, 3])
async def test_a_message_that_a_reader_never_got_is_read_again(
    queue: Queue, crew: Crew, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch, losing: int
) -> None:
    """The first, or the last of three, is lost on its way; nothing tells so but numbers."""
    monkeypatch.setattr("luma_async.worker.result_reader.HEARTBEAT", 1)
    lost: list[int] = []
    take = PullConsumer._take  # pyright: ignore[reportPrivateUsage]

    async def losing_one(self: PullConsumer, message: Any) -> None:
        if ".done." in message.subject and message.metadata.sequence.stream == losing and not lost:
            lost.append(losing)
            pulling: Any = self
            pulling._owed -= 1
        else:
            await take(self, message)

    await crew.hire()
    ids = [relay.add(duration=0.0) for _ in range(3)]
    await queue.submit(ids)
    await queue.wait_submitted(ids, timeout=20)
    monkeypatch.setattr(PullConsumer, "_take", losing_one)
    ends = await told(queue, 3)
    assert sorted(end.id for end in ends) == sorted(ids)
    assert lost == [losing]


async def test_a_reader_goes_on_with_a_stream_that_was_made_anew(
    queue: Queue, crew: Crew, relay: FakeRelay
) -> None:
    hand = await crew.hire()
    ends = queue.results()
    for _ in range(2):
        await queue.submit(relay.add(duration=0.0))
        await anext(ends)
    await hand.holds(0)
    reading = asyncio.ensure_future(anext(ends))
    await queue.js.delete_stream(queue.names.done)
    await queue.submit(task_id := relay.add(duration=0.0))
    async with asyncio.timeout(20):
        assert (await reading).id == task_id
    await ends.aclose()


async def test_a_task_too_long_to_store_is_told_in_part(
    queue: Queue, crew: Crew, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(answers, "MAX_HEADERS", queue.client.max_payload - 300)
    await crew.hire()
    await queue.submit(task_id := relay.add(duration=0.0))
    generation = await queue.wait_submitted(task_id, timeout=20)
    assert generation.state is State.COMPLETED
    assert "told in part" in caplog.text


async def test_a_wait_that_is_over_says_what_was_told_in_time(
    queue: Queue, crew: Crew, relay: FakeRelay
) -> None:
    await crew.hire()
    quick, slow = relay.add(duration=0.0), relay.add(duration=100)
    await queue.submit([quick, slow])
    await queue.wait_submitted(quick, timeout=20)
    for timeout in (0.1, 0):
        with pytest.raises(WaitTimeout) as caught:
            await queue.wait_submitted([quick, slow, "never"], timeout=timeout)
        assert list(caught.value.done) == [quick]
        assert list(caught.value.pending) == [slow, "never"]


async def test_all_who_wait_on_a_queue_share_one_reader_that_leaves_with_the_last(
    queue: Queue, crew: Crew, relay: FakeRelay
) -> None:
    ids = [relay.add(duration=0.5) for _ in range(40)]
    waits = [asyncio.create_task(queue.wait_submitted(i, timeout=20)) for i in ids]
    left = asyncio.create_task(queue.wait_submitted("never"))
    await queue.submit(ids)
    await crew.hire()
    assert {one.id for one in await asyncio.gather(*waits)} == set(ids)
    assert len(await queue.js.consumers_info(queue.names.done)) == 1
    left.cancel()
    await asyncio.wait([left])
    async with asyncio.timeout(20):
        while await queue.js.consumers_info(queue.names.done):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_a_reader_whose_consumer_is_gone_misses_nothing(
    queue: Queue, crew: Crew, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("luma_async.worker.result_reader.HEARTBEAT", 1)
    await crew.hire()
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


async def test_a_worker_goes_on_when_streams_and_consumer_were_removed(
    queue: Queue, crew: Crew, relay: FakeRelay
) -> None:
    hand = await crew.hire()
    await queue.submit(held := relay.add(duration=1.0))
    await hand.holds(1)
    await queue.js.delete_stream(queue.names.wait)
    await queue.js.delete_stream(queue.names.done)
    assert (await told_of(queue, held)).state is State.COMPLETED
    await queue.submit(later := relay.add(duration=0.0))
    assert (await queue.wait_submitted(later, timeout=20)).state is State.COMPLETED


async def told_of(queue: Queue, task_id: str) -> Any:
    async with asyncio.timeout(20):
        while True:
            try:
                return await queue.wait_submitted(task_id, timeout=0.2)
            except Exception:
                await asyncio.sleep(0.05)


async def test_a_closed_session_stops_the_worker_which_hands_all_back(
    queue: Queue, crew: Crew, relay: FakeRelay
) -> None:
    hand = await crew.hire()
    await queue.submit(task_id := relay.add(duration=0.5))
    await hand.holds(1)
    await hand.luma.close()
    with pytest.raises(WaitAborted):
        await hand.task
    await crew.hire()
    assert await queue.wait_submitted(task_id, timeout=20)


async def test_a_queue_that_is_closed_under_a_worker_ends_it_with_one_plain_error(
    queue: Queue, crew: Crew, relay: FakeRelay
) -> None:
    hand = await crew.hire(ack_wait=0.5)
    await queue.submit(relay.add(duration=100))
    await hand.holds(1)
    await hand.queue.close()
    with pytest.raises(QueueError, match="start the worker anew|enter another one"):
        await hand.task
    other = await crew.hire()
    await other.holds(1)


async def test_a_worker_that_is_cancelled_hands_all_back(
    queue: Queue, crew: Crew, relay: FakeRelay
) -> None:
    hand = await crew.hire()
    await queue.submit(task_id := relay.add(duration=0.5))
    await hand.holds(1)
    hand.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hand.task
    await crew.hire()
    assert await queue.wait_submitted(task_id, timeout=20)


async def test_a_fault_in_on_end_costs_no_end(
    queue: Queue, crew: Crew, relay: FakeRelay, caplog: pytest.LogCaptureFixture
) -> None:
    def fault(*_: object) -> None:
        raise KeyError("a fault of the user's")

    hand = await crew.hire(on_end=fault)
    await queue.submit(ids := [relay.add(duration=0.0) for _ in range(3)])
    assert len(await queue.wait_submitted(ids, timeout=20)) == 3
    await hand.holds(0)
    assert caplog.text.count("the end was told all the same") == 3


async def test_a_worker_runs_once(crew: Crew) -> None:
    hand = await crew.hire()
    await until(lambda: hand.worker.is_well)
    with pytest.raises(RuntimeError, match="make another one"):
        await hand.worker.run()
    await hand.stop()
    with pytest.raises(RuntimeError, match="make another one"):
        await hand.worker.run()


async def test_a_worker_with_a_shorter_lease_robs_nobody(
    queue: Queue, crew: Crew, relay: FakeRelay
) -> None:
    first = await crew.hire()
    await queue.submit([relay.add(duration=100) for _ in range(20)])
    await first.holds(20)
    second = await crew.hire(ack_wait=0.6)
    await asyncio.sleep(1.3)
    assert second.worker.work.redelivered == 0
    assert first.worker.work.held == 20


async def test_a_reader_of_a_closed_queue_is_told_so(server: str, pool: str) -> None:
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


async def test_what_is_no_worker_says_so(queue: Queue, luma: LumaSession) -> None:
    wrongs: list[Any] = [{"capacity": 0}, {"give_up": 0}, {"ack_wait": -1}, {"ack_wait": inf}]
    for wrong in wrongs:
        with pytest.raises(ValueError, match="give"):
            polling.Worker(luma, queue, **wrong)
    with pytest.raises(TypeError, match="give a Queue"):
        polling.Worker(luma, "nats://…")  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def plain_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "luma_async")
