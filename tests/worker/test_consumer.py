"""One request for messages at a time: what the server says of it."""

from typing import Any

import pytest
from nats.js import errors

from luma_async.worker import Queue
from luma_async.worker import consumer as pull
from luma_async.worker.consumer import PullConsumer


@pytest.fixture
async def pulling(queue: Queue) -> PullConsumer:
    """Return what pulls the ids that wait in the queue."""
    return await queue.pull()


async def asked(queue: Queue) -> tuple[int, int]:
    """Return how many requests are open on the server, and how many ids are lent."""
    info = await queue.js.consumer_info(queue.names.wait, queue.names.consumer)
    return info.num_waiting or 0, info.num_ack_pending or 0


async def test_what_waits_comes_at_once_and_no_more_than_was_asked_for(
    queue: Queue, pulling: PullConsumer
) -> None:
    await queue.submit(list("abcde"))
    assert [one.data for one in await pulling.fetch(3)] == [b"a", b"b", b"c"]
    assert await asked(queue) == (0, 3)
    assert await pulling.fetch(0) == []
    assert [one.data for one in await pulling.fetch(3)] == [b"d", b"e"]


async def test_a_request_stays_open_and_is_the_only_one(
    queue: Queue, pulling: PullConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull, "FETCH_EXPIRES", 0.5)
    await queue.submit("a")
    for _ in range(3):
        await pulling.fetch(5)
        await pulling.fetch(0)
    assert (await asked(queue))[0] <= 1
    await queue.submit("b")
    assert [one.data for one in await pulling.fetch(5)] == [b"b"]


async def test_after_the_rest_nothing_is_lent_any_more(queue: Queue, pulling: PullConsumer) -> None:
    await queue.submit("a")
    assert len(await pulling.fetch(5)) == 1
    await queue.submit("b")
    assert [one.data for one in await pulling.drain()] == [b"b"]
    await queue.submit("c")
    assert await asked(queue) == (0, 2)
    await pulling.close()


async def test_an_expired_request_is_followed_by_another(
    queue: Queue, pulling: PullConsumer
) -> None:
    assert await pulling.fetch(5) == []
    assert await pulling.fetch(5) == []
    await queue.submit("a")
    assert len(await pulling.fetch(5)) == 1


async def test_a_late_word_about_an_earlier_request_does_not_end_the_one_that_is_open(
    queue: Queue, pulling: PullConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await pulling.fetch(5) == []
    monkeypatch.setattr(pull, "FETCH_EXPIRES", 2.0)
    await queue.submit("a")
    assert len(await pulling.fetch(5)) == 1
    inbox: Any = pulling._inbox  # pyright: ignore[reportPrivateUsage]
    await queue.client.publish(f"{inbox}.1", b"", headers={"Status": "408"})
    await queue.submit("b")
    assert len(await pulling.fetch(5)) == 1
    assert (await asked(queue))[0] == 1


async def test_a_consumer_that_is_gone_is_told(queue: Queue, pulling: PullConsumer) -> None:
    await queue.js.delete_consumer(queue.names.wait, queue.names.consumer)
    with pytest.raises(errors.NotFoundError):
        for _ in range(3):
            await pulling.fetch(5)
