"""The private server of a directory: real processes."""

import asyncio
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from luma_async import Every, LumaSession, QueueError
from luma_async.testing import FakeRelay
from luma_async.worker import EndState, Queue, Worker, submit, wait_submitted
from luma_async.worker import embedded_server as embedded
from luma_async.worker.embedded_server import EmbeddedServer
from tests.worker.test_queue import servers_in
from tests.worker.worker_processes import until

JOIN_AND_EXIT = """
import os, sys
from pathlib import Path
from luma_async.worker.embedded_server import EmbeddedServer
EmbeddedServer(Path(sys.argv[1])).join()
os._exit(0)
"""


def kill(directory: Path) -> int:
    """Kill the server of a directory, and wait until it is no more."""
    (server,) = servers_in(directory)
    os.kill(server, signal.SIGKILL)
    while servers_in(directory):
        time.sleep(0.001)
    return server


def bind(to: socket.socket, port: int) -> None:
    """Take a port as soon as the kernel has taken it from whoever was killed."""
    while True:
        try:
            return to.bind(("127.0.0.1", port))
        except OSError:
            time.sleep(0.001)


def nothing(*_: object, **__: object) -> None:
    return None


def test_the_first_user_starts_it_and_the_last_one_stops_it(tmp_path: Path) -> None:
    first, second = EmbeddedServer(tmp_path), EmbeddedServer(tmp_path)
    url = first.join()
    assert second.join() == url
    assert len(servers_in(tmp_path)) == 1
    first.leave()
    assert len(servers_in(tmp_path)) == 1
    second.leave()
    second.leave()
    assert servers_in(tmp_path) == []


def test_one_that_was_killed_is_started_again_where_it_was(tmp_path: Path) -> None:
    one = EmbeddedServer(tmp_path)
    url = one.join()
    killed = kill(tmp_path)
    assert one.join() == url
    assert servers_in(tmp_path) != [killed]
    one.leave()
    assert servers_in(tmp_path) == []


def test_one_whose_starter_is_gone_is_found_and_stopped_in_the_end(tmp_path: Path) -> None:
    """The starter died before it could note anything: all that is known is in the server's file."""
    subprocess.run([sys.executable, "-c", JOIN_AND_EXIT, tmp_path], check=True)
    assert len(servers_in(tmp_path)) == 1
    heir = EmbeddedServer(tmp_path)
    heir.join()
    assert len(servers_in(tmp_path)) == 1
    heir.leave()
    assert servers_in(tmp_path) == []


def test_a_port_that_is_taken_is_left_to_whoever_has_it(tmp_path: Path) -> None:
    one = EmbeddedServer(tmp_path)
    url = one.join()
    kill(tmp_path)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bind(taken, int(url.rpartition(":")[2]))
        taken.listen()
        assert one.join() != url
    one.leave()


def test_a_worker_is_alone_until_there_is_another_and_again_after_it(tmp_path: Path) -> None:
    first, second, third = (
        EmbeddedServer(tmp_path),
        EmbeddedServer(tmp_path),
        EmbeddedServer(tmp_path),
    )
    for one in (first, second, third):
        one.join()
    assert first.work()
    assert not second.work()
    first.leave()
    second.leave()
    assert third.work()
    third.leave()


def test_its_files_are_for_its_owner_alone_and_its_token_is_nowhere_else(tmp_path: Path) -> None:
    home = tmp_path / "new" / "data"
    one = EmbeddedServer(home)
    url = one.join()
    try:
        token = (home / "token").read_text()
        assert token in url
        assert token not in repr(one)
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        for name in ("token", "nats.conf"):
            assert stat.S_IMODE((home / name).stat().st_mode) == 0o600
        (server,) = servers_in(home)
        assert token not in Path(f"/proc/{server}/cmdline").read_text()
    finally:
        one.leave()


def test_an_older_server_does_without_what_it_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = embedded.server_binary()
    old = tmp_path / "nats-server"
    old.write_text(
        f'#!/bin/sh\nif grep -q sync_interval "$2"; then\n'
        f'  echo "nats-server: nats.conf:7:49: unknown field \\"sync_interval\\"" >&2; exit 1\n'
        f'fi\nexec {real} "$@"\n'
    )
    old.chmod(0o755)
    monkeypatch.setattr(embedded, "server_binary", lambda: str(old))
    one = EmbeddedServer(tmp_path / "data")
    one.join()
    one.leave()
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "install 2.10 or newer" in caplog.text


@pytest.mark.parametrize("name", ["dätä", "emoji😀", 'a "quote"', "back\\slash", "# $HOME"])
def test_a_directory_may_have_any_name(tmp_path: Path, name: str) -> None:
    one = EmbeddedServer(tmp_path / name)
    one.join()
    assert len(servers_in(tmp_path / name)) == 1
    one.leave()
    assert servers_in(tmp_path / name) == []


def test_where_there_is_no_server_to_start_the_remedy_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", nothing)
    one = EmbeddedServer(tmp_path)
    with pytest.raises(QueueError, match=r"pip install 'luma-async\[embedded\]'.*by nats"):
        one.join()
    one.leave()


def test_a_server_that_does_not_start_is_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "nats-server"
    broken.write_text('#!/bin/sh\necho "no room at all" >&2\nexit 1\n')
    broken.chmod(0o755)
    monkeypatch.setattr(embedded, "server_binary", lambda: str(broken))
    one = EmbeddedServer(tmp_path / "data")
    with pytest.raises(QueueError, match="no room at all.*name a server by nats"):
        one.join()
    one.leave()


def test_a_directory_that_cannot_be_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(QueueError, match="give another directory"):
        EmbeddedServer(tmp_path / "file").join()


