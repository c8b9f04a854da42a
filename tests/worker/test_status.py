"""The status of a pool: what waits, who holds it, how many results a minute."""

import json
import os

import pytest

from luma_async.cli import main
from luma_async.cli.commands.status import table
from luma_async.testing import FakeRelay
from luma_async.worker import PoolStatus, Queue, WorkerStatus, pool_status, status
from tests.worker.worker_processes import WorkerPool, until

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def short_listening(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("luma_async.worker.balance.ANNOUNCE_EVERY", 0.1)
    monkeypatch.setattr("luma_async.worker.heartbeats.ANNOUNCE_EVERY", 0.1)
    monkeypatch.setattr(status, "LISTEN_FOR", 0.5)


async def test_a_pool_without_workers_has_waiting_ids_only(queue: Queue) -> None:
    assert (await pool_status(queue)).oldest == 0.0
    await queue.submit(["a", "b"])
    found = await pool_status(queue)
    assert (found.waiting, found.held, found.results, found.workers) == (2, 0, 0, [])
    assert 0.0 < found.oldest < 20.0


async def test_the_status_has_each_worker_with_its_ids_and_the_results_of_a_minute(
    queue: Queue, workers: WorkerPool, relay: FakeRelay
) -> None:
    first = await workers.start(capacity=30)
    second = await workers.start(capacity=20)
    await queue.submit([relay.add(duration=100) for _ in range(40)])
    await queue.submit(done := [relay.add(duration=0.0) for _ in range(5)])
    await queue.wait_submitted(done, timeout=20)
    await until(lambda: first.work.held + second.work.held == 40)
    found = await pool_status(queue)
    assert (found.waiting, found.held) == (0, 40)
    assert found.results_per_minute == found.results == 5
    assert sorted(one.capacity for one in found.workers) == [20, 30]
    assert sum(one.held for one in found.workers) == 40
    assert {one.pid for one in found.workers} == {os.getpid()}
    assert first.work.peers == 1, "the one who asks is no worker"


def test_the_command_prints_a_table_or_json(server: str, pool: str, capsys: Capture) -> None:
    where = ["worker", "--status", "--nats", server, "--pool", pool]
    assert main(where) == 0
    out = capsys.readouterr().out
    assert "waiting  0\n" in out
    assert "no worker runs; start one" in out
    assert main([*where, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pool"] == pool
    assert found["workers"] == []


def test_json_without_status_is_a_usage_error(capsys: Capture) -> None:
    assert main(["worker", "--json"]) == 2
    assert "--json is for --status; give both" in capsys.readouterr().err


def test_the_table_shows_where_each_worker_runs() -> None:
    one = WorkerStatus(name="ab12", host="host\x1b[1m", pid=42, held=1200, capacity=100_000)
    old = WorkerStatus(name="cd34", host="", pid=0, held=3, capacity=10)
    text = table(PoolStatus("luma", 7, 1203, 200.0, 35, 9000, [one, old]))
    assert "waiting  7\nheld     1,203\noldest   3 min 20 s\n" in text
    assert "results  35 in the last minute, 9,000 kept" in text
    assert "\x1b" not in text
    rows = [line.split() for line in text.splitlines()[-2:]]
    assert [row[1:] for row in rows] == [["1,200", "100,000"], ["3", "10"]]
    assert rows[1][0] == "cd34"
