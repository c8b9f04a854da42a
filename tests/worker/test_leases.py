"""The leases of one worker, without a server and in virtual time."""

import asyncio
import logging
from math import inf

import pytest
from nats.aio.msg import Msg

from luma_async.worker.leases import Lease, Leases
from luma_async.worker.storage.submissions import Submission
from tests.worker.local_queue import LocalQueue, delivery, message

pytestmark = pytest.mark.virtual_time

DAY = 86_400.0
ACK_RETRY_DELAY = 0.02  # as in conftest.py


@pytest.fixture
def queue() -> LocalQueue:
    return LocalQueue()


@pytest.fixture
def leases(queue: LocalQueue) -> Leases:
    return Leases(queue, DAY)


def lease_of(leases: Leases, task_id: str) -> Lease:
    lease = leases.get(task_id)
    assert lease is not None
    return lease


async def test_an_id_is_given_up_a_day_after_its_submission_unless_its_result_is_known(
    leases: Leases,
) -> None:
    await leases.accept([delivery("a", 1, age=DAY - 100), delivery("b", 2), delivery("c", 3)])
    lease_of(leases, "c").has_ended = True
    assert leases.expired_ids(99.0) == []
    assert leases.expired_ids(100.0) == ["a"]
    assert leases.expired_ids(inf) == ["a", "b"]
    assert leases.open_ids() == ["a", "b"]


async def test_an_old_id_is_polled_for_a_minute_or_for_as_long_as_ids_are_polled(
    queue: LocalQueue,
) -> None:
    for give_up, seconds in ((DAY, 60.0), (20.0, 20.0)):
        leases = Leases(queue, give_up)
        await leases.accept([delivery("a", 1, age=10 * DAY)])
        assert lease_of(leases, "a").give_up_at == seconds


async def test_a_redelivered_id_is_not_polled_again_and_is_acknowledged_by_its_new_delivery(
    queue: LocalQueue, leases: Leases
) -> None:
    assert await leases.accept([delivery("a", 1)]) == ["a"]
    lease, leases.period, queue.number = lease_of(leases, "a"), 60.0, 1
    assert not leases.is_certain(lease)
    again = delivery("a", 1, delivered=2)
    assert await leases.accept([again]) == []
    assert leases.get("a") is lease
    assert lease.reply == again.reply
    assert leases.is_certain(lease), "it was delivered to this worker since the reconnect"
    assert (leases.taken, leases.redelivered) == (1, 1)


async def test_a_lease_is_certain_while_heartbeats_are_sent(leases: Leases) -> None:
    await leases.accept([delivery("a", 1)])
    leases.period = 10.0
    await asyncio.sleep(9.9)
    assert leases.is_certain(lease_of(leases, "a"))
    await asyncio.sleep(0.1)
    assert not leases.is_certain(lease_of(leases, "a"))
    await leases.extend_all()
    assert leases.is_certain(lease_of(leases, "a"))


async def test_a_new_submission_of_an_id_that_is_polled_needs_a_poll_that_began_later(
    leases: Leases,
) -> None:
    await leases.accept([delivery("a", 1), delivery("b", 2)])
    lease_of(leases, "b").has_ended = True
    assert await leases.accept([delivery("a", 7), delivery("b", 8)]) == ["a", "b"]
    assert leases.needs_another_poll("a")
    assert not leases.needs_another_poll("a"), "once"
    assert not leases.needs_another_poll("b"), "no request was in flight"


async def test_an_id_that_was_returned_and_comes_again_may_still_be_in_a_request(
    leases: Leases,
) -> None:
    await leases.accept([delivery("a", 1), delivery("b", 2)])
    await leases.release(["a"])
    await asyncio.sleep(0.5)
    await leases.release(["b"])
    await asyncio.sleep(60.0)
    await leases.accept([delivery("a", 1, delivered=2), delivery("b", 2, delivered=2)])
    assert not leases.needs_another_poll("a"), "the request has ended since"
    assert leases.needs_another_poll("b")


async def test_an_id_that_was_returned_twice_keeps_no_other_one_in_memory(leases: Leases) -> None:
    for seconds, task_id in ((0.0, "a"), (30.0, "b"), (20.0, "a")):
        await asyncio.sleep(seconds)
        await leases.accept([delivery(task_id, 1)])
        await leases.release([task_id])
    await asyncio.sleep(45.0)
    await leases.accept([delivery("a", 1), delivery("b", 1)])
    assert leases.needs_another_poll("a")
    assert not leases.needs_another_poll("b")


async def test_ids_are_returned_once_newest_first_and_those_with_a_result_last(
    queue: LocalQueue, leases: Leases
) -> None:
    await leases.accept([delivery(name, number) for number, name in enumerate("abcd", 1)])
    lease_of(leases, "d").has_ended = True
    assert leases.newest_open_ids(2) == ["c", "b"]
    await leases.release(["c", "b"])
    assert (len(leases), leases.returned) == (2, 2)
    await leases.release_all()
    assert (len(leases), leases.returned) == (0, 4)
    assert [payload for _, payload in queue.local.replies] == [Msg.Ack.Nak] * 4
    assert len({subject for subject, _ in queue.local.replies}) == 4


async def test_a_lease_that_was_replaced_is_not_removed_by_its_late_result(leases: Leases) -> None:
    await leases.accept([delivery("a", 1)])
    first = lease_of(leases, "a")
    await leases.accept([delivery("a", 7)])
    leases.remove(first)
    assert not leases.is_current(first)
    assert len(leases) == 1


