"""A million open ids in one session: memory, intake, pauses of the event loop, cost per request.

    python -m tests.bench.million [--open N …] [--runs N] [--cancel N] [--requests N] [--rate R]
                                  [--uvloop] [--write]

Each size of each run is a process of its own, with FakeRelay in another one. A task that ticks
every 5 ms records how late it is; the maximum is the pause. There is one for each phase:
subscribing (one call with all ids, until all are open), the first round (until each was polled),
later rounds (so many more requests); then so many waits for one id each are started, a thousand in
a turn of the loop, and all cancelled in one turn: for ids that are open anyway, for others, and as
many bare futures in their place; the one wait with all ids is cancelled. At last all ids are waited
for again, and once each was polled all tasks end at the same moment (ends of one round).

Memory is the growth of the process since it received the ids, per id, before and after the first
poll. CPU per request is the whole process's; the interval is half of what the rate allows, so that
all sizes poll equally often. CPU of an ended task is that of the whole round, its requests
included. Figures are medians of the runs, in brackets the worst of all; the quotient is that of the
last size by the first.
"""

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

from luma_async import Learned, Limits, LumaSession
from luma_async.testing import FakeRelay
from tests.bench.pages import write_table
from tests.bench.peers import cpu_seconds, loop_factory

TICK = 0.005
POLL = 0.1
FOREVER = 1e6
Figures = dict[str, float]
PAGE = Path(__file__).parents[2] / "docs" / "performance.md"


