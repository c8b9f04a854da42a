"""A million open ids in one session: memory, intake, pauses of the event loop, cost per request.

    python -m tests.bench.million [--open N …] [--cancel N] [--requests N] [--rate R] [--uvloop]

Each size runs in a process of its own, against FakeRelay in another one. A task that ticks every
5 ms measures how late it is: the worst of that is the pause. The interval is half of what the rate
allows, so that all sizes ask at the same rate. The phases are intake (one call with
all ids, until all are open), the first round (until each has been looked at), rounds (so many
requests more), then so many waits for one id each: all begun, and all cancelled in one turn of the
loop, beside as many bare futures in the same process; and at last the one wait with all ids is
cancelled. Memory is the growth of the process since the ids existed, for each id, before and after
the first round. CPU per request is of the whole process.
"""

import argparse
import asyncio
import gc
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from luma_async import Learned, Limits, LumaSession
from luma_async.testing import FakeRelay

TICK = 0.005


def memory() -> int:
    """Return the bytes that the process holds in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def cpu() -> float:
    """Return the CPU seconds of the process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Ticker:
    """Ticks all the time, and notes how late each tick was."""

    def __init__(self) -> None:
        self.late: list[float] = []
        self._ticking = asyncio.ensure_future(self._tick())

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + TICK
            await asyncio.sleep(TICK)
            self.late.append(loop.time() - due)

    @contextmanager
    def phase(self, name: str, told: dict[str, float]) -> Generator[None]:
        """Note the worst pause, in ms, of a phase."""
        self.late.clear()
        yield
        told[name] = 1e3 * max(self.late, default=0.0)

    def stop(self) -> None:
        self._ticking.cancel()


async def relay(count: int) -> None:
    """Play the relay until standard input ends."""
    async with FakeRelay(latency=0.02) as fake:
        ids = [fake.add(ends="never") for _ in range(count)]
        print(json.dumps([fake.url, ids]), flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def measure(url: str, ids: Sequence[str], args: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one size."""
    limits = Limits(max_in_flight=8, max_rate=args.rate)
    gc.collect()
    before = memory()
    pauses: dict[str, float] = {}
    told: dict[str, Any] = {"open": len(ids), "pauses": pauses}
    pace = Learned(len(ids) / limits.max_batch / args.rate / 2)
    async with LumaSession(url, api_key="sk-fake", pace=pace, limits=limits) as luma:
        ticker = Ticker()
        await asyncio.sleep(0.1)
        with ticker.phase("intake", pauses):
            begun = time.perf_counter()
            wait = asyncio.ensure_future(luma.wait_until_done(ids, timeout=None))
            await until(lambda: luma.stats.open == len(ids))
            told["intake"] = time.perf_counter() - begun
            await asyncio.sleep(0.1)
        gc.collect()
        told["bytes"] = (memory() - before) / len(ids)
        with ticker.phase("first round", pauses):
            await until(lambda: luma.stats.ids_asked >= len(ids))
        gc.collect()
        told["bytes, looked at"] = (memory() - before) / len(ids)
        with ticker.phase("rounds", pauses):
            requests, spent = luma.stats.requests, cpu()
            await until(lambda: luma.stats.requests >= requests + args.requests)
            told["CPU per request"] = (cpu() - spent) / (luma.stats.requests - requests)
        some = [ids[place % len(ids)] for place in range(args.cancel)]
        await cancelling(ticker, pauses, "waits", lambda at: luma.wait_until_done(some[at]), args)
        await cancelling(ticker, pauses, "bare futures", lambda _: bare(), args)
        with ticker.phase("cancel the one wait", pauses):
            wait.cancel()
            await asyncio.gather(wait, return_exceptions=True)
            await until(lambda: not luma.stats.open)
            await asyncio.sleep(0.1)
        ticker.stop()
    return told


async def until(so: Callable[[], bool]) -> None:
    while not so():  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(TICK)


async def bare() -> None:
    await asyncio.get_running_loop().create_future()


async def cancelling(
    ticker: Ticker,
    pauses: dict[str, float],
    what: str,
    make: Callable[[int], Awaitable[object]],
    args: argparse.Namespace,
) -> None:
    """Begin so many waits, a thousand in a turn, and cancel all of them in one turn."""
    waits: list[asyncio.Future[object]] = []
    with ticker.phase(f"begin {what}", pauses):
        for place in range(args.cancel):
            waits.append(asyncio.ensure_future(make(place)))
            if place % 1000 == 0:
                await asyncio.sleep(0)
        await asyncio.sleep(0.2)
    with ticker.phase(f"cancel {what}", pauses):
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        await asyncio.sleep(0.1)


def child(args: argparse.Namespace) -> dict[str, Any]:
    url, ids = json.loads(sys.stdin.readline())
    ids = tuple(ids)
    if args.uvloop:
        import uvloop

        return uvloop.run(measure(url, ids, args))
    return asyncio.run(measure(url, ids, args))


def run(count: int, args: argparse.Namespace) -> dict[str, Any]:
    """Measure one size, with a relay and a client of its own."""
    here = [sys.executable, "-m", "tests.bench.million", "--cancel", str(args.cancel)]
    here += ["--requests", str(args.requests), "--rate", str(args.rate)]
    here += ["--uvloop"] * args.uvloop
    playing = subprocess.Popen(
        [*here, "--relay", str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert playing.stdin
    assert playing.stdout
    told = subprocess.run(
        [*here, "--child"], input=playing.stdout.readline(), stdout=subprocess.PIPE, check=True
    )
    playing.stdin.close()
    playing.wait()
    figures: dict[str, Any] = json.loads(told.stdout)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--open", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--cancel", type=int, default=100_000)
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--rate", type=float, default=400.0)
    parser.add_argument("--uvloop", action="store_true")
    parser.add_argument("--relay", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.relay:
        asyncio.run(relay(args.relay))
    elif args.child:
        print(json.dumps(child(args)))
    else:
        for count in args.open:
            print(json.dumps(run(count, args), indent=1), flush=True)


if __name__ == "__main__":
    main()