async def test_what_is_submitted_before_there_is_a_worker_waits_on_the_disk(
    tmp_path: Path, relay: FakeRelay
) -> None:
    await submit(task_id := relay.add(duration=0.0), data=tmp_path)
    assert servers_in(tmp_path) == []
    async with working(relay, tmp_path):
        assert (await wait_submitted(task_id, data=tmp_path, timeout=20)).url


async def test_ends_are_kept_while_the_server_is_away_and_told_when_it_is_back(
    tmp_path: Path,
    relay: FakeRelay,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is stopped, and killed, and found again by whoever uses it."""
    caplog.set_level(logging.WARNING, "luma_async")
    monkeypatch.setattr("luma_async.worker.publisher.ACK_TIMEOUT", 1.0)
    monkeypatch.setattr("luma_async.worker.result_reader.HEARTBEAT", 1)
    async with working(relay, tmp_path) as worker, Queue(data=tmp_path) as queue:
        await queue.submit(ids := [relay.add(duration=0.5) for _ in range(20)])
        waiting = asyncio.create_task(queue.wait_submitted(ids, timeout=20))
        await until(lambda: worker.work.held == 20)
        (server,) = servers_in(tmp_path)
        os.kill(server, signal.SIGSTOP)
        await until(lambda: worker.work.untold == 20)
        os.kill(server, signal.SIGKILL)
        assert len(await waiting) == 20
        await until(lambda: worker.work.held == 0)
    assert "the NATS server is away" in caplog.text
    assert "the NATS server is back" in caplog.text
    assert "token" not in caplog.text
    assert servers_in(tmp_path) == []


async def test_a_server_that_paused_for_two_seconds_is_heard_again(
    tmp_path: Path, relay: FakeRelay
) -> None:
    """The answers that come late are no reason to go deaf."""
    async with working(relay, tmp_path) as worker, Queue(data=tmp_path) as queue:
        await queue.submit(relay.add(duration=0.0))
        await until(lambda: worker.work.ends[EndState.COMPLETED] == 1)
        (server,) = servers_in(tmp_path)
        os.kill(server, signal.SIGSTOP)
        await asyncio.sleep(2.0)
        os.kill(server, signal.SIGCONT)
        await queue.submit(task_id := relay.add(duration=0.0))
        assert (await queue.wait_submitted(task_id, timeout=20)).url


async def test_whoever_asks_a_silent_server_waits_until_it_answers(
    tmp_path: Path, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while a cluster elects a leader, who submits or reads asks again."""
    async with working(relay, tmp_path), Queue(data=tmp_path) as queue:
        await queue.submit(told := relay.add(duration=0.0))
        await queue.wait_submitted(told, timeout=20)
        (server,) = servers_in(tmp_path)
        # Only from now on: a busy disk makes streams more slowly than this.
        monkeypatch.setattr(queue.js, "_timeout", 0.1)
        os.kill(server, signal.SIGSTOP)
        waiting = asyncio.create_task(queue.wait_submitted(told, timeout=20))
        submitting = asyncio.create_task(queue.submit(late := relay.add(duration=0.0)))
        try:
            await asyncio.sleep(0.5)
            with pytest.raises(QueueError, match="try again"):
                await queue.wait_submitted(told, timeout=0)
            assert not waiting.done()
            assert not submitting.done()
        finally:
            monkeypatch.setattr(queue.js, "_timeout", 5.0)
            os.kill(server, signal.SIGCONT)
        assert (await waiting).url
        await submitting
        assert (await queue.wait_submitted(late, timeout=20)).url


async def test_a_second_worker_in_a_directory_takes_nothing_from_the_first(
    tmp_path: Path, relay: FakeRelay
) -> None:
    async with working(relay, tmp_path) as first, Queue(data=tmp_path) as queue:
        await queue.submit([relay.add(duration=100) for _ in range(5)])
        await until(lambda: first.work.held == 5)
        async with working(relay, tmp_path) as second:
            await until(lambda: second.is_well and second.work.peers == 1)
            await asyncio.sleep(0.3)
            assert (first.work.taken, second.work.taken) == (5, 0)
        assert first.work.held == 5


def test_two_workers_of_one_process_are_counted_as_long_as_both_are_there(tmp_path: Path) -> None:
    one, other = EmbeddedServer(tmp_path), EmbeddedServer(tmp_path)
    one.join()
    other.join()
    assert one.work()
    assert not one.work()
    one.leave()
    assert other.work()
    other.leave()


def test_servers_that_others_stopped_leave_no_zombie(tmp_path: Path) -> None:
    starter, other = EmbeddedServer(tmp_path), EmbeddedServer(tmp_path)
    starter.join()
    (server,) = servers_in(tmp_path)
    other.join()
    starter.leave()
    os.kill(server, signal.SIGTERM)
    while servers_in(tmp_path):
        time.sleep(0.001)
    other.join()
    other.leave()
    assert not Path(f"/proc/{server}").exists()


class working:  # noqa: N801 - a context manager, as a word
    """A worker in a directory, for as long as the block lasts."""

    def __init__(self, relay: FakeRelay, directory: Path) -> None:
        self._luma = LumaSession(relay.url, api_key=relay.api_key, pace=Every(0.05))
        self._queue = Queue(data=directory)

    async def __aenter__(self) -> Worker:
        await self._luma.__aenter__()
        try:
            await self._queue.__aenter__()
        except BaseException:
            await self._luma.close()
            raise
        self._worker = Worker(self._luma, self._queue)
        self._task = asyncio.create_task(self._worker.run())
        return self._worker

    async def __aexit__(self, *_: Any) -> None:
        self._worker.stop()
        await self._task
        await self._queue.close()
        await self._luma.close()
