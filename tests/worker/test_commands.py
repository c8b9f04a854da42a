"""The commands `worker`, `submit` and `results`."""

import asyncio
import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import anyio.from_thread
import pytest

from luma_async.cli import main
from luma_async.cli.commands.queue import since
from luma_async.testing import FakeRelay
from luma_async.worker import Queue, submit, wait_submitted
from tests.worker.test_queue import servers_in
from tests.worker.worker_processes import RunningWorker

COMMAND = [sys.executable, "-m", "luma_async"]


class Process:
    """A command that runs as a process. Its output is read when it has ended."""

    def __init__(self, *arguments: str, key: str = "sk-test", **environment: str) -> None:
        settings = {"LUMA_API_KEY": key, "PYTHONUNBUFFERED": "1", **environment}
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            env=os.environ | settings,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    async def wait(self, seconds: float = 20.0) -> tuple[int, str, str]:
        """Wait until it ends; return its exit code, standard output and standard error."""
        out, err = await asyncio.to_thread(self.process.communicate, timeout=seconds)
        return self.process.returncode, out, err

    async def stop(self, sign: int = signal.SIGTERM) -> tuple[int, str, str]:
        """Send a signal, and wait until it ends."""
        self.process.send_signal(sign)
        return await self.wait()


@pytest.fixture
def start_command() -> Iterator[Any]:
    """Yield a function that starts a command. All are killed after the test."""
    processes: list[Process] = []

    def start(*arguments: str, **options: str) -> Process:
        processes.append(Process(*arguments, **options))
        return processes[-1]

    yield start
    for command in processes:
        command.process.kill()
        command.process.communicate()


async def wait_until_leased(queue: Queue, count: int) -> None:
    """Wait until so many ids are leased to workers."""
    async with asyncio.timeout(20):
        while True:
            try:
                info = await queue.js.consumer_info(queue.names.wait, queue.names.consumer)
                if info.num_ack_pending == count:
                    return
            except Exception:
                pass
            await asyncio.sleep(0.02)


async def test_a_worker_stores_results_serves_metrics_and_returns_open_ids_at_sigterm(
    queue: Queue,
    server: str,
    pool: str,
    relay: FakeRelay,
    start_command: Any,
    workers: Any,
    port: str,
) -> None:
    quick, slow = relay.add(duration=0.0), relay.add(duration=100)
    worker = start_command(
        "worker", "--base-url", relay.url, "--nats", server, "--pool", pool, "--interval", "0.1",
        "--metrics", port, key=relay.api_key,
    )  # fmt: skip
    await queue.submit([quick, slow])
    assert (await queue.wait_submitted(quick, timeout=20)).url
    await wait_until_leased(queue, 1)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
        async with http.get("/healthz") as response:
            assert (response.status, await response.text()) == (200, "ok\n")
        async with http.get("/metrics") as response:
            text = await response.text()
    metrics = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert metrics['luma_ends_total{state="completed"}'] == "1.0"
    assert metrics["luma_open"] == metrics["luma_held"] == "1.0"
    assert float(metrics["luma_requests_total"]) >= 1
    assert float(metrics["luma_oldest_seconds"]) > 0
    others = {"luma_throttled_total", "luma_redelivered_total", 'luma_lag_seconds_bucket{le="1.0"}'}
    assert others < set(metrics)
    code, out, err = await worker.stop()
    assert (code, out) == (0, "")
    assert "worker started" in err
    assert "results: 1 completed" in err
    assert relay.api_key not in err
    other: RunningWorker = await workers.start()
    await other.holds(1)


async def test_a_rejected_key_is_exit_code_3_and_all_ids_are_returned(
    queue: Queue, server: str, pool: str, relay: FakeRelay, start_command: Any, workers: Any
) -> None:
    await queue.submit(task_id := relay.add(duration=0.0))
    code, _, err = await start_command(
        "worker", "--base-url", relay.url, "--nats", server, "--pool", pool, key="sk-wrong"
    ).wait()
    assert code == 3
    assert "give a good key" in err.strip().splitlines()[-1]
    assert "Traceback" not in err
    await workers.start()
    assert (await queue.wait_submitted(task_id, timeout=20)).url


async def test_a_worker_killed_and_started_again_in_its_directory_continues_at_once(
    tmp_path: Path, relay: FakeRelay, start_command: Any
) -> None:
    """A lease is a minute: ids polled sooner were taken from the dead worker."""
    arguments = ("worker", "--base-url", relay.url, "--data", str(tmp_path), "--interval", "0.2")
    first = start_command(*arguments, key=relay.api_key)
    await submit(ids := [relay.add(ends="never") for _ in range(20)], data=tmp_path)
    async with Queue(data=tmp_path) as queue:
        await wait_until_leased(queue, 20)
    await first.stop(signal.SIGKILL)
    for server in servers_in(tmp_path):
        os.kill(server, signal.SIGKILL)
    requests = relay.requests
    second = start_command(*arguments, key=relay.api_key)
    async with asyncio.timeout(20):
        while relay.requests == requests:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.01)
    for task_id in ids:
        relay.finish(task_id)
    done = await wait_submitted(ids, data=tmp_path, timeout=20)
    assert len(done) == 20
    code, _, err = await second.stop(signal.SIGINT)
    assert code == 0, err
    assert servers_in(tmp_path) == []


