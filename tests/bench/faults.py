"""Nothing lost: what each fault of a relay costs, beside the same run without faults.

    python -m tests.bench.faults [--tasks N] [--rates R …] [--seed N] [--nginx] [--write]

Each row is a run of its own in virtual time: the same tasks, ten to a request, by callers of every
kind, through real HTTP to FakeRelay. A rate is the share of requests that meet the fault. With
--nginx, rows in real time through a real nginx are added. --write puts the tables into
docs/reliability.md.
"""

import argparse
import asyncio
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from luma_async import Every, Limits, LumaSession
from luma_async.testing import FAULTS, FakeRelay, Fault, run_virtual
from tests.bench.mixed_callers import Fate, Tally, fates, play, wait_for_all
from tests.bench.pages import write_table
from tests.nginx import Nginx, Served
from tests.subprocesses import held_port

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
LIMITS = Limits(max_batch=10)
MISSING_GRACE = 300.0
NGINX_LIMITS = Limits(max_batch=10, max_rate=30.0)
NGINX_PACE = Every(1.0)
CYCLE = 4.0
HEAD = (
    "| fault | share | injected | survived | tasks reported | lost | requests | against none | "
    "most in a second | last reported after |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
)


@dataclass(frozen=True)
class Run:
    """What one run showed; `seconds` until the last task was reported."""

    name: str
    share: float | None
    injected: int
    tally: Tally
    requests: int
    busiest: int
    seconds: float

    def row(self, plain: "Run") -> str:
        survived = self.injected - self.tally.broken
        share = "" if self.share is None else f"{self.share:.0%}"
        cells = [
            self.name, share, self.injected, survived, self.tally.reported, self.tally.lost,
            self.requests, f"{self.requests / plain.requests:.2f}", self.busiest,
            f"{self.seconds:.0f} s",
        ]  # fmt: skip
        return "| " + " | ".join(map(str, cells)) + " |"


async def against(
    tasks: Sequence[Fate], faults: Mapping[Fault, float], name: str, share: float | None, seed: int
) -> Run:
    """Wait for all tasks on a relay with these faults."""
    loop = asyncio.get_running_loop()
    async with FakeRelay(faults=faults, seed=seed, latency=0.05) as relay:
        play(relay, tasks)
        begun = loop.time()
        async with LumaSession(
            relay.url, api_key=relay.api_key, limits=LIMITS, missing_grace=MISSING_GRACE
        ) as luma:
            tally = await wait_for_all(luma, tasks)
        injected = sum(asked.fault is not None for asked in relay.log)
        seconds = loop.time() - begun
        return Run(name, share, injected, tally, relay.requests, relay.busiest_second(), seconds)


def simulated(args: argparse.Namespace) -> Iterator[str]:
    tasks = fates(args.tasks, 20.0, 120.0, args.seed)

    def run(faults: Mapping[Fault, float], name: str, share: float | None = None) -> Run:
        return run_virtual(against(tasks, faults, name, share, args.seed))

    plain = run({}, "none")
    yield HEAD
    yield plain.row(plain)
    for fault in FAULTS:
        for share in args.rates:
            yield run({fault: share}, fault, share).row(plain)
    for share in args.rates:
        each: float = share / len(FAULTS)
        yield run(dict.fromkeys(FAULTS, each), "all", share).row(plain)


async def through_nginx(
    tasks: Sequence[Fate], name: str, share: float | None = None, dead: float = 0.0, **settings: Any
) -> Run:
    """Wait for all tasks through an nginx; its relay is dead for the share `dead` of the time."""
    with held_port() as port:
        async with (
            FakeRelay(port=port, latency=0.05) as relay,
            Nginx(relay.url, **settings) as nginx,
        ):
            play(relay, tasks)
            dying = asyncio.ensure_future(die(relay, dead))
            begun = time.monotonic()
            async with LumaSession(
                nginx.url, api_key=relay.api_key, pace=NGINX_PACE, limits=NGINX_LIMITS
            ) as luma:
                tally = await wait_for_all(luma, tasks)
            seconds = time.monotonic() - begun
            dying.cancel()
            await asyncio.gather(dying, return_exceptions=True)
    injected = met(nginx.served, settings)
    arrivals = sorted(served.arrived for served in nginx.served)
    return Run(name, share, injected, tally, len(arrivals), busiest(arrivals), seconds)


def met(served: Sequence[Served], settings: Mapping[str, Any]) -> int:
    """Count the answers that nginx spoiled: refused, or the last of a connection, or compressed."""
    refused = sum(one.status >= 400 for one in served)
    ended = Counter(one.connection for one in served)
    most: float = settings.get("keepalive_requests", inf)
    return (
        refused
        + sum(count >= most for count in ended.values())
        + sum(one.encoding == "gzip" for one in served)
    )


async def die(relay: FakeRelay, share: float) -> None:
    while share:
        await asyncio.sleep(CYCLE * (1.0 - share))
        await relay.close()
        await asyncio.sleep(CYCLE * share)
        await relay.start()


def busiest(arrivals: Sequence[float]) -> int:
    return max(bisect_left(arrivals, first + 1.0) - n for n, first in enumerate(arrivals))


def real(args: argparse.Namespace) -> Iterator[str]:
    tasks = fates(args.tasks, 2.0, 12.0, args.seed)

    def run(name: str, share: float | None = None, **settings: Any) -> Run:
        return asyncio.run(through_nginx(tasks, name, share, **settings))

    plain = run("none")
    yield HEAD
    yield plain.row(plain)
    for rate in (20, 12, 6):
        yield run(f"429 above {rate} a second", rate=rate, burst=2).row(plain)
    for share in args.rates:
        yield run("502, upstream dead", share, dead=share).row(plain)
    yield run("5 requests to a connection", keepalive_requests=5).row(plain)
    yield run("gzip", gzip=True).row(plain)
    for share in args.rates:
        both = {"rate": 12, "burst": 2, "keepalive_requests": 5, "gzip": True, "dead": share}
        yield run("all", share, **both).row(plain)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.05, 0.3, 0.6])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nginx", action="store_true")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    tables = {"simulated": simulated} | ({"nginx": real} if args.nginx else {})
    for name, table in tables.items():
        lines: list[str] = []
        for line in table(args):
            print(line, flush=True)
            lines.append(line)
        if args.write:
            write_table(PAGE, name, lines)


if __name__ == "__main__":
    main()
