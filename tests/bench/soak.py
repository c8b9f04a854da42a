"""A soak: thousands of tasks through a relay with all faults, in real time.

    python -m tests.bench.soak [--tasks N] [--seconds S] [--rate R] [--seed N]

The relay is a process of its own, so that memory and file descriptors are the client's alone. It
reports at the end what arrived, and the most that arrived in any second.
"""

import argparse
import asyncio
import gc
import json
import os
import resource
import sys
import time
from asyncio.subprocess import PIPE
from collections import Counter
from pathlib import Path
from typing import Any

from luma_async import Limits, LumaSession
from luma_async.testing import FAULTS, FakeRelay
from tests.bench.mixed_callers import Fate, fates, play, wait_for_all


async def relay(args: argparse.Namespace) -> None:
    """Play the relay until standard input ends, then report what arrived."""
    each: float = args.rate / len(FAULTS)
    async with FakeRelay(faults=dict.fromkeys(FAULTS, each), seed=args.seed, latency=0.05) as relay:
        play(relay, drawn(args))
        print(relay.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)
        record: dict[str, Any] = {
            "requests": relay.requests,
            "busiest second": relay.busiest_second(),
            "faults": Counter(asked.fault for asked in relay.log if asked.fault),
        }
        print(json.dumps(record), flush=True)


async def soak(args: argparse.Namespace) -> None:
    here = [sys.executable, "-m", "tests.bench.soak", "--relay", *map(str, settings(args))]
    process = await asyncio.create_subprocess_exec(*here, stdin=PIPE, stdout=PIPE)
    assert process.stdin
    assert process.stdout
    url = (await process.stdout.readline()).decode().strip()
    limits = Limits(max_batch=args.max_batch)
    before = counts()
    begun = time.monotonic()
    async with LumaSession(url, api_key="sk-fake", limits=limits, missing_grace=300.0) as luma:
        watching = asyncio.ensure_future(report(luma, args.seconds))
        tally = await wait_for_all(luma, drawn(args))
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        gc.collect()
        print(f"{tally.reported} of {args.tasks} in {time.monotonic() - begun:.0f} s; {luma.stats}")
        show("at the end, session open", counts())
    await asyncio.sleep(0.1)
    gc.collect()
    show("at the start", before)
    show("at the end, session closed", counts())
    process.stdin.close()
    seen = json.loads(await process.stdout.readline())
    await process.wait()
    print(f"lost {tally.lost}, wrong {tally.wrong}, reported twice {tally.twice}")
    print(f"the relay saw {seen['requests']} requests, most in any second {seen['busiest second']}")
    print(
        f"max_rate is {limits.max_rate:g}; faults: {sum(seen['faults'].values())}, {seen['faults']}"
    )


async def report(luma: LumaSession, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds / 10)
        show(repr(luma), counts())


def counts() -> dict[str, int]:
    """Count what a process may leak: KB of memory, file descriptors, tasks of the loop."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "KB": pages * resource.getpagesize() // 1024,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "other tasks": len(asyncio.all_tasks()) - 1,
    }


def show(when: str, counted: dict[str, int]) -> None:
    print(f"{when}: " + ", ".join(f"{count} {what}" for what, count in counted.items()), flush=True)


def drawn(args: argparse.Namespace) -> list[Fate]:
    return fates(args.tasks, args.seconds / 100, args.seconds, args.seed)


def settings(args: argparse.Namespace) -> list[object]:
    return [
        "--tasks", args.tasks, "--seconds", args.seconds, "--rate", args.rate, "--seed", args.seed,
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=600.0, help="the longest task")
    parser.add_argument(
        "--rate", type=float, default=0.3, help="the share of requests with a fault"
    )
    parser.add_argument("--max-batch", type=int, default=20, help="few ids, for many requests")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--relay", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    asyncio.run(relay(args) if args.relay else soak(args))


if __name__ == "__main__":
    main()
