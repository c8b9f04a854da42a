"""The relay of a comparison, a process of its own that reports the requests of each client.

    python -m tests.bench.relay_process

Reads a course and says what a client must know to run it; reads a line when the client is done, or
given up, and says what arrived. Each course has a new FakeRelay, so that none inherits a log.
"""

import asyncio
import gc
import json
import os
import random
import sys
import time
from dataclasses import asdict
from statistics import fmean

from luma_async.testing import FakeRelay
from tests.bench.peers import cpu_seconds
from tests.bench.protocol import Course, Go, Seen

GLANCE = 0.05


async def judge() -> None:
    while line := await asyncio.to_thread(sys.stdin.readline):
        await run(Course(**json.loads(line)))
        gc.collect()


async def run(course: Course) -> None:
    """Play one course and say what arrived; the same course has the same ids and durations."""
    async with FakeRelay(latency=course.latency, seed=course.seed) as relay:
        dice = random.Random(course.seed)
        durations = [dice.uniform(course.shortest, course.longest) for _ in range(course.ids)]
        ids = [relay.add(duration=seconds, queued=seconds / 4) for seconds in durations]
        before = descriptors()
        cpu, begun = cpu_seconds(), time.monotonic()
        say(Go(relay.url, relay.api_key, ids, course.interval, course.connections))
        over = asyncio.ensure_future(asyncio.to_thread(sys.stdin.readline))
        connections = 0
        while not over.done():
            connections = max(connections, descriptors() - before)
            await asyncio.wait([over], timeout=GLANCE)
        busy = (cpu_seconds() - cpu) / (time.monotonic() - begun)
        say(seen(relay, connections, busy))
    await asyncio.sleep(GLANCE)


def seen(relay: FakeRelay, connections: int, busy: float) -> Seen:
    log = relay.log
    late = sorted(lags(relay).values()) or [0.0]
    return Seen(
        requests=len(log),
        asked=sum(len(asked.ids) for asked in log),
        lag=fmean(late),
        late=late[int(0.95 * len(late))],
        connections=connections,
        busy=busy,
    )


def lags(relay: FakeRelay) -> dict[str, float]:
    """Return the seconds from each task's end to the arrival of the first question after it."""
    ends = {task.id: task.ends_at for task in relay.tasks.values()}
    found: dict[str, float] = {}
    for asked in relay.log:
        for task_id in asked.ids:
            end = ends.get(task_id)
            if end is not None and end <= asked.at:
                found[task_id] = asked.at - end
                del ends[task_id]
    return found


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def say(message: Go | Seen) -> None:
    print(json.dumps(asdict(message)), flush=True)


if __name__ == "__main__":
    asyncio.run(judge())
