"""What a NATS server refuses is reported as it is, at once."""

import asyncio
import json
from contextlib import suppress
from pathlib import Path

import pytest
from nats.aio.client import Client

from luma_async import QueueError
from luma_async.worker import (
    Queue,
)
from luma_async.worker.server import connection, server_errors, stream_info
from luma_async.worker.server.server_errors import Denials
from tests.worker.nats_server import NatsServer
from tests.worker.worker_processes import until

USER = "authorization {{ users: [ {{ user: u, password: p, permissions: {{ {} }} }} ] }}"
PUBLISH = 'publish: {{ deny: ["{}"] }}, subscribe: {{ allow: [">"] }}'


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the time for which an answer is awaited."""
    monkeypatch.setattr(connection, "CONNECT_TIMEOUT", 1.0)
    monkeypatch.setattr(connection, "REQUEST_TIMEOUT", 0.3)
    monkeypatch.setattr(stream_info, "REQUEST_TIMEOUT", 0.3)


def with_user(url: str) -> str:
    return url.replace("nats://", "nats://u:p@")


async def test_a_server_with_too_many_connections_is_reported(tmp_path: Path) -> None:
    with NatsServer(tmp_path, -1, "max_connections: 1") as server:
        async with Queue(server.url):
            with pytest.raises(QueueError, match="maximum connections exceeded.*raise the limit"):
                async with Queue(server.url):
                    pass


async def test_a_denied_jetstream_is_not_reported_as_switched_off(tmp_path: Path) -> None:
    permissions = PUBLISH.format("$JS.API.>")
    with NatsServer(tmp_path, -1, USER.format(permissions)) as server:
        with pytest.raises(QueueError, match="denies it: permissions violation.*js.api") as caught:
            async with Queue(with_user(server.url)):
                pass
    assert "switch it on" not in str(caught.value)


async def test_a_denied_submission_is_reported_at_once(tmp_path: Path) -> None:
    permissions = PUBLISH.format("luma.wait.>")
    with NatsServer(tmp_path, -1, USER.format(permissions)) as server:
        async with Queue(with_user(server.url)) as queue:
            with pytest.raises(QueueError, match='violation.*"luma.wait.a"; allow it') as caught:
                await queue.submit(["a"])
    assert caught.value.pending == ("a",)


async def test_a_wait_whose_reader_is_denied_raises_an_error(tmp_path: Path) -> None:
    permissions = PUBLISH.format("$JS.API.CONSUMER.>")
    with NatsServer(tmp_path, -1, USER.format(permissions)) as server:
        async with Queue(with_user(server.url)) as queue:
            await queue.submit(["a"])
            with pytest.raises(QueueError, match="denies it"):
                await queue.wait_submitted(["a"], timeout=20)


def test_a_denial_explains_requests_for_a_few_seconds_only(monkeypatch: pytest.MonkeyPatch) -> None:
    denials = Denials("luma.workers")
    denials.record("nats: timeout")
    denials.record('nats: Permissions Violation for Publish to "luma.workers"')
    assert denials.error() is None
    denials.record('nats: Permissions Violation for Publish to "luma.wait.a"')
    assert str(denials.error()).endswith('"luma.wait.a"; allow it for this user')
    monkeypatch.setattr(server_errors, "DENIED_FOR", -1.0)
    assert denials.error() is None


async def test_a_server_that_refuses_to_reconnect_is_quoted_once(
    tmp_path: Path, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    info = json.dumps({"server_id": "x", "version": "2.12.0", "max_payload": 2**20, "proto": 1})
    refused = 0

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal refused
        refused += 1
        writer.write(f"INFO {info}\r\n-ERR 'maximum connections exceeded'\r\n".encode())
        await writer.drain()
        writer.close()

    with NatsServer(tmp_path, port) as server:
        queue = Queue(server.url)
        await queue.__aenter__()
    try:
        async with await asyncio.start_server(refuse, "127.0.0.1", port):
            await until(lambda: "maximum connections exceeded" in caplog.text)
            seen = refused
            await until(lambda: refused > seen + 4)
    finally:
        await queue.__aexit__()
    quoted = [line for line in caplog.messages if "maximum connections exceeded" in line]
    assert quoted == [
        "NATS refuses the connection: maximum connections exceeded; "
        "raise the limit of the server, or close other clients"
    ]


async def test_a_reconnection_that_swallows_a_cancellation_ends_with_the_queue() -> None:
    async def reconnect() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        await asyncio.sleep(3600)

    class Reconnecting(Client):
        async def close(self) -> None:
            await asyncio.sleep(0)
            task.cancel()

    client = Reconnecting()
    task = vars(client)["_reconnection_task"] = asyncio.create_task(reconnect())
    async with asyncio.timeout(20):
        await connection.close_client(client)
    assert task.cancelled()
