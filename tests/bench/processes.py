"""Workers, NATS servers and a relay as processes, and what can be read of them from outside."""

import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, Process
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from luma_async.worker import End, Queue
from luma_async.worker.embedded_server import server_binary
from tests.bench import run_client as heat
from tests.bench.logging_relay import Play
from tests.bench.logging_relay import line as line_of

TICK = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port


def cpu_seconds(pid: int) -> float:
    """Return the CPU that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def megabytes(pid: int) -> float:
    """Return the memory that a process has now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20


class Stage:
    """A relay in a process of its own."""

    def __init__(self, process: heat.Process, told: dict[str, Any]) -> None:
        self._process = process
        self.url: str = told["url"]
        self.key: str = told["key"]
        self.ids: list[str] = told["ids"]

    async def since(self, moment: float) -> dict[str, Any]:
        """Return the requests so far, and when ids open at a moment were asked about after it."""
        await self._process.say(json.dumps(moment).encode() + b"\n")
        told: dict[str, Any] = json.loads(await self._process.heard())
        return told


@asynccontextmanager
async def stage(play: Play) -> AsyncGenerator[Stage, None]:
    """Open a relay that plays."""
    async with heat.Process("tests.bench.logging_relay") as process:
        await process.say(line_of(play))
        yield Stage(process, json.loads(await process.heard()))


class Nats:
    """Servers on loopback, one or a cluster, that can be killed and started again."""

    def __init__(self, home: Path, count: int) -> None:
        self.home = home
        self.ports = [free_port() for _ in range(count)]
        self._routes = [free_port() for _ in range(count)]
        self._processes: list[Process | None] = [None] * count

    @property
    def url(self) -> str:
        return ",".join(f"nats://127.0.0.1:{port}" for port in self.ports)

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes if process is not None]

    async def start(self, node: int) -> None:
        home = self.home / str(node)
        home.mkdir(exist_ok=True)
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in self._routes)
        listen = f"127.0.0.1:{self._routes[node]}"
        cluster = f"cluster {{ name: bench, listen: '{listen}', routes: [{routes}] }}"
        config = home / "nats.conf"
        config.write_text(
            f"server_name: node{node}\nlisten: '127.0.0.1:{self.ports[node]}'\n"
            f"jetstream {{ store_dir: '{home}', sync_interval: always }}\n"
            + (cluster if len(self.ports) > 1 else "")
        )
        self._processes[node] = await asyncio.create_subprocess_exec(
            server_binary(), "--config", config, stdout=DEVNULL, stderr=DEVNULL
        )

    async def kill(self, node: int) -> None:
        process = self._processes[node]
        assert process is not None
        process.kill()
        await process.wait()
        self._processes[node] = None


@asynccontextmanager
async def nats(count: int = 1) -> AsyncGenerator[Nats, None]:
    """Start servers, and stop them in the end."""
    with tempfile.TemporaryDirectory() as home:
        servers = Nats(Path(home), count)
        try:
            for node in range(count):
                await servers.start(node)
            yield servers
        finally:
            for node in range(count):
                with suppress(AssertionError):
                    await servers.kill(node)


@asynccontextmanager
async def queue_at(servers: Nats) -> AsyncGenerator[Queue, None]:
    """Enter a queue as soon as the servers are up."""
    deadline = time.monotonic() + 60
    while True:
        try:
            queue = await Queue(servers.url).__aenter__()
            break
        except Exception:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)
    try:
        yield queue
    finally:
        await queue.close()


class Crew:
    """Worker processes."""

    def __init__(self, stage: Stage, *options: str) -> None:
        self._stage = stage
        self._options = options
        self.workers: list[Process] = []

    async def hire(self, count: int = 1) -> None:
        for _ in range(count):
            self.workers.append(
                await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "luma_async", "worker", "--base-url", self._stage.url,
                    *self._options, env=os.environ | {"LUMA_API_KEY": self._stage.key},
                    stdout=DEVNULL, stderr=DEVNULL,
                )
            )  # fmt: skip

    async def signal(self, sign: int, *workers: int) -> float:
        """Send a signal to some (all, where none is named); return the seconds until they ended."""
        sent = time.monotonic()
        chosen = [self.workers[i] for i in workers] or list(self.workers)
        for worker in chosen:
            worker.send_signal(sign)
        for worker in chosen:
            await worker.wait()
            self.workers.remove(worker)
        return time.monotonic() - sent


@asynccontextmanager
async def crew(stage: Stage, *options: str) -> AsyncGenerator[Crew, None]:
    """Have workers with these options; those that are left in the end are killed."""
    one = Crew(stage, *options)
    try:
        yield one
    finally:
        if one.workers:
            await one.signal(signal.SIGKILL)


class Reader:
    """Counts the ends that a reader is told, in the order in which they were stored."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self.told: Counter[str] = Counter()
        self.at: list[float] = []
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for end in self._queue.results():
            self._note(end)

    def _note(self, end: End) -> None:
        self.told[end.id] += 1
        self.at.append(time.monotonic())

    async def all_of(self, ids: list[str], seconds: float) -> None:
        """Wait until each was told, or so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while len(self.told) < len(ids):
                    await asyncio.sleep(0.1)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    def lost(self, ids: list[str]) -> int:
        return len(set(ids) - set(self.told))

    @property
    def twice(self) -> int:
        return sum(count - 1 for count in self.told.values())


async def lent(queue: Queue) -> int:
    """Return how many ids the server has lent to workers, living or dead."""
    with suppress(Exception):
        info = await queue.js.consumer_info(queue.names.wait, queue.names.consumer)
        return info.num_ack_pending or 0
    return 0


async def until_lent(queue: Queue, count: int, seconds: float = 120.0) -> float:
    """Wait until that many are lent; return the seconds it took."""
    begun = time.monotonic()
    async with asyncio.timeout(seconds):
        while await lent(queue) < count:
            await asyncio.sleep(0.05)
    return time.monotonic() - begun