async def test_sigterm_while_results_are_read_leaves_no_server_running(
    tmp_path: Path, start_command: Any
) -> None:
    reader = start_command("results", "--data", str(tmp_path))
    async with asyncio.timeout(20):
        while not servers_in(tmp_path):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)
    code, _, err = await reader.stop()
    assert code == 143, err
    assert servers_in(tmp_path) == []


@pytest.fixture
def threaded_relay() -> Iterator[FakeRelay]:
    """Yield a relay that runs in another thread, for a command that runs in this one."""
    relay = FakeRelay()
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(relay),
    ):
        yield relay


def run_worker(
    relay: FakeRelay, server: str, pool: str, *options: str, stop_at: Callable[[], bool]
) -> int:
    """Run the command in this process; send SIGTERM when `stop_at` returns true."""
    ended = threading.Event()

    def stop() -> None:
        latest = time.monotonic() + 60.0
        while not ended.wait(0.02):
            if stop_at() or time.monotonic() > latest:
                os.kill(os.getpid(), signal.SIGTERM)
                break

    stopping = threading.Thread(target=stop)
    stopping.start()
    where = ["--base-url", relay.url, "--nats", server, "--pool", pool, "--interval", "0.1"]
    try:
        return main(["worker", *where, *options])
    finally:
        ended.set()
        stopping.join()


def test_a_worker_in_this_process_ends_at_sigterm(
    server: str,
    pool: str,
    threaded_relay: FakeRelay,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    port: str,
) -> None:
    monkeypatch.setattr("luma_async.cli.commands.worker.REPORT_EVERY", 0.3)
    (tmp_path / "key").write_text(f"{threaded_relay.api_key}\n")
    caplog.set_level(logging.INFO, "luma_async")
    assert main(["submit", threaded_relay.add(duration=0.0), "--nats", server, "--pool", pool]) == 0
    options = ["--api-key-file", str(tmp_path / "key"), "--metrics", port]

    def reported_twice() -> bool:
        return caplog.text.count("results: 1 completed") == 2

    assert run_worker(threaded_relay, server, pool, *options, stop_at=reported_twice) == 0
    messages = [record.getMessage() for record in caplog.records if record.name == "luma_async"]
    assert messages[0].startswith("worker started")
    assert messages[-1] == "worker stopped: 0 held, 0 other workers; results: 1 completed"
    assert len(messages) >= 4
    assert threaded_relay.api_key not in caplog.text


