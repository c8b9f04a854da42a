"""Queue: its server, its arguments and its errors."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js import api

from luma_async import QueueError
from luma_async.worker import Queue, submit

UNREACHABLE = "nats://user:s3cret@127.0.0.1:1"


async def test_the_error_about_an_unreachable_server_has_no_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("luma_async.worker.server.connection.CONNECT_TIMEOUT", 0.3)
    with pytest.raises(QueueError, match="start it or name another") as caught:
        await submit("a", UNREACHABLE)
    assert "127.0.0.1:1" in str(caught.value)
    assert "s3cret" not in str(caught.value) + repr(Queue(UNREACHABLE))


async def test_a_malformed_url_raises_a_queue_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("luma_async.worker.server.connection.CONNECT_TIMEOUT", 0.3)
    with pytest.raises(QueueError, match="name another"):
        await submit("a", "nats://[::1")


@pytest.mark.parametrize("nats", ["", " ", "a,,b", [], ["nats://a", 1], 7, b"nats://a"])
async def test_a_value_that_is_not_a_url_is_rejected_at_once(nats: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="such as nats://"):
        Queue(nats)


def test_nats_and_data_together_are_rejected() -> None:
    with pytest.raises(ValueError, match="give one of them"):
        Queue("nats://a", data="somewhere")


@pytest.mark.parametrize("pool", ["", "a.b", "a b", "*", "x" * 65])
def test_a_pool_name_must_fit_into_a_subject(pool: str) -> None:
    with pytest.raises(ValueError, match="give a name"):
        Queue("nats://a", pool=pool)


async def test_the_server_is_read_from_the_environment(
    server: str, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUMA_NATS", f"{server}, {server}")
    assert await submit("a", pool=pool) == ["a"]


async def test_a_given_client_is_used_and_not_closed(server: str, pool: str) -> None:
    client = Client()
    await client.connect(server)
    async with Queue(client, pool=pool) as queue:
        assert await queue.submit("a") == ["a"]
    assert client.is_connected
    await client.close()
    with pytest.raises(QueueError, match="connect it first"):
        await submit("a", client, pool=pool)


async def test_a_queue_that_is_not_entered_raises_a_runtime_error() -> None:
    queue = Queue("nats://a")
    with pytest.raises(RuntimeError, match="async with Queue"):
        await queue.submit("a")
    with pytest.raises(RuntimeError, match="async with Queue"):
        await queue.wait_submitted("a")
    await queue.close()
    await queue.close()


async def test_an_existing_stream_with_another_configuration_is_rejected(
    queue: Queue, server: str
) -> None:
    other = f"{queue.names.pool}-other"
    await queue.js.add_stream(  # pyright: ignore[reportUnknownMemberType]
        api.StreamConfig(name=f"{other}-wait", subjects=[f"{other}.wait.*"])
    )
    with pytest.raises(QueueError, match="give another pool, or remove the stream"):
        await submit("a", server, pool=other)


async def test_more_replicas_than_servers_are_rejected(server: str, pool: str) -> None:
    with pytest.raises(QueueError, match="give replicas=1"):
        async with Queue(server, pool=pool, replicas=3):
            pass


async def test_the_error_about_a_full_stream_has_the_ids_that_are_not_stored(queue: Queue) -> None:
    info = await queue.js.stream_info(queue.names.wait)
    await queue.js.update_stream(info.config, max_msgs=2)  # pyright: ignore[reportUnknownMemberType]
    with pytest.raises(QueueError, match="submit them again") as caught:
        await queue.submit(["a", "b", "c", "d"])
    assert len(caught.value.pending) == 2
    await queue.js.update_stream(info.config, max_msgs=-1)  # pyright: ignore[reportUnknownMemberType]
    assert set(await queue.submit(["a", "b", "c", "d"])) == set(caught.value.pending)


@pytest.mark.parametrize("invalid", ["", ["a", ""], [1], b"a", None])
async def test_invalid_ids_are_rejected_before_any_id_is_stored(queue: Queue, invalid: Any) -> None:
    for call in (queue.submit, queue.wait_submitted):
        with pytest.raises((ValueError, TypeError)):
            await call(invalid)
    assert (await queue.js.stream_info(queue.names.wait)).state.messages == 0


@pytest.mark.parametrize("since", ["yesterday", True, -1, 1.5, 2**64])
async def test_an_invalid_since_is_rejected(queue: Queue, since: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"give .*End\.sequence"):
        queue.results(since=since)


async def test_a_since_without_a_time_zone_is_rejected(queue: Queue) -> None:
    with pytest.raises(ValueError, match="such as UTC"):
        queue.results(since=datetime(2026, 11, 21))  # noqa: DTZ001 - the mistake itself


async def test_a_cancelled_entry_leaves_no_server_running(tmp_path: Path) -> None:
    for delay in (0.0, 0.02, 0.05):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(delay), Queue(data=tmp_path):
                await asyncio.sleep(60)
        assert servers_in(tmp_path) == []


async def test_a_cancellation_while_the_streams_are_checked_is_not_lost(server: str) -> None:
    """A `wait_for` of Python 3.11 swallows one that comes together with the answer."""

    class Checking(Queue):
        async def ensure(self) -> Any:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    queue = Checking(server)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2), queue:
            raise AssertionError("it was entered")
    assert not queue.is_connected


@pytest.mark.parametrize("year", [1, 1969, 2300, 9999])
async def test_a_since_outside_the_supported_years_is_rejected(queue: Queue, year: int) -> None:
    with pytest.raises(ValueError, match="between 1970 and 2200"):
        queue.results(since=datetime(year, 1, 1, tzinfo=UTC))


async def test_an_id_that_is_too_long_is_rejected(queue: Queue) -> None:
    with pytest.raises(ValueError, match="up to 4096 bytes"):
        await queue.submit(["a", "é" * 2049])
    assert (await queue.js.stream_info(queue.names.wait)).state.messages == 0


async def test_submit_retries_while_the_stream_has_no_leader(
    queue: Queue,
) -> None:
    """While a cluster elects a leader, no server answers for the stream."""
    await queue.js.delete_stream(queue.names.wait)
    submitting = asyncio.create_task(queue.submit(["a", "b"]))
    await asyncio.sleep(0.1)
    assert not submitting.done()
    await queue.ensure()
    assert await submitting == ["a", "b"]


def servers_in(directory: Path) -> list[int]:
    """Return the process ids of the servers that use a directory."""
    found: list[int] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(directory / "nats.conf") in (process / "cmdline").read_text():
                found.append(int(process.name))
        except OSError:
            continue
    return found
