"""Seeds: the whole session and a FakeRelay in a simulated network, in a schedule drawn from a seed.

    python -m tests.bench.seeds [--seeds N] [--first K] [--processes P]

Each seed draws latency (to 3 s), partitions, broken and odd answers, callers that come, leave and
crash, and one of all paces. Then the relay calms down. It must hold that each call that was not
cancelled ends as its tasks did, that nothing of another task is returned, and that nothing is left.
A seed that fails is a number that repeats. Replicas whose single endpoint says that a task does not
exist are left out: that is believed after `missing_grace`.
Needs simloop (`pip install -e '.[test]'`) and Python 3.12.
"""

import argparse
import asyncio
import logging
import random
import sys
from collections.abc import Sequence
from importlib import import_module
from multiprocessing import Pool
from typing import Any
from unittest.mock import patch

import aiohttp

from luma_async import (
    APIError,
    Backoff,
    Every,
    Generation,
    Learned,
    Limits,
    LumaError,
    LumaSession,
    State,
    WaitAborted,
    WaitIncomplete,
)
from luma_async.scheduling.pace import Pace
from luma_async.testing import FAULTS, Fault
from tests.odd_relays import ODDITIES, Oddity, OddRelay

simloop: Any = import_module("simloop")
PORT = 8080
TROUBLE_ENDS = 200.0  # seconds; below ten times the default missing_grace
CHUNK = 50
ODD = [
    one for name, one in ODDITIES.items() if "for one id" not in name and not name.startswith("35")
]


def draw_pace(dice: random.Random) -> Pace:
    return dice.choice(
        (Every(5.0), Every(1.0), Learned(5.0), Learned(2.0), Backoff(1.0, 2.0, 15.0))
    )


def draw_faults(dice: random.Random) -> dict[Fault, float]:
    faults: list[Fault] = dice.sample([one for one in FAULTS if one != "stale"], dice.randint(0, 3))
    return {fault: dice.uniform(0.01, 0.2) for fault in faults}


async def scenario() -> None:
    """Play one seed."""
    dice = random.Random(simloop.sim.random.getrandbits(64))
    loop: Any = asyncio.get_running_loop()
    net = loop.net
    net.set_defaults(latency=(0.001, dice.choice((0.01, 0.1, 1.0, 3.0))))
    oddity = dice.choice((None, *ODD))
    relay = OddRelay(
        Oddity(oddity.name, oddity.answer, TROUBLE_ENDS) if oddity else None,
        host="relay", port=PORT, seed=dice.randrange(2**16), faults=draw_faults(dice),
    )  # fmt: skip
    started, stop = asyncio.Event(), asyncio.Event()

    async def serve() -> None:
        async with relay:
            started.set()
            await stop.wait()

    serving = net.host("relay").create_task(serve())
    await started.wait()
    for _ in range(dice.randint(0, 3)):
        loop.call_later(dice.uniform(0.0, 150.0), net.partition, {"client"}, {"relay"})
    loop.call_later(TROUBLE_ENDS, calm_down, net, relay)
    limits = Limits(max_batch=dice.choice((1, 3, 100)), max_in_flight=dice.choice((1, 2, 4)))
    client = net.host("client").create_task(play(relay, draw_pace(dice), limits, dice))
    await client
    stop.set()
    await serving


def calm_down(net: Any, relay: OddRelay) -> None:
    net.heal()
    net.set_defaults(latency=(0.001, 0.01))
    relay.faults = {}


# Names are resolved by the simulated loop, not in threads, for which it does not wait.
@patch("luma_async.transport.new_resolver", aiohttp.ThreadedResolver)
async def play(relay: OddRelay, pace: Pace, limits: Limits, dice: random.Random) -> None:
    loop = asyncio.get_running_loop()
    async with LumaSession(
        f"http://relay:{PORT}",
        api_key=relay.api_key,
        pace=pace,
        limits=limits,
        request_timeout=10.0,
    ) as luma:
        async with asyncio.TaskGroup() as group:
            for _ in range(dice.randint(1, 8)):
                group.create_task(call(luma, relay, random.Random(dice.random())))
        await asyncio.sleep(10.0)
        assert luma.stats.open == 0, luma.stats
        assert luma.stats.in_flight == 0, luma.stats
    sent = sorted(asked.at for asked in relay.log)
    assert loop.time() < 4 * 3600.0, "it took too long"
    assert len(sent) < 20_000