def test_a_worker_in_this_process_whose_key_is_rejected_returns_3(
    server: str,
    pool: str,
    threaded_relay: FakeRelay,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("LUMA_API_KEY", "sk-wrong")
    assert main(["submit", "a", "--nats", server, "--pool", pool]) == 0
    assert run_worker(threaded_relay, server, pool, stop_at=lambda: False) == 3
    assert "give a good key (LUMA_API_KEY)" in caplog.text


def test_ids_are_submitted_from_arguments_and_from_a_pipe(
    server: str, pool: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ["--nats", server, "--pool", pool]
    assert main(["submit", "a", "b", "a", *where]) == 0
    reading, writing = os.pipe()
    os.write(writing, b"\xef\xbb\xbfb\r\n\n c \nd")
    os.close(writing)
    with open(reading, "rb") as pipe:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(pipe))
        assert main(["submit", "-", *where]) == 0
    assert capsys.readouterr().out == "2 new, 0 waiting already\n2 new, 1 waiting already\n"


async def test_an_id_from_an_open_pipe_is_stored_at_once(
    queue: Queue, server: str, pool: str, start_command: Any
) -> None:
    one = start_command("submit", "-", "--nats", server, "--pool", pool)
    one.process.stdin.write("first\n")
    one.process.stdin.flush()
    async with asyncio.timeout(20):
        while not (await queue.js.stream_info(queue.names.wait)).state.messages:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    one.process.stdin.close()
    one.process.stdin = None
    assert (await one.wait())[:2] == (0, "1 new, 0 waiting already\n")


async def test_sigterm_does_not_wait_for_a_silent_pipe(
    queue: Queue, server: str, pool: str, start_command: Any
) -> None:
    one = start_command("submit", "first", "-", "--nats", server, "--pool", pool)
    async with asyncio.timeout(20):
        while not (await queue.js.stream_info(queue.names.wait)).state.messages:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    one.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(one.process.wait, 5) == 143


async def test_results_are_printed_as_json_lines(
    queue: Queue, server: str, pool: str, relay: FakeRelay, workers: Any, start_command: Any
) -> None:
    await workers.start()
    await queue.submit(ids := [relay.add(duration=0.0), "unknown"])
    code, out, err = await start_command("results", *ids, "--nats", server, "--pool", pool).wait()
    assert code == 0, err
    ends = {end["id"]: end for end in map(json.loads, out.splitlines())}
    assert ends[ids[0]]["generation"]["video"]["url"]
    assert ends["unknown"]["state"] == "missing"
    some = ("--csv", "--fields", "id,state,failure_reason", "--nats", server, "--pool", pool)
    code, out, err = await start_command("results", *ids, *some).wait()
    assert code == 0, err
    header, *rows = out.splitlines()
    assert header == "id,state,failure_reason"
    assert set(rows) == {f"{ids[0]},completed,", "unknown,missing,"}


async def test_control_characters_in_results_are_escaped(
    queue: Queue, server: str, pool: str, relay: FakeRelay, workers: Any, start_command: Any
) -> None:
    await workers.start()
    evil = "no\x1b[31m\x9b\u202e"
    await queue.submit([task_id := relay.add(ends="failed", failure_reason=evil)])
    code, out, err = await start_command(
        "results", task_id, "--nats", server, "--pool", pool
    ).wait()
    assert code == 0, err
    assert out[:-1].isprintable()
    assert json.loads(out)["generation"]["failure_reason"] == evil


def test_a_closed_standard_output_is_not_an_error(
    server: str, pool: str, start_command: Any, tmp_path: Path
) -> None:
    one = start_command("submit", "a", "--nats", server, "--pool", pool)
    one.process.stdout.close()
    one.process.stdout = None
    assert one.process.wait(20) in (0, 120)


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["submit", "a", "--nats", "nats://127.0.0.1:1"], "start it or name another"),
        (["submit", "a", "--nats", "nats://tok@host:abc"], "name another"),
        (["submit", "a", "--data", ""], "give a directory"),
        (["submit", "a", "--pool", "a.b"], "letters, digits, - and _"),
        (["results", "--nats", "nats://127.0.0.1:1"], "start it or name another"),
        (["worker", "--nats", "nats://127.0.0.1:1", "--base-url", "http://r"], "name another"),
        (["worker", "--nats", "nats://127.0.0.1:1"], "set LUMA_BASE_URL"),
        (["worker", "--api-key-file", "/nowhere/key", "--base-url", "http://r"], "/nowhere/key'"),
    ],
)
def test_an_unusable_command_is_exit_code_2_and_its_message_ends_with_the_remedy(
    arguments: list[str],
    remedy: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("luma_async.worker.server.connection.CONNECT_TIMEOUT", 0.3)
    monkeypatch.setenv("LUMA_API_KEY", "sk-s3cret")
    monkeypatch.delenv("LUMA_BASE_URL", raising=False)
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.strip().endswith(remedy)
    assert err.startswith("luma-async: ")
    assert "tok@" not in err
    assert "s3cret" not in err


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["--give-up", "soon"], "such as 90, 30m, 24h or 7d"),
        (["--give-up", "0"], "such as 90, 30m, 24h or 7d"),
        (["--metrics", "0"], "such as 9100, or an address such as 0.0.0.0:9100"),
        (["--capacity", "0"], "give a whole number from 1"),
        (["--max-rate", "nan"], "give a number above zero"),
        (["--nats", "nats://a", "--data", "b"], "not allowed with argument --nats"),
    ],
)
def test_an_invalid_option_is_rejected_with_a_remedy(
    arguments: list[str], remedy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["worker", *arguments])
    assert caught.value.code == 2
    assert remedy in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90.0), ("90s", 90.0), ("1.5m", 90.0), ("24h", 86_400.0), ("7D", 604_800.0)],
)
def test_a_duration_has_a_unit_or_is_in_seconds(text: str, seconds: float) -> None:
    from luma_async.cli.options.types import period

    assert period(text) == seconds


@pytest.mark.parametrize(
    ("text", "address"),
    [("9100", ("127.0.0.1", 9100)), ("0.0.0.0:80", ("0.0.0.0", 80)), ("[::]:80", ("::", 80))],
)
def test_an_address_without_a_host_is_on_loopback(text: str, address: tuple[str, int]) -> None:
    from luma_async.cli.options.types import address as parse_address

    assert parse_address(text) == address


def test_since_is_a_time_or_a_sequence() -> None:
    assert since("17") == 17
    moment = since("2026-11-21T12:00:00Z")
    assert not isinstance(moment, int)
    assert moment == since("2026-11-21T12:00:00") == since("2026-11-21T13:00:00+01:00")
    for invalid in ("yesterday", "9" * 20):
        with pytest.raises(ArgumentTypeError, match="give one such as"):
            since(invalid)
