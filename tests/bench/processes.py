"""Workers, NATS servers and a relay as processes, and measurements of them from outside."""

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
from luma_async.worker.server.server_process import server_binary
from tests.bench.logging_relay import Play
from tests.bench.logging_relay import line as json_line
from tests.bench.run_client import Process as LineProcess

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def megabytes(pid: int) -> float:
    """Return the resident memory of a process, in MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20


class RelayProcess:
    """A relay that runs as a process."""

    def __init__(self, process: LineProcess, settings: dict[str, Any]) -> None:
        self._process = process
        self.url: str = settings["url"]
        self.key: str = settings["key"]
        self.ids: list[str] = settings["ids"]

    async def since(self, moment: float) -> dict[str, Any]:
        """Return the requests so far, and when the ids open at `moment` were polled after it."""
        await self._process.say(json.dumps(moment).encode() + b"\n")
        answer: dict[str, Any] = json.loads(await self._process.heard())
        return answer


@asynccontextmanager
async def relay_process(play: Play) -> AsyncGenerator[RelayProcess, None]:
    """Start a relay with the tasks of a play."""
    async with LineProcess("tests.bench.logging_relay") as process:
        await process.say(json_line(play))
        yield RelayProcess(process, json.loads(await process.heard()))


class Nats:
    """One server or a cluster on loopback, which can be killed and started again."""

    def __init__(self, home: Path, count: int) -> None:
        self.home = home
        self.ports: list[int] = [free_port() for _ in range(count)]
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
    """Start servers; kill them in the end."""
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
    """Enter a queue as soon as the servers are ready."""
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


class WorkerProcesses:
    """Worker processes."""

    def __init__(self, relay: RelayProcess, *options: str) -> None:
        self._relay = relay
        self._options = options
        self.workers: list[Process] = []

    async def start(self, count: int = 1) -> None:
        for _ in range(count):
            self.workers.append(
                await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "luma_async", "worker", "--base-url", self._relay.url,
                    *self._options, env=os.environ | {"LUMA_API_KEY": self._relay.key},
                    stdout=DEVNULL, stderr=DEVNULL,
                )
            )  # fmt: skip

    async def signal(self, sign: int, *workers: int) -> float:
        """Send a signal to some workers, by default all; return the seconds until they ended."""
        sent = time.monotonic()
        chosen = [self.workers[i] for i in workers] or list(self.workers)
        for worker in chosen:
            worker.send_signal(sign)
        for worker in chosen:
            await worker.wait()
            self.workers.remove(worker)
        return time.monotonic() - sent


@asynccontextmanager
async def worker_processes(
    relay: RelayProcess, *options: str
) -> AsyncGenerator[WorkerProcesses, None]:
    """Yield WorkerProcesses with these options; kill those that still run in the end."""
    processes = WorkerProcesses(relay, *options)
    try:
        yield processes
    finally:
        if processes.workers:
            await processes.signal(signal.SIGKILL)


class ResultCounter:
    """Reads all results, and counts them by id."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self.counts: Counter[str] = Counter()
        self.read_at: list[float] = []
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for result in self._queue.results():
            self._count(result)

    def _count(self, result: End) -> None:
        self.counts[result.id] += 1
        self.read_at.append(time.monotonic())

    async def wait_for(self, ids: list[str], seconds: float) -> None:
        """Wait until each id has a result, for up to `seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while len(self.counts) < len(ids):
                    await asyncio.sleep(0.1)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    def lost(self, ids: list[str]) -> int:
        return len(set(ids) - set(self.counts))

    @property
    def duplicates(self) -> int:
        return sum(count - 1 for count in self.counts.values())


async def leased(queue: Queue) -> int:
    """Return how many ids are leased to workers, running or dead."""
    with suppress(Exception):
        info = await queue.js.consumer_info(queue.names.wait, queue.names.consumer)
        return info.num_ack_pending or 0
    return 0


async def until_leased(queue: Queue, count: int, seconds: float = 120.0) -> float:
    """Wait until so many ids are leased; return the seconds that took."""
    started = time.monotonic()
    async with asyncio.timeout(seconds):
        while await leased(queue) < count:
            await asyncio.sleep(0.05)
    return time.monotonic() - started
