"""Where a queue is found, and what is said where it is not."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js import api

from luma_async import QueueError
from luma_async.worker import Queue, submit

NOBODY = "nats://user:s3cret@127.0.0.1:1"


async def test_a_server_that_is_not_there_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("luma_async.worker.connection.CONNECT_TIMEOUT", 0.3)
    with pytest.raises(QueueError, match="start it or name another") as caught:
        await submit("a", NOBODY)
    assert "127.0.0.1:1" in str(caught.value)
    assert "s3cret" not in str(caught.value) + repr(Queue(NOBODY))


async def test_a_url_that_is_none_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("luma_async.worker.connection.CONNECT_TIMEOUT", 0.3)
    with pytest.raises(QueueError, match="name another"):
        await submit("a", "nats://[::1")


@pytest.mark.parametrize("nats", ["", " ", "a,,b", [], ["nats://a", 1], 7, b"nats://a"])
async def test_what_is_no_url_is_refused_before_anything_is_done(nats: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="such as nats://"):
        Queue(nats)


def test_two_servers_are_one_too_many() -> None:
    with pytest.raises(ValueError, match="give one of them"):
        Queue("nats://a", data="somewhere")


@pytest.mark.parametrize("pool", ["", "a.b", "a b", "*", "x" * 65])
def test_a_pool_has_a_name_that_a_subject_can_hold(pool: str) -> None:
    with pytest.raises(ValueError, match="give a name"):
        Queue("nats://a", pool=pool)


async def test_the_environment_names_the_server(
    server: str, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUMA_NATS", f"{server}, {server}")
    assert await submit("a", pool=pool) == ["a"]


async def test_a_client_of_yours_is_used_and_stays_open(server: str, pool: str) -> None:
    client = Client()
    await client.connect(server)
    async with Queue(client, pool=pool) as queue:
        assert await queue.submit("a") == ["a"]
    assert client.is_connected
    await client.close()
    with pytest.raises(QueueError, match="connect it first"):
        await submit("a", client, pool=pool)


async def test_a_queue_is_entered_once_and_used_within() -> None:
    queue = Queue("nats://a")
    with pytest.raises(RuntimeError, match="async with Queue"):
        await queue.submit("a")
    with pytest.raises(RuntimeError, match="async with Queue"):
        await queue.wait_submitted("a")
    await queue.close()
    await queue.close()


async def test_a_stream_of_another_kind_is_not_touched(queue: Queue, server: str) -> None:
    other = f"{queue.names.pool}-other"
    await queue.js.add_stream(  # pyright: ignore[reportUnknownMemberType]
        api.StreamConfig(name=f"{other}-wait", subjects=[f"{other}.wait.*"])
    )
    with pytest.raises(QueueError, match="give another pool, or remove the stream"):
        await submit("a", server, pool=other)


async def test_more_copies_than_servers_are_refused(server: str, pool: str) -> None:
    with pytest.raises(QueueError, match="give replicas=1"):
        async with Queue(server, pool=pool, replicas=3):
            pass


async def test_a_server_that_stores_nothing_more_says_what_is_not_stored(queue: Queue) -> None:
    info = await queue.js.stream_info(queue.names.wait)
    await queue.js.update_stream(info.config, max_msgs=2)  # pyright: ignore[reportUnknownMemberType]
    with pytest.raises(QueueError, match="submit them again") as caught:
        await queue.submit(["a", "b", "c", "d"])
    assert len(caught.value.pending) == 2
    await queue.js.update_stream(info.config, max_msgs=-1)  # pyright: ignore[reportUnknownMemberType]
    assert set(await queue.submit(["a", "b", "c", "d"])) == set(caught.value.pending)


@pytest.mark.parametrize("wrong", ["", ["a", ""], [1], b"a", None])
async def test_what_is_no_id_is_refused_before_anything_is_stored(queue: Queue, wrong: Any) -> None:
    for call in (queue.submit, queue.wait_submitted):
        with pytest.raises((ValueError, TypeError)):
            await call(wrong)
    assert (await queue.js.stream_info(queue.names.wait)).state.messages == 0


@pytest.mark.parametrize("since", ["yesterday", True, -1, 1.5, 2**64])
async def test_what_is_no_place_among_the_ends_is_refused(queue: Queue, since: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="give .* sequence of an end"):
        queue.results(since=since)


async def test_a_moment_without_a_zone_is_refused(queue: Queue) -> None:
    with pytest.raises(ValueError, match="such as UTC"):
        queue.results(since=datetime(2026, 11, 21))  # noqa: DTZ001 - the mistake itself


async def test_entering_that_is_cancelled_leaves_no_server_behind(tmp_path: Path) -> None:
    for delay in (0.0, 0.02, 0.05):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(delay), Queue(data=tmp_path):
                await asyncio.sleep(60)
        assert servers_in(tmp_path) == []


@pytest.mark.parametrize("year", [1, 1969, 2300, 9999])
async def test_a_moment_that_no_end_can_have_is_refused(queue: Queue, year: int) -> None:
    with pytest.raises(ValueError, match="between 1970 and 2200"):
        queue.results(since=datetime(year, 1, 1, tzinfo=UTC))


async def test_an_id_that_no_end_could_be_told_of_is_refused(queue: Queue) -> None:
    with pytest.raises(ValueError, match="up to 4096 bytes"):
        await queue.submit(["a", "é" * 2049])
    assert (await queue.js.stream_info(queue.names.wait)).state.messages == 0


async def test_ids_that_are_submitted_while_there_is_no_leader_are_stored_when_there_is(
    queue: Queue,
) -> None:
    """As when a cluster elects one: nobody answers for the stream for a while."""
    await queue.js.delete_stream(queue.names.wait)
    submitting = asyncio.create_task(queue.submit(["a", "b"]))
    await asyncio.sleep(0.1)
    assert not submitting.done()
    await queue.ensure()
    assert await submitting == ["a", "b"]


def servers_in(directory: Path) -> list[int]:
    """Return the processes that run in a directory."""
    found: list[int] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(directory / "nats.conf") in (process / "cmdline").read_text():
                found.append(int(process.name))
        except OSError:
            continue
    return found
