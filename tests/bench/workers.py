"""Submitted ids while workers and servers are killed, and the resources that a worker uses.

    python -m tests.bench.workers                   # all parts, about ten minutes
    python -m tests.bench.workers killed sigterm    # some parts: killed, cluster, sigterm, many,
                                                    # embedded

Each server, worker and relay is a process. Half the tasks end during the failures, the others
later. The request budget of the workers is large enough for all ids (--max-rate 60), so that the
queue is measured and not the budget.
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
    ResultCounter,
    cpu_seconds,
    leased,
    megabytes,
    nats,
    queue_at,
    relay_process,
    until_leased,
    worker_processes,
)

IDS = 20_000
MANY = 100_000
BUDGET = ("--max-rate", "60", "--max-in-flight", "8")


def report(description: str, value: object, unit: str = "") -> None:
    print(f"  {description:<62} {value!s:>9} {unit}", flush=True)


async def killed(ack_wait: float = 30.0) -> None:
    """Kill one of three workers, then all, then start them again."""
    print(f"\n{IDS:,} ids, 3 workers, a lease of {ack_wait:g} s: kill -9 of one, then of all")
    options = (*BUDGET, "--ack-wait", str(ack_wait))
    async with (
        relay_process(Play(IDS, 20.0, 120.0)) as relay,
        nats() as servers,
        queue_at(servers) as queue,
        worker_processes(relay, "--nats", servers.url, *options) as workers,
    ):
        results = ResultCounter(queue)
        await workers.start(3)
        await queue.submit(relay.ids)
        await until_leased(queue, IDS - len(results.counts))
        await asyncio.sleep(8)
        report("ids leased when the first worker was killed", await leased(queue))
        moment = time.monotonic()
        await workers.signal(signal.SIGKILL, 0)
        await asyncio.sleep(ack_wait + 6)
        gaps = (await relay.since(moment))["gaps"]
        report("until the last id of the dead worker was polled again", f"{max(gaps):.1f}", "s")
        report("  ids open then that were not polled again", sum(gap < 0 for gap in gaps))
        report("ids leased when all were killed", await leased(queue))
        await workers.signal(signal.SIGKILL)
        await asyncio.sleep(5)
        await workers.start(3)
        await results.wait_for(relay.ids, 240)
        report("lost", results.lost(relay.ids))
        report("stored twice", results.duplicates)
        info = await queue.js.stream_info(queue.names.wait)
        report("left in the wait stream", info.state.messages)
        report("requests of the relay", (await relay.since(moment))["requests"])
        await results.stop()


async def cluster() -> None:
    """Kill one node of three, the leader of the wait stream, and bring it back."""
    print(f"\n{IDS:,} ids, 3 workers, a cluster of 3: kill -9 of the leader's node, and back again")
    async with (
        relay_process(Play(IDS, 15.0, 60.0)) as relay,
        nats(3) as servers,
        queue_at(servers) as queue,
        worker_processes(relay, "--nats", servers.url, *BUDGET) as workers,
    ):
        results = ResultCounter(queue)
        await workers.start(3)
        started = time.monotonic()
        await queue.submit(relay.ids)
        report(
            "submitted, each stored three times", f"{IDS / (time.monotonic() - started):,.0f}", "/s"
        )
        await until_leased(queue, (IDS - len(results.counts)) * 9 // 10)
        info = await queue.js.stream_info(queue.names.wait)
        assert info.cluster is not None
        node = int(str(info.cluster.leader).removeprefix("node"))
        report("ids leased when the node was killed", await leased(queue))
        before = len(results.counts)
        await servers.kill(node)
        moment = time.monotonic()
        while len(results.counts) == before:
            await asyncio.sleep(0.05)
        report("until the next result was stored", f"{time.monotonic() - moment:.1f}", "s")
        await asyncio.sleep(10)
        await servers.start(node)
        await results.wait_for(relay.ids, 240)
        report("lost", results.lost(relay.ids))
        report("stored twice", results.duplicates)
        await results.stop()


async def sigterm() -> None:
    """Stop one of two workers under load."""
    print(f"\n{IDS:,} ids, 2 workers, all of them with the first: SIGTERM")
    async with (
        relay_process(Play(IDS, 10.0, 100.0)) as relay,
        nats() as servers,
        queue_at(servers) as queue,
        worker_processes(relay, "--nats", servers.url, *BUDGET) as workers,
    ):
        results = ResultCounter(queue)
        await workers.start()
        await queue.submit(relay.ids)
        await until_leased(queue, IDS - len(results.counts))
        await asyncio.sleep(12)
        await workers.start()
        await asyncio.sleep(1.0)
        report("ids leased when the first worker got SIGTERM", await leased(queue))
        moment = time.monotonic()
        stopping = asyncio.create_task(workers.signal(signal.SIGTERM, 0))
        first = workers.workers[0]
        seconds = await stopping
        assert first.returncode == 0
        report("until it had exited, with code 0", f"{seconds:.2f}", "s")
        while await leased(queue) < IDS - len(results.counts) - 50:
            await asyncio.sleep(0.02)
        report("until the other worker held them", f"{time.monotonic() - moment:.2f}", "s")
        await asyncio.sleep(15)
        gaps = (await relay.since(moment))["gaps"]
        report("until the other worker had polled the last of them", f"{max(gaps):.2f}", "s")
        await results.wait_for(relay.ids, 200)
        report("lost", results.lost(relay.ids))
        report("stored twice", results.duplicates)
        await results.stop()


async def many() -> None:
    """Hold 100,000 ids in one worker."""
    print(f"\n{MANY:,} ids, one worker, default settings but for the budget of requests")
    async with (
        relay_process(Play(MANY, 150.0, 180.0)) as relay,
        nats() as servers,
        queue_at(servers) as queue,
        worker_processes(relay, "--nats", servers.url, "--max-rate", "400", "--max-in-flight", "8",
             "--interval", "20") as workers,
    ):  # fmt: skip
        started = time.monotonic()
        await queue.submit(relay.ids)
        report("submitted", f"{MANY / (time.monotonic() - started):,.0f}", "/s")
        await workers.start()
        seconds = await until_leased(queue, MANY)
        report("taken, including its start", f"{MANY / seconds:,.0f}", "/s")
        await asyncio.sleep(25)
        pid, server = workers.workers[0].pid, servers.pids[0]
        report("memory of the worker", f"{megabytes(pid):.0f}", "MiB")
        report("memory of the server", f"{megabytes(server):.0f}", "MiB")
        before, spent, served = await relay.since(0.0), cpu_seconds(pid), cpu_seconds(server)
        await asyncio.sleep(40)
        after = await relay.since(0.0)
        polls = (after["requests"] - before["requests"]) / 2
        report("requests in an interval of 20 s", f"{polls:.0f}")
        report(
            f"  against ceil(ids / batch size) = {ceil(MANY / 100)}",
            f"{polls / ceil(MANY / 100):.2f}",
        )
        report("CPU of the worker, polling", f"{(cpu_seconds(pid) - spent) / 0.4:.1f}", "%")
        report("CPU of the server", f"{(cpu_seconds(server) - served) / 0.4:.1f}", "%")
        results = ResultCounter(queue)
        await results.wait_for(relay.ids, 240)
        read_at = sorted(results.read_at)
        half = read_at[len(read_at) // 4 : 3 * len(read_at) // 4]
        report(
            "results stored, in the middle half", f"{len(half) / (half[-1] - half[0]):,.0f}", "/s"
        )
        report("lost", results.lost(relay.ids))
        await results.stop()
    await at_rest()


async def at_rest() -> None:
    """Hold 100,000 ids without polling them: the cost of the leases alone."""
    async with (
        relay_process(Play(MANY, 3600.0, 3601.0)) as relay,
        nats() as servers,
        queue_at(servers) as queue,
        worker_processes(
            relay, "--nats", servers.url, "--interval", "1h", "--max-rate", "400"
        ) as workers,
    ):
        await queue.submit(relay.ids)
        await workers.start()
        await until_leased(queue, MANY)
        await asyncio.sleep(15)
        pid, server = workers.workers[0].pid, servers.pids[0]
        spent, served = cpu_seconds(pid), cpu_seconds(server)
        await asyncio.sleep(40)
        report(
            "CPU of the worker without polling (heartbeats only)",
            f"{(cpu_seconds(pid) - spent) / 0.4:.1f}",
            "%",
        )
        report("CPU of the server then", f"{(cpu_seconds(server) - served) / 0.4:.1f}", "%")


async def embedded() -> None:
    """One command, kill -9 of the worker and of its server, the same command again."""
    print("\n2,000 ids, the private server: one command, kill -9 of all, the same command again")
    with tempfile.TemporaryDirectory() as data:
        async with (
            relay_process(Play(2_000, 5.0, 25.0)) as relay,
            worker_processes(relay, "--data", data, *BUDGET) as workers,
        ):
            await workers.start()
            async with Queue(data=data) as queue:
                await queue.submit(relay.ids)
            await asyncio.sleep(8)
            await workers.signal(signal.SIGKILL)
            for server in servers_in(data):
                os.kill(server, signal.SIGKILL)
            moment = time.monotonic()
            await workers.start()
            await asyncio.sleep(8)
            gaps = (await relay.since(moment))["gaps"]
            report("until the last open id was polled again", f"{max(gaps):.1f}", "s")
            async with Queue(data=data) as queue:
                results = ResultCounter(queue)
                await results.wait_for(relay.ids, 60)
                report("lost", results.lost(relay.ids))
                report("stored twice", results.duplicates)
                await results.stop()
            report("SIGTERM: exit after", f"{await workers.signal(signal.SIGTERM):.2f}", "s")
            report("servers left running", len(servers_in(data)))


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
