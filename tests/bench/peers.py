"""The clients of a comparison, each in a process of its own.

    python -m tests.bench.peers NAME {asyncio,uvloop}

Says "ready" when all is imported, reads what to wait for, and prints what that came to.
"""

import asyncio
import importlib
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.bench.protocol import Client, Go, Spent


@dataclass(frozen=True)
class Peer:
    """A client: where its function is, what must be installed, what it would import on the way."""

    function: str
    needs: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()

    def client(self) -> Client:
        """Import the client, and all that it would import while it runs."""
        for name in self.imports:
            importlib.import_module(name)
        module, _, function = self.function.partition(":")
        found: Client = getattr(importlib.import_module(f"tests.bench.{module}"), function)
        return found


ANYIO = "anyio._backends._asyncio"
HTTPX = ("httpcore", "h11", ANYIO, "concurrent.futures.thread")
SDK = ("lumaai", "lumaai.resources", *HTTPX)
PEERS = {
    "plain sdk": Peer("sdks:as_it_comes", ("httpx", "lumaai"), SDK),
    "sdk": Peer("sdks:official", ("httpx", "lumaai"), SDK),
    "httpx": Peer("sdks:plain", ("httpx",), HTTPX),
    "aiohttp": Peer("handwritten_clients:gets"),
    "batch": Peer("handwritten_clients:batch"),
    "spread batch": Peer("handwritten_clients:spread_batch"),
    "floor": Peer("handwritten_clients:floor"),
    "spread floor": Peer("handwritten_clients:spread_floor"),
    "one call": Peer("luma_client:one_call", (), (ANYIO,)),
    "as many callers": Peer("luma_client:as_many_callers", (), (ANYIO,)),
    "every": Peer("luma_client:every", (), (ANYIO,)),
}
OURS = ("one call", "as many callers", "every")


async def measured(client: Client, go: Go) -> Spent:
    """Wait with a client; RuntimeError if it does not return each task as completed."""
    cpu, begun = cpu_seconds(), time.monotonic()
    states = await client(go)
    cpu, seconds = cpu_seconds() - cpu, time.monotonic() - begun
    if states != dict.fromkeys(go.ids, "completed"):
        raise RuntimeError("not every task was reported as completed")
    return Spent(cpu, seconds, most_memory())


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def most_memory() -> float:
    """Return the most MiB that were resident since exec; ru_maxrss knows of times before it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(peak) / 1024


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if name == "asyncio":
        return asyncio.new_event_loop
    uvloop: Any = importlib.import_module("uvloop")
    made: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return made


def main() -> None:
    _, name, loop = sys.argv
    client = PEERS[name].client()
    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        runner.get_loop()
        print("ready", flush=True)
        go = Go(**json.loads(sys.stdin.readline()))
        print(json.dumps(asdict(runner.run(measured(client, go)))), flush=True)


if __name__ == "__main__":
    main()