async def call(luma: LumaSession, relay: OddRelay, dice: random.Random) -> None:
    """Play one caller, who may leave early; what is returned must be right."""
    await asyncio.sleep(dice.choice((0.0, 0.0, dice.uniform(0.0, 120.0))))
    ids = [
        relay.add(
            duration=dice.uniform(0.0, 250.0), ends="failed" if dice.random() < 0.3 else "completed"
        )
        for _ in range(dice.choice((1, 2, 10, 40)))
    ]
    leaves = dice.random() < 0.25
    kind = dice.choice(("wait", "as_completed", "watch", "get_many", "follow"))
    work = asyncio.create_task(ONE_CALL[kind](luma, ids))
    if leaves:
        await asyncio.wait([work], timeout=dice.uniform(0.0, 60.0))
        work.cancel()
        await asyncio.wait([work])
        return
    done = await work
    assert kind == "get_many" or done.keys() == set(ids), (kind, set(ids) - done.keys())
    for task_id, one in done.items():
        check(relay, task_id, one, ended=kind != "get_many")


def check(relay: OddRelay, task_id: str, one: Generation, *, ended: bool) -> None:
    assert one.id == task_id
    assert "stranger" not in (one.url or "")
    if ended or one.is_done:
        assert one.state == relay.tasks[task_id].ends, (task_id, one)
    if one.state is State.COMPLETED and one.url:
        assert task_id in one.url, one


async def wait(luma: LumaSession, ids: Sequence[str]) -> dict[str, Generation]:
    done: dict[str, Generation] = {}
    pending = list(ids)
    while pending:
        try:
            done |= await luma.wait_until_done(pending, timeout=None)
            break
        except WaitAborted as error:
            if error.missing or not isinstance(error.cause, APIError):
                raise
            done |= error.done
            pending = list(error.pending)
            await asyncio.sleep(5.0)
    return done


async def as_completed(luma: LumaSession, ids: Sequence[str]) -> dict[str, Generation]:
    return {one.id: one async for one in luma.as_completed(ids, timeout=None)}


async def watch(luma: LumaSession, ids: Sequence[str]) -> dict[str, Generation]:
    return {one.id: one async for one in luma.watch(ids, timeout=None)}


async def get_many(luma: LumaSession, ids: Sequence[str]) -> dict[str, Generation]:
    try:
        return await luma.get_many(ids)
    except WaitIncomplete:
        raise
    except LumaError:
        return {}


async def follow(luma: LumaSession, ids: Sequence[str]) -> dict[str, Generation]:
    following = luma.follow()
    following.add(ids)
    done: dict[str, Generation] = {}
    try:
        async for ended in following:
            assert ended.generation is not None, ended
            done[ended.id] = ended.generation
            if not following:
                following.close()
    finally:
        following.close()
    return done


ONE_CALL = {
    "wait": wait,
    "as_completed": as_completed,
    "watch": watch,
    "get_many": get_many,
    "follow": follow,
}


def run(seeds: range) -> str | None:
    """Play some seeds; return the report of the first that fails."""
    logging.getLogger("luma_async").setLevel(logging.CRITICAL)
    report = simloop.explore(scenario, seeds)
    return None if report is None else report.render()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    last = args.first + args.seeds
    chunks = [range(at, min(at + CHUNK, last)) for at in range(args.first, last, CHUNK)]
    with Pool(args.processes) as pool:
        reports = [one for one in pool.imap(run, chunks) if one]
    print(*reports, sep="\n\n")
    print(f"{args.seeds} seeds from {args.first}: {len(reports)} of {len(chunks)} chunks failed")
    sys.exit(1 if reports else 0)


if __name__ == "__main__":
    main()