def memory() -> int:
    """Return the bytes that the process holds in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


class Ticker:
    """Ticks all the time, and records how late each tick was."""

    def __init__(self) -> None:
        self.late: list[float] = []
        self._ticking = asyncio.ensure_future(self._tick())

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + TICK
            await asyncio.sleep(TICK)
            self.late.append(loop.time() - due)

    @asynccontextmanager
    async def phase(self, name: str, figures: Figures) -> AsyncGenerator[None]:
        """Record the worst pause, in ms, of a phase."""
        await asyncio.sleep(4 * TICK)
        self.late.clear()
        yield
        await asyncio.sleep(POLL)
        figures[name] = 1e3 * max(self.late, default=0.0)

    def stop(self) -> None:
        self._ticking.cancel()


async def relay(count: int) -> None:
    """Play the relay until standard input ends; all tasks end when a line comes."""
    async with FakeRelay(latency=0.02) as fake:
        ids = [fake.add(duration=FOREVER) for _ in range(count)]
        print(json.dumps([fake.url, ids]), flush=True)
        if await asyncio.to_thread(sys.stdin.readline):
            now = asyncio.get_running_loop().time()
            for task in fake.tasks.values():
                object.__setattr__(task, "ends_at", now)
            print("ended", flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def measure(url: str, ids: Sequence[str], args: argparse.Namespace) -> Figures:
    """Return the figures of one size."""
    limits = Limits(max_in_flight=8, max_rate=args.rate)
    pace = Learned(len(ids) / limits.max_batch / args.rate / 2)
    pauses: Figures = {}
    figures: Figures = {}
    async with LumaSession(url, api_key="sk-fake", pace=pace, limits=limits) as luma:
        figures["text of a row, bytes"] = sys.getsizeof((await luma.get(ids[0])).original.encode())
        ticker = Ticker()
        gc.collect()
        before = memory()
        async with ticker.phase("subscribing", pauses):
            begun = time.perf_counter()
            wait = asyncio.ensure_future(luma.wait_until_done(ids, timeout=None))
            await until(lambda: luma.stats.open == len(ids), TICK)
            figures["subscribed, s"] = time.perf_counter() - begun
        figures["memory of an id, bytes"] = (memory() - before) / len(ids)
        async with ticker.phase("first round", pauses):
            await until(lambda: luma.stats.ids_asked >= len(ids))
        figures["after a poll, bytes"] = (memory() - before) / len(ids)
        async with ticker.phase("later rounds", pauses):
            requests, spent = luma.stats.requests, cpu_seconds()
            await until(lambda: luma.stats.requests >= requests + args.requests)
            seconds = (cpu_seconds() - spent) / (luma.stats.requests - requests)
        figures["CPU of a request, µs"] = 1e6 * seconds
        await cancelling(ticker, pauses, "waits for open ids", wait_for(luma, ids), args)
        others = [f"other {number}" for number in range(args.cancel)]
        await cancelling(ticker, pauses, "waits for other ids", wait_for(luma, others), args)
        await cancelling(ticker, pauses, "bare futures", lambda _: bare(), args)
        async with ticker.phase("cancelling the one wait", pauses):
            wait.cancel()
            await asyncio.gather(wait, return_exceptions=True)
            await until(lambda: not luma.stats.open)
        figures |= await ending(luma, ids, ticker, pauses)
        ticker.stop()
    return figures | {f"worst pause in {name}, ms": pause for name, pause in pauses.items()}


async def ending(luma: LumaSession, ids: Sequence[str], ticker: Ticker, pauses: Figures) -> Figures:
    """Wait for all ids again; all end once each was polled. Return CPU and seconds of that."""
    asked = luma.stats.ids_asked
    wait = asyncio.ensure_future(luma.wait_until_done(ids, timeout=None))
    await until(lambda: luma.stats.ids_asked >= asked + len(ids))
    print("end", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    async with ticker.phase("ends of one round", pauses):
        spent, begun = cpu_seconds(), time.perf_counter()
        done = await wait
        seconds, spent = time.perf_counter() - begun, cpu_seconds() - spent
    assert len(done) == len(ids)
    return {"CPU of an ended task, µs": 1e6 * spent / len(ids), "all ended, s": seconds}


def wait_for(luma: LumaSession, ids: Sequence[str]) -> Callable[[int], Awaitable[object]]:
    return lambda place: luma.wait_until_done(ids[place % len(ids)])


async def until(so: Callable[[], bool], every: float = POLL) -> None:
    while not so():
        await asyncio.sleep(every)


async def bare() -> None:
    await asyncio.get_running_loop().create_future()


async def cancelling(
    ticker: Ticker,
    pauses: Figures,
    what: str,
    make: Callable[[int], Awaitable[object]],
    args: argparse.Namespace,
) -> None:
    """Start so many waits, a thousand in a turn, and cancel all of them in one turn."""
    waits: list[asyncio.Future[object]] = []
    async with ticker.phase(f"starting {what}", pauses):
        for place in range(args.cancel):
            waits.append(asyncio.ensure_future(make(place)))
            if place % 1000 == 0:
                await asyncio.sleep(0)
    async with ticker.phase(f"cancelling {what}", pauses):
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


def child(args: argparse.Namespace) -> Figures:
    url, ids = json.loads(sys.stdin.readline())
    ids = tuple(ids)
    loop = loop_factory("uvloop" if args.uvloop else "asyncio")
    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(measure(url, ids, args))


def run(count: int, args: argparse.Namespace) -> Figures:
    """Measure one size, with a relay and a client of its own."""
    here = [sys.executable, "-m", "tests.bench.million", "--cancel", str(args.cancel)]
    here += ["--requests", str(args.requests), "--rate", str(args.rate)]
    here += ["--uvloop"] * args.uvloop
    with begun([*here, "--relay", str(count)]) as playing, begun([*here, "--child"]) as client:
        pass_line(playing, client)
        pass_line(client, playing)
        pass_line(playing, client)
        assert client.stdout
        figures: Figures = json.loads(client.stdout.readline())
    return figures


def begun(command: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def pass_line(giver: subprocess.Popen[bytes], taker: subprocess.Popen[bytes]) -> None:
    """Hand a line of one process to another."""
    assert giver.stdout
    assert taker.stdin
    line = giver.stdout.readline()
    if not line:
        raise RuntimeError("a process ended early; see its error above")
    taker.stdin.write(line)
    taker.stdin.flush()


def table(runs: Sequence[Sequence[Figures]], sizes: Sequence[int]) -> list[str]:
    """Return the medians, pauses with the worst of all runs, and last over first of the sizes."""
    lines = ["| | " + " | ".join(f"{size:,} open" for size in sizes) + " | quotient |"]
    lines.append("| --- |" + " --: |" * (len(sizes) + 1))
    for name in runs[0][0]:
        columns = [[one[place][name] for one in runs] for place in range(len(sizes))]
        middle = [median(column) for column in columns]
        cells = [f"{value:.3g}" if value < 1 else f"{value:,.0f}" for value in middle]
        if "pause" in name:
            cells = [f"{c} ({max(column):,.0f})" for c, column in zip(cells, columns, strict=True)]
        lines.append(f"| {name} | {' | '.join(cells)} | {middle[-1] / middle[0]:.2f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--open", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--cancel", type=int, default=100_000)
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--rate", type=float, default=400.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--uvloop", action="store_true")
    parser.add_argument("--write", action="store_true", help="the table into docs/performance.md")
    parser.add_argument("--relay", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.relay:
        asyncio.run(relay(args.relay))
    elif args.child:
        print(json.dumps(child(args)))
    else:
        runs = [[run(count, args) for count in args.open] for _ in range(args.runs)]
        lines = table(runs, args.open)
        print(*lines, sep="\n")
        if args.write:
            write_table(PAGE, "million-ids-uvloop" if args.uvloop else "million-ids", lines)


if __name__ == "__main__":
    main()
