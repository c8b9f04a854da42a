"""PullConsumer: one request at a time, as the server sees it."""

from typing import Any

import pytest
from nats.js import errors

from luma_async.worker import Queue
from luma_async.worker.server import consumer as consumer_module
from luma_async.worker.server.consumer import PullConsumer


@pytest.fixture
async def consumer(queue: Queue) -> PullConsumer:
    """Return a consumer of the ids in the queue."""
    return await queue.pull()


async def requests_and_leases(queue: Queue) -> tuple[int, int]:
    """Return how many requests are open on the server, and how many ids are leased."""
    info = await queue.js.consumer_info(queue.names.wait, queue.names.consumer)
    return info.num_waiting or 0, info.num_ack_pending or 0


async def test_waiting_messages_arrive_at_once_and_not_more_than_requested(
    queue: Queue, consumer: PullConsumer
) -> None:
    await queue.submit(list("abcde"))
    assert [message.data for message in await consumer.fetch(3)] == [b"a", b"b", b"c"]
    assert await requests_and_leases(queue) == (0, 3)
    assert await consumer.fetch(0) == []
    assert [message.data for message in await consumer.fetch(3)] == [b"d", b"e"]


async def test_only_one_request_is_open_at_a_time(
    queue: Queue, consumer: PullConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_module, "FETCH_EXPIRES", 0.5)
    await queue.submit("a")
    for _ in range(3):
        await consumer.fetch(5)
        await consumer.fetch(0)
    assert (await requests_and_leases(queue))[0] <= 1
    await queue.submit("b")
    assert [message.data for message in await consumer.fetch(5)] == [b"b"]


async def test_after_drain_the_server_delivers_nothing(
    queue: Queue, consumer: PullConsumer
) -> None:
    await queue.submit("a")
    assert len(await consumer.fetch(5)) == 1
    await queue.submit("b")
    assert [message.data for message in await consumer.drain()] == [b"b"]
    await queue.submit("c")
    assert await requests_and_leases(queue) == (0, 2)
    await consumer.close()


async def test_an_expired_request_is_sent_again(queue: Queue, consumer: PullConsumer) -> None:
    assert await consumer.fetch(5) == []
    assert await consumer.fetch(5) == []
    await queue.submit("a")
    assert len(await consumer.fetch(5)) == 1


async def test_a_late_status_of_an_earlier_request_does_not_close_the_open_one(
    queue: Queue, consumer: PullConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await consumer.fetch(5) == []
    monkeypatch.setattr(consumer_module, "FETCH_EXPIRES", 2.0)
    await queue.submit("a")
    assert len(await consumer.fetch(5)) == 1
    inbox: Any = consumer._inbox  # pyright: ignore[reportPrivateUsage]
    await queue.client.publish(f"{inbox}.1", b"", headers={"Status": "408"})
    await queue.submit("b")
    assert len(await consumer.fetch(5)) == 1
    assert (await requests_and_leases(queue))[0] == 1


async def test_a_deleted_consumer_raises_not_found(queue: Queue, consumer: PullConsumer) -> None:
    await queue.js.delete_consumer(queue.names.wait, queue.names.consumer)
    with pytest.raises(errors.NotFoundError):
        for _ in range(3):
            await consumer.fetch(5)
