"""What `chaos` kills, freezes and cuts off: workers behind proxies, and NATS servers."""

import asyncio
import json
import os
import shutil
import signal
import sys
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import Process
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.bench.processes import Nats
from tests.bench.run_client import Process as LineProcess


class Relay:
    """The relay process."""

    def __init__(self, process: LineProcess) -> None:
        self._process = process
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        settings = json.loads(await self._process.heard())
        self.url: str = settings["url"]
        self.key: str = settings["key"]

    async def command(self, **command: Any) -> dict[str, Any]:
        async with self._lock:
            await self._process.say(json.dumps(command).encode() + b"\n")
            answer: dict[str, Any] = json.loads(await self._process.heard())
            return answer


class Proxy:
    """A TCP proxy to one server, which can be cut: closed, or silent with what it has received."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._writers: set[StreamWriter] = set()
        self._is_open = asyncio.Event()
        self._is_open.set()
        self._refuses = False

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def cut(self, seconds: float, *, close: bool) -> None:
        """Pass nothing for a time. Without `close` all is delivered late."""
        self._is_open.clear()
        self._refuses = close
        if close:
            self._drop_all()
        await asyncio.sleep(seconds)
        self._refuses = False
        self._is_open.set()

    async def close(self) -> None:
        self._server.close()
        self._drop_all()

    def _drop_all(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _connect(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if self._refuses:
                return
            with suppress(OSError):
                to_server = await asyncio.open_connection("127.0.0.1", self._target)
                self._writers.add(to_server[1])
                await asyncio.gather(
                    self._pass(reader, to_server[1]), self._pass(to_server[0], writer)
                )
                self._writers.discard(to_server[1])
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _pass(self, reader: StreamReader, writer: StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                await self._is_open.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


class WorkerProcess:
    """A worker process behind a proxy, started again after it was killed."""

    def __init__(self, relay: Relay, proxy: Proxy, log: Path, options: list[str]) -> None:
        self._relay = relay
        self.proxy = proxy
        self._log = log
        self._options = options
        self._process: Process | None = None
        self.exits: list[int] = []

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "luma_async", "worker", "--base-url", self._relay.url,
                "--nats", f"nats://127.0.0.1:{self.proxy.port}", *self._options,
                env=os.environ | {"LUMA_API_KEY": self._relay.key}, stdout=log, stderr=log,
            )  # fmt: skip

    async def restart_if_ended(self) -> None:
        """Start it again if it has ended by itself, as a service manager does."""
        if self._process is not None and self._process.returncode is not None:
            self.exits.append(self._process.returncode)
            await self.start()

    async def kill(self, seconds: float, sign: int = signal.SIGKILL) -> None:
        """Kill it, and start it again after some seconds."""
        await self.stop(sign)
        await asyncio.sleep(seconds)
        await self.start()

    async def freeze(self, seconds: float) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)

    async def stop(self, sign: int = signal.SIGKILL) -> None:
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.send_signal(sign)
            await process.wait()


class Servers(Nats):
    """NATS servers that are restarted, frozen, or started again with older data."""

    async def restart(self, node: int, seconds: float) -> None:
        await self.kill(node)
        await asyncio.sleep(seconds)
        await self.start(node)

    async def freeze(self, node: int, seconds: float) -> None:
        pid = self.pids[node]
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(seconds)
        os.kill(pid, signal.SIGCONT)

    async def lose_newest_second(self, node: int) -> None:
        """Kill a server, and start it with its data of one second before."""
        pid, home = self.pids[node], self.home / str(node)
        copy = self.home / "copy"
        os.kill(pid, signal.SIGSTOP)
        await asyncio.to_thread(shutil.copytree, home, copy)
        os.kill(pid, signal.SIGCONT)
        await asyncio.sleep(1.0)
        await self.kill(node)
        shutil.rmtree(home)
        copy.rename(home)
        await self.start(node)

    async def stop(self) -> None:
        for node in range(len(self.ports)):
            with suppress(AssertionError):
                await self.kill(node)
