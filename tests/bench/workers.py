"""What becomes of submitted ids when workers and servers are killed, and what a worker costs.

    python -m tests.bench.workers                   # all of it, some ten minutes
    python -m tests.bench.workers killed sigterm    # some of it: killed, cluster, sigterm, many,
                                                    # embedded

Every server, worker and relay is a process of its own. Half the ids end while things go wrong, the
others later. Workers are given a budget with which they can ask about everything in good time
(--max-rate 60), so that what is measured is the queue.
"""

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from math import ceil
from pathlib import Path

from luma_async.worker import Queue
from tests.bench.logging_relay import Play
from tests.bench.processes import (
    Reader,
    cpu_seconds,
    crew,
    lent,
    megabytes,
    nats,
    queue_at,
    stage,
    until_lent,
)

IDS = 20_000
MANY = 100_000
BUDGET = ("--max-rate", "60", "--max-in-flight", "8")


def say(what: str, figure: object, unit: str = "") -> None:
    print(f"  {what:<62} {figure!s:>9} {unit}", flush=True)


async def killed(ack_wait: float = 30.0) -> None:
    """Kill one of three workers, then all, then start them again."""
    print(f"\n{IDS:,} ids, 3 workers, a lease of {ack_wait:g} s: kill -9 of one, then of all")
    options = (*BUDGET, "--ack-wait", str(ack_wait))
    async with (
        stage(Play(IDS, 20.0, 120.0)) as relay,
        nats() as servers,
        queue_at(servers) as queue,
        crew(relay, "--nats", servers.url, *options) as workers,
    ):
        reader = Reader(queue)
        await workers.hire(3)
        await queue.submit(relay.ids)
        await until_lent(queue, IDS - len(reader.told))
        await asyncio.sleep(8)
        say("lent to workers when the first one was killed", await lent(queue))
        moment = time.monotonic()
        await workers.signal(signal.SIGKILL, 0)
        await asyncio.sleep(ack_wait + 6)
        gaps = (await relay.since(moment))["gaps"]
        say("until the last id of the dead one was polled again", f"{max(gaps):.1f}", "s")
        say("  ids open then that were not", sum(gap < 0 for gap in gaps))
        say("lent when all were killed", await lent(queue))
        await workers.signal(signal.SIGKILL)
        await asyncio.sleep(5)
        await workers.hire(3)
        await reader.all_of(relay.ids, 240)
        say("lost", reader.lost(relay.ids))
        say("told twice", reader.twice)
        info = await queue.js.stream_info(queue.names.wait)
        say("left in the wait stream", info.state.messages)
        say("requests of the relay", (await relay.since(moment))["requests"])
        await reader.stop()


