"""Workers beside a coroutine per id in a task queue: requests, CPU, and what a kill -9 costs.

    python -m tests.bench.taskqueues [IDS]      # needs redis-server, and the extra "bench"

The same ids on the same relay, one worker process each. Halfway it is killed (kill -9) and started
again. All lease an id for 15 s.
"""

import asyncio
import os
import signal
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, Process
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import redis.asyncio

from tests.bench import coroutine_per_task as singly
from tests.bench.logging_relay import Play
from tests.bench.processes import (
    RelayProcess,
    ResultCounter,
    cpu_seconds,
    free_port,
    megabytes,
    nats,
    queue_at,
    relay_process,
)

IDS = 2_000
PATIENCE = 120.0


@dataclass
class Row:
    """What an engine came to."""

    engine: str
    requests: int = 0
    busiest: int = 0
    cpu: float = 0.0
    memory: float = 0.0
    lost: int = 0
    twice: int = 0
    seconds: float = 0.0


async def run(
    row: Row,
    relay: RelayProcess,
    start: Callable[[], Awaitable[Process]],
    results: Callable[[], Awaitable[Any]],
) -> Row:
    """Run a worker, kill it, run it again until each id was reported or the time is over."""
    first = await start()
    await asyncio.sleep(12)
    row.memory, row.cpu = tree(first.pid, megabytes), tree(first.pid, cpu_seconds)
    killed(first.pid)
    await first.wait()
    killed_at = time.monotonic()
    second = await start()
    counted: Counter[str] = Counter()
    while time.monotonic() - killed_at < PATIENCE:
        counted = Counter(await results())
        if len(counted) == len(relay.ids):
            break
        await asyncio.sleep(0.5)
    row.seconds = time.monotonic() - killed_at
    row.cpu += tree(second.pid, cpu_seconds)
    killed(second.pid)
    await second.wait()
    seen = await relay.since(0.0)
    row.requests, row.busiest = seen["requests"], seen["busiest"]
    row.lost = len(set(relay.ids) - set(counted))
    row.twice = counted.total() - len(counted)
    return row


def children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(child) for child in file.read().split()]


def tree(pid: int, figure: Callable[[int], float]) -> float:
    """Add up a figure of a process and its children."""
    return figure(pid) + sum(tree(child, figure) for child in children(pid))


def killed(pid: int) -> None:
    for child in children(pid):
        killed(child)
    os.kill(pid, signal.SIGKILL)


async def ours(relay: RelayProcess) -> Row:
    async with nats() as servers, queue_at(servers) as queue:
        await queue.submit(relay.ids)
        counter = ResultCounter(queue)
        command = ("worker", "--nats", servers.url, "--base-url", relay.url, "--ack-wait", "15")

        async def start() -> Process:
            return await asyncio.create_subprocess_exec(
                sys.executable, "-m", "luma_async", *command, stdout=DEVNULL, stderr=DEVNULL,
                env=os.environ | {"LUMA_API_KEY": relay.key},
            )  # fmt: skip

        async def results() -> list[str]:
            return list(counter.counts.elements())

        try:
            return await run(Row("luma_async worker"), relay, start, results)
        finally:
            await counter.stop()


@asynccontextmanager
async def redis_server() -> AsyncGenerator[str, None]:
    """Run a Redis that writes each change to the disk."""
    port = free_port()
    with tempfile.TemporaryDirectory() as home:
        process = await asyncio.create_subprocess_exec(
            "redis-server", "--port", str(port), "--dir", home, "--appendonly", "yes",
            "--appendfsync", "everysec", stdout=DEVNULL,
        )  # fmt: skip
        await asyncio.sleep(0.5)
        try:
            yield f"redis://127.0.0.1:{port}"
        finally:
            process.kill()
            await process.wait()


def theirs(engine: str, command: list[str]) -> Callable[[RelayProcess], Awaitable[Row]]:
    async def play(relay: RelayProcess) -> Row:
        async with redis_server() as url:
            settings = {"BENCH_ENGINE": engine, "BENCH_REDIS": url, "BENCH_RELAY": relay.url}
            environment = os.environ | settings | {"BENCH_KEY": relay.key}
            submitting = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.bench.taskqueues", "--submit", engine,
                stdin=asyncio.subprocess.PIPE, env=environment,
            )  # fmt: skip
            await submitting.communicate("\n".join(relay.ids).encode())
            client: Any = redis.asyncio.from_url(url)

            async def start() -> Process:
                return await asyncio.create_subprocess_exec(
                    sys.executable, *command, env=environment, stdout=DEVNULL, stderr=DEVNULL
                )

            async def results() -> list[str]:
                return [one.decode() for one in await client.lrange(singly.RESULTS, 0, -1)]

            try:
                return await run(Row(f"{engine}, a coroutine per id"), relay, start, results)
            finally:
                await client.aclose()

    return play


async def submit(engine: str) -> None:
    ids = sys.stdin.read().split()
    if engine == "taskiq":
        await singly.broker.startup()
        for task_id in ids:
            await singly.taskiq_wait.kiq(task_id)
        await singly.broker.shutdown()
    else:
        async with singly.worker:
            await singly.worker.enqueue_many([singly.streaq_wait.enqueue(i) for i in ids])


TASKIQ = [
    "-m", "taskiq", "worker", "tests.bench.coroutine_per_task:broker", "--workers", "1",
    "--max-async-tasks", str(singly.AT_ONCE), "--max-prefetch", "100",
    "--ack-type", "when_executed",
]  # fmt: skip
STREAQ = ["-m", "streaq", "run", "tests.bench.coroutine_per_task:worker"]
ENGINES: dict[str, Callable[[RelayProcess], Awaitable[Row]]] = {
    "ours": ours, "taskiq": theirs("taskiq", TASKIQ), "streaq": theirs("streaq", STREAQ),
}  # fmt: skip


async def main(ids: int) -> None:
    print(f"{ids:,} tasks that end after 5 to 40 s; killed after 12 s, and started again")
    print("engine                        requests  most/s   CPU s   MiB  lost  twice  all after")
    for play in ENGINES.values():
        async with relay_process(Play(ids, 5.0, 40.0)) as relay:
            row = await play(relay)
        print(
            f"{row.engine:<30}{row.requests:>8,}{row.busiest:>8,}{row.cpu:>8.1f}{row.memory:>6.0f}"
            f"{row.lost:>6,}{row.twice:>7,}{row.seconds:>10.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--submit"]:
        asyncio.run(submit(sys.argv[2]))
    else:
        asyncio.run(main(int(sys.argv[1]) if sys.argv[1:] else IDS))
