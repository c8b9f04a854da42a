"""What a NATS server refuses is reported as it is, at once."""

from pathlib import Path

import pytest

from luma_async import QueueError
from luma_async.worker import (
    Queue,
)
from luma_async.worker.server import connection, server_errors, stream_info
from luma_async.worker.server.server_errors import Denials
from tests.worker.nats_server import NatsServer

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
