"""The private server belongs to one user, and its clients are not taken over by another server."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import nats.errors
import pytest
from nats.aio.client import Client

from luma_async import QueueError
from luma_async.testing import FakeRelay
from luma_async.worker import (
    Queue,
)
from luma_async.worker.server import connection, server_process
from luma_async.worker.server.embedded_server import EmbeddedServer
from tests.worker.nats_server import NatsServer
from tests.worker.test_embedded_server import WorkerIn
from tests.worker.test_queue import servers_in
from tests.worker.worker_processes import until


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    (home := tmp_path / "data").mkdir()
    home.chmod(mode)
    with pytest.raises(QueueError, match="chmod go-w"):
        EmbeddedServer(home).join()
    assert list(home.iterdir()) == []


def test_a_directory_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(QueueError, match="belongs to another user; give another directory"):
        EmbeddedServer(tmp_path).join()
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_others_may_read_is_accepted(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    one = EmbeddedServer(tmp_path)
    one.join()
    one.leave()
    assert stat.S_IMODE((tmp_path / "nkey").stat().st_mode) == 0o600


def test_the_server_gets_path_and_home_of_the_environment_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUMA_API_KEY", "sk-secret")
    one = EmbeddedServer(tmp_path)
    one.join()
    (server,) = servers_in(tmp_path)
    environment = Path(f"/proc/{server}/environ").read_bytes().split(b"\0")
    one.leave()
    names = {line.partition(b"=")[0] for line in environment if line}
    assert names <= {b"PATH", b"HOME"}


async def test_a_client_without_the_seed_is_refused(tmp_path: Path) -> None:
    one = EmbeddedServer(tmp_path)
    url = one.join()
    client = Client()
    with pytest.raises(nats.errors.Error, match="(?i)authorization"):
        await client.connect(url, allow_reconnect=False, error_cb=ignore)
    with suppress(AssertionError):
        await client.close()
    one.leave()


async def ignore(_: Exception) -> None:
    return None


def test_a_seed_that_is_damaged_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "nkey").write_text("SUnonsense")
    with pytest.raises(QueueError, match="nkey is not a seed; remove it"):
        EmbeddedServer(tmp_path).join()


OLD_KEY = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
START_OLD_SERVER = f"""
import os, sys
from luma_async.worker.server import server_process
from luma_async.worker.server.embedded_server import EmbeddedServer
server_process.public_key = lambda directory: "{OLD_KEY}"
EmbeddedServer(sys.argv[1]).join()
os._exit(0)
"""


def test_a_server_that_an_older_version_left_behind_is_replaced(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", START_OLD_SERVER, tmp_path], check=True)
    (left_behind,) = servers_in(tmp_path)
    new = EmbeddedServer(tmp_path)
    new.join()
    assert left_behind not in servers_in(tmp_path)
    new.leave()
    assert servers_in(tmp_path) == []


def test_a_server_that_an_older_version_uses_is_not_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def old_key(_: Path) -> str:
        return OLD_KEY

    old = EmbeddedServer(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(server_process, "public_key", old_key)
        old.join()
    with pytest.raises(QueueError, match="an older version uses.*stop its processes"):
        EmbeddedServer(tmp_path).join()
    assert len(servers_in(tmp_path)) == 1
    old.leave()


async def test_a_worker_whose_port_was_taken_by_another_server_starts_its_own(
    tmp_path: Path, relay: FakeRelay, caplog: pytest.LogCaptureFixture
) -> None:
    home = tmp_path / "data"
    async with WorkerIn(relay, home) as worker, Queue(data=home) as queue:
        await queue.submit(relay.add(duration=0.0))
        await until(lambda: sum(worker.work.ends.values()) == 1)
        url = queue.client.connected_url
        assert url is not None
        assert url.port is not None
        (server,) = servers_in(home)
        os.kill(server, signal.SIGKILL)
        with NatsServer(tmp_path / "other", url.port) as other:
            assert port_of(other.url) == url.port
            await until(lambda: queue.is_connected and worker.is_well)
            await queue.submit(task_id := relay.add(duration=0.0))
            assert (await queue.wait_submitted(task_id, timeout=20)).url
            now = queue.client.connected_url
            assert now is not None
            assert now.port != url.port


async def test_a_client_that_reconnected_to_another_server_leaves_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process takes the port between the check and the connection."""

    async def skip(*_: object) -> None:
        return None

    home = tmp_path / "data"
    with NatsServer(tmp_path / "other") as other:
        async with Queue(data=home) as queue:
            queue.client.set_server_pool([other.url])
            with monkeypatch.context() as patch:
                patch.setattr(connection.Connection, "_use_own_server", skip)
                await queue.client.force_reconnect()
                await until(lambda: queue.client.stats["reconnects"] == 1)
            await until(lambda: queue.client.stats["reconnects"] >= 2)
            await until(lambda: queue.client.is_connected)
            assert await asyncio.wait_for(queue.submit("a"), 20) == ["a"]
            url = queue.client.connected_url
            assert url is not None
            assert EmbeddedServer(home).is_ours(url.port or 0)
    assert "another server uses the port" in caplog.text
