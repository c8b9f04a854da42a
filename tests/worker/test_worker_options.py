"""`luma-async worker`: SIGHUP, and one budget for two processes."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from luma_async.testing import FakeRelay
from luma_async.worker import Queue, submit
from tests.worker.test_commands import start_command, wait_until_leased
from tests.worker.test_queue import servers_in

__all__ = ["start_command"]


async def test_a_closed_terminal_stops_a_worker_as_sigterm_does(
    tmp_path: Path, relay: FakeRelay, start_command: Any
) -> None:
    worker = start_command(
        "worker", "--base-url", relay.url, "--data", str(tmp_path), key=relay.api_key
    )
    await submit(relay.add(ends="never"), data=tmp_path)
    async with Queue(data=tmp_path) as queue:
        await wait_until_leased(queue, 1)
    code, _, err = await worker.stop(signal.SIGHUP)
    assert (code, "worker stopped" in err) == (0, True)
    assert servers_in(tmp_path) == []


async def test_an_ignored_sighup_stays_ignored(tmp_path: Path, relay: FakeRelay) -> None:
    """As with nohup."""
    command = [sys.executable, "-m", "luma_async", "worker", "--base-url", relay.url]
    worker = subprocess.Popen(  # noqa: ASYNC220
        ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *command, "--data", str(tmp_path)],
        stderr=subprocess.PIPE,
        env=os.environ | {"LUMA_API_KEY": relay.api_key},
    )
    try:
        await submit(relay.add(ends="never"), data=tmp_path)
        async with Queue(data=tmp_path) as queue:
            await wait_until_leased(queue, 1)
            worker.send_signal(signal.SIGHUP)
            await asyncio.sleep(0.3)
            assert worker.poll() is None
    finally:
        worker.terminate()
        await asyncio.to_thread(worker.communicate)
    assert worker.returncode == 0


@pytest.mark.parametrize("rate", [10])
async def test_two_workers_that_share_a_budget_send_no_more_than_its_total(
    queue: Queue, server: str, pool: str, relay: FakeRelay, start_command: Any, rate: int
) -> None:
    await queue.submit([relay.add(duration=1000) for _ in range(600)])
    for _ in range(2):
        start_command(
            "worker", "--base-url", relay.url, "--nats", server, "--pool", pool,
            "--interval", "0.2", "--max-batch", "10", "--share-budget", "--max-rate", str(rate),
            key=relay.api_key,
        )  # fmt: skip
    async with asyncio.timeout(30):
        while relay.requests < 25:  # noqa: ASYNC110 - other processes
            await asyncio.sleep(0.05)
    assert relay.busiest_second() <= rate