async def test_an_ack_that_is_not_answered_is_sent_three_times_and_then_left_to_the_server(
    queue: LocalQueue, leases: Leases
) -> None:
    await leases.accept([delivery("a", 1)])
    lease, queue.local.is_silent = lease_of(leases, "a"), True
    await leases.ack(lease)
    assert queue.local.replies == [(lease.reply, Msg.Ack.Ack)] * 3
    assert asyncio.get_running_loop().time() == pytest.approx(3 * (5.0 + ACK_RETRY_DELAY))
    queue.local.is_silent = False
    await leases.ack(lease)
    assert len(queue.local.replies) == 4


async def test_an_ack_after_a_reconnect_is_sent_only_if_the_message_is_there_unchanged(
    queue: LocalQueue, leases: Leases
) -> None:
    """Another id may have its number since."""
    await leases.accept([delivery("a", 1)])
    lease, queue.number = lease_of(leases, "a"), 1
    for queue.waiting in (None, Submission(1, lease.submission.time + 1)):
        await leases.ack(lease)
    assert queue.local.replies == []
    queue.waiting = lease.submission
    await leases.ack(lease)
    assert queue.local.replies == [(lease.reply, Msg.Ack.Ack)]


async def test_a_message_that_is_no_id_makes_no_lease_and_is_deleted(
    queue: LocalQueue, leases: Leases, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = message("luma.wait.%FF", b"", "reply", queue.local)
    assert await leases.accept([wrong, delivery("a", 1)]) == ["a"]
    assert queue.local.replies == [("reply", Msg.Ack.Term)]
    ((_, level, text),) = caplog.record_tuples
    assert level == logging.WARNING
    assert text.startswith("dropped a message on luma.wait.%FF: it is not an id (")


async def test_the_age_of_the_oldest_id_is_that_by_the_clock_of_the_server(leases: Leases) -> None:
    assert leases.oldest == 0.0
    await leases.accept([delivery("new", 3, age=-9.0)])
    assert leases.oldest == 0.0
    await leases.accept([delivery("a", 1, age=30.0), delivery("b", 2, age=5.0)])
    assert leases.oldest == pytest.approx(30.0)


async def test_an_id_whose_result_is_stored_is_not_held_any_more(leases: Leases) -> None:
    await leases.accept([delivery("a", 1), delivery("b", 2)])
    leases.remove(lease_of(leases, "a"))
    assert leases.get("a") is None
    assert not leases.needs_another_poll("a")
    assert (len(leases), leases.open_ids()) == (1, ["b"])


async def test_deliveries_are_counted_and_an_id_whose_result_is_known_is_not_polled_again(
    leases: Leases,
) -> None:
    """The id is held until its result is stored: only its reply subject is new."""
    assert (leases.taken, leases.redelivered, leases.returned) == (0, 0, 0)
    await leases.accept([delivery("a", 1), delivery("b", 2, delivered=2)])
    lease_of(leases, "a").has_ended = True
    again = [delivery("a", 1, delivered=3), delivery("c", 3, delivered=1)]
    assert await leases.accept(again) == ["c"]
    assert lease_of(leases, "a").has_ended
    assert lease_of(leases, "a").reply == again[0].reply
    assert not any(leases.needs_another_poll(task_id) for task_id in "abc")
    assert (leases.taken, leases.redelivered, leases.returned) == (3, 2, 0)


async def test_a_heartbeat_extends_all_leases_also_of_ids_whose_result_is_not_stored(
    queue: LocalQueue, leases: Leases
) -> None:
    messages = [delivery(name, number) for number, name in enumerate("abc", 1)]
    await leases.accept(messages)
    lease_of(leases, "b").has_ended = True
    await leases.extend_all()
    assert queue.local.replies == [(one.reply, Msg.Ack.Progress) for one in messages]


async def test_no_reply_is_sent_while_the_server_is_not_reachable(
    queue: LocalQueue, leases: Leases
) -> None:
    """It would be sent after the reconnect, when another id may have the number."""
    await leases.accept([delivery(name, number) for number, name in enumerate("abcd", 1)])

    async def disconnect(_: Msg) -> None:
        queue.local.is_connected = False

    queue.local.callbacks.append(disconnect)
    await leases.release(["a", "b"])
    assert len(queue.local.replies) == 1
    await leases.extend_all()
    await leases.release_all()
    assert len(queue.local.replies) == 1
    assert (len(leases), leases.returned) == (0, 4)


async def test_other_tasks_run_after_every_500_replies_and_may_store_results(
    queue: LocalQueue, leases: Leases
) -> None:
    messages = [delivery(f"id {number}", number) for number in range(1, 1_102)]
    await leases.accept(messages)
    heartbeat = asyncio.create_task(leases.extend_all())
    counts: list[int] = []
    while not heartbeat.done():
        await asyncio.sleep(0)
        counts.append(len(queue.local.replies))
        if (lease := leases.get("id 1000")) is not None:
            leases.remove(lease)
    assert list(dict.fromkeys(counts)) == [500, 1_000, 1_100]
    assert messages[999].reply not in {subject for subject, _ in queue.local.replies}


async def test_an_ack_is_sent_again_until_one_is_answered(
    queue: LocalQueue, leases: Leases
) -> None:
    await leases.accept([delivery("a", 1)])
    queue.local.is_silent = True
    ack = asyncio.create_task(leases.ack(lease_of(leases, "a")))
    await asyncio.sleep(1.0)
    queue.local.is_silent = False
    await ack
    assert queue.local.replies == [(lease_of(leases, "a").reply, Msg.Ack.Ack)] * 2