async def cluster() -> None:
    """Kill one node of three, the leader of the wait stream, and bring it back."""
    print(f"\n{IDS:,} ids, 3 workers, a cluster of 3: kill -9 of the leader's node, and back again")
    async with (
        stage(Play(IDS, 15.0, 60.0)) as relay,
        nats(3) as servers,
        queue_at(servers) as queue,
        crew(relay, "--nats", servers.url, *BUDGET) as workers,
    ):
        reader = Reader(queue)
        await workers.hire(3)
        begun = time.monotonic()
        await queue.submit(relay.ids)
        say("submitted, each stored three times", f"{IDS / (time.monotonic() - begun):,.0f}", "/s")
        await until_lent(queue, (IDS - len(reader.told)) * 9 // 10)
        info = await queue.js.stream_info(queue.names.wait)
        assert info.cluster is not None
        node = int(str(info.cluster.leader).removeprefix("node"))
        say("lent when the node was killed", await lent(queue))
        told = len(reader.told)
        await servers.kill(node)
        moment = time.monotonic()
        while len(reader.told) == told:
            await asyncio.sleep(0.05)
        say("until the next end was told", f"{time.monotonic() - moment:.1f}", "s")
        await asyncio.sleep(10)
        await servers.start(node)
        await reader.all_of(relay.ids, 240)
        say("lost", reader.lost(relay.ids))
        say("told twice", reader.twice)
        await reader.stop()


async def sigterm() -> None:
    """Stop one of two workers under load."""
    print(f"\n{IDS:,} ids, 2 workers, all of them with the first: SIGTERM")
    async with (
        stage(Play(IDS, 10.0, 100.0)) as relay,
        nats() as servers,
        queue_at(servers) as queue,
        crew(relay, "--nats", servers.url, *BUDGET) as workers,
    ):
        reader = Reader(queue)
        await workers.hire()
        await queue.submit(relay.ids)
        await until_lent(queue, IDS - len(reader.told))
        await asyncio.sleep(12)
        await workers.hire()
        await asyncio.sleep(1.0)
        say("lent when the first was told to stop", await lent(queue))
        moment = time.monotonic()
        stopping = asyncio.create_task(workers.signal(signal.SIGTERM, 0))
        first = workers.workers[0]
        took = await stopping
        assert first.returncode == 0
        say("until it had exited, with code 0", f"{took:.2f}", "s")
        while await lent(queue) < IDS - len(reader.told) - 50:
            await asyncio.sleep(0.02)
        say("until the other one held them", f"{time.monotonic() - moment:.2f}", "s")
        await asyncio.sleep(15)
        gaps = (await relay.since(moment))["gaps"]
        say("until the other one had asked about the last of them", f"{max(gaps):.2f}", "s")
        await reader.all_of(relay.ids, 200)
        say("lost", reader.lost(relay.ids))
        say("told twice", reader.twice)
        await reader.stop()


async def many() -> None:
    """Hold 100,000 ids in one worker."""
    print(f"\n{MANY:,} ids, one worker, default settings but for the budget of requests")
    async with (
        stage(Play(MANY, 150.0, 180.0)) as relay,
        nats() as servers,
        queue_at(servers) as queue,
        crew(relay, "--nats", servers.url, "--max-rate", "400", "--max-in-flight", "8",
             "--interval", "20") as workers,
    ):  # fmt: skip
        begun = time.monotonic()
        await queue.submit(relay.ids)
        say("submitted", f"{MANY / (time.monotonic() - begun):,.0f}", "/s")
        await workers.hire()
        took = await until_lent(queue, MANY)
        say("taken, its start included", f"{MANY / took:,.0f}", "/s")
        await asyncio.sleep(25)
        pid, server = workers.workers[0].pid, servers.pids[0]
        say("memory of the worker", f"{megabytes(pid):.0f}", "MiB")
        say("memory of the server", f"{megabytes(server):.0f}", "MiB")
        before, spent, served = await relay.since(0.0), cpu_seconds(pid), cpu_seconds(server)
        await asyncio.sleep(40)
        after = await relay.since(0.0)
        polls = (after["requests"] - before["requests"]) / 2
        say("requests in an interval of 20 s", f"{polls:.0f}")
        say(f"  against ceil(ids / seats) = {ceil(MANY / 100)}", f"{polls / ceil(MANY / 100):.2f}")
        say("CPU of the worker, polling", f"{(cpu_seconds(pid) - spent) / 0.4:.1f}", "%")
        say("CPU of the server", f"{(cpu_seconds(server) - served) / 0.4:.1f}", "%")
        reader = Reader(queue)
        await reader.all_of(relay.ids, 240)
        busiest = sorted(reader.at)
        half = busiest[len(busiest) // 4 : 3 * len(busiest) // 4]
        say("ends told, in the middle half", f"{len(half) / (half[-1] - half[0]):,.0f}", "/s")
        say("lost", reader.lost(relay.ids))
        await reader.stop()
    await at_rest()


async def at_rest() -> None:
    """Hold 100,000 ids that nothing is asked about: the price of the leases alone."""
    async with (
        stage(Play(MANY, 3600.0, 3601.0)) as relay,
        nats() as servers,
        queue_at(servers) as queue,
        crew(relay, "--nats", servers.url, "--interval", "1h", "--max-rate", "400") as workers,
    ):
        await queue.submit(relay.ids)
        await workers.hire()
        await until_lent(queue, MANY)
        await asyncio.sleep(15)
        pid, server = workers.workers[0].pid, servers.pids[0]
        spent, served = cpu_seconds(pid), cpu_seconds(server)
        await asyncio.sleep(40)
        say(
            "CPU of the worker at rest (beats alone)",
            f"{(cpu_seconds(pid) - spent) / 0.4:.1f}",
            "%",
        )
        say("CPU of the server then", f"{(cpu_seconds(server) - served) / 0.4:.1f}", "%")


async def embedded() -> None:
    """One command, kill -9 of the worker and of its server, the same command again."""
    print("\n2,000 ids, the private server: one command, kill -9 of all, the same command again")
    with tempfile.TemporaryDirectory() as data:
        async with (
            stage(Play(2_000, 5.0, 25.0)) as relay,
            crew(relay, "--data", data, *BUDGET) as workers,
        ):
            await workers.hire()
            async with Queue(data=data) as queue:
                await queue.submit(relay.ids)
            await asyncio.sleep(8)
            await workers.signal(signal.SIGKILL)
            for server in servers_in(data):
                os.kill(server, signal.SIGKILL)
            moment = time.monotonic()
            await workers.hire()
            await asyncio.sleep(8)
            gaps = (await relay.since(moment))["gaps"]
            say("until the last open id was polled again", f"{max(gaps):.1f}", "s")
            async with Queue(data=data) as queue:
                reader = Reader(queue)
                await reader.all_of(relay.ids, 60)
                say("lost", reader.lost(relay.ids))
                say("told twice", reader.twice)
                await reader.stop()
            say("SIGTERM: exit after", f"{await workers.signal(signal.SIGTERM):.2f}", "s")
            say("servers left running", len(servers_in(data)))


def servers_in(data: str) -> list[int]:
    return [int(ports.stem.rpartition("_")[2]) for ports in Path(data).glob("*.ports")]


PARTS: dict[str, Callable[[], Awaitable[None]]] = {
    "killed": killed, "cluster": cluster, "sigterm": sigterm, "many": many, "embedded": embedded,
}  # fmt: skip


async def main() -> None:
    for name in sys.argv[1:] or PARTS:
        await PARTS[name]()


if __name__ == "__main__":
    asyncio.run(main())
