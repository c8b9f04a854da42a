"""Kills, freezes, partitions and restarts of workers and NATS servers, by a seed.

    python -m tests.bench.chaos --seed 1                    # 3,000 ids, two minutes
    python -m tests.bench.chaos --seed 1 --ids 600 --seconds 25 --rate 8
    python -m tests.bench.chaos --seed 1 --nodes 3          # on a cluster of three

Three workers share one budget. Each id is submitted several times; the relay has a new version of
the task each time, so that an old result is recognized. Waits, and readers that come and go, read
the results. Printed are: ids that were lost, wrong results, old results for new submissions,
results that were stored twice (without a server that has lost data, none), the most requests in any
second against the total, and how long it took until all were reported.
"""

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, suppress
from pathlib import Path

from luma_async import QueueError, WaitIncomplete
from luma_async.structs import Generation
from luma_async.worker import Queue
from tests.bench.chaos_findings import Findings
from tests.bench.chaos_parts import Proxy, Relay, Servers, WorkerProcess
from tests.bench.processes import queue_at
from tests.bench.run_client import Process as LineProcess

WORKERS = 3
LEASE = 5.0  # seconds
HEAL_FOR = 120.0  # seconds after the chaos in which all must be reported
FAULTS = ("storm", "throttled", "reset", "latency", "not_json", "truncated", "half_closed")


class Chaos:
    """One run."""

    def __init__(self, options: argparse.Namespace, relay: Relay, servers: Servers) -> None:
        self.options = options
        self.relay = relay
        self.servers = servers
        self.dice = random.Random(options.seed)
        self.workers: list[WorkerProcess] = []
        self.findings = Findings()
        self.open: set[str] = set()
        self.submitted: dict[str, tuple[float, int]] = {}  # when, and which version
        self.is_over = False

    # clients

    async def client(self, queue: Queue, task_id: str, dice: random.Random) -> None:
        """Submit an id several times, and wait for each result."""
        self.open.add(task_id)
        seconds = self.options.seconds
        await asyncio.sleep(dice.uniform(0.0, 0.6 * seconds))
        for version in range(1, dice.choice([2, 3, 3, 4])):
            duration = dice.uniform(0.0, 0.25 * seconds)
            await self.relay.command(add=task_id, version=version, duration=duration)
            await self.submit(queue, task_id, version)
            self.findings.submissions += 1
            generation = await self.result(queue, task_id)
            self.findings.returned(task_id, version, generation)
            if self.is_over:
                break
            await asyncio.sleep(dice.choice([0.0, dice.uniform(0.0, 0.1 * seconds)]))
        self.open.discard(task_id)

    async def submit(self, queue: Queue, task_id: str, version: int) -> None:
        """Submit an id until it is certain that the queue has this submission."""
        began_at = queue.server_time() - 0.1
        accepted = self.findings.accepted
        while True:
            try:
                if await queue.submit([task_id]):
                    break
                # It waits already: by this submission, or by one whose ack is still to come.
                waiting = await queue.id_streams(task_id).read_waiting()
                if waiting is not None and waiting.time / 1e6 >= began_at:
                    break
            except Exception:
                accepted[task_id, version] += 1  # perhaps
            await asyncio.sleep(0.2)
        accepted[task_id, version] += 1
        self.submitted[task_id] = time.monotonic(), version

    async def result(self, queue: Queue, task_id: str) -> Generation:
        while True:
            try:
                return await queue.wait_submitted(task_id, timeout=60.0)
            except WaitIncomplete as error:
                if error.missing:
                    self.findings.wrong.append(f"{task_id}: {error}")
            except QueueError:
                await asyncio.sleep(0.5)

    async def reader(self, *, comes_and_goes: bool, dice: random.Random) -> None:
        """Read all results; the one that stays checks them."""
        last = 0
        while True:
            seconds = dice.uniform(1.0, 8.0) if comes_and_goes else None
            with suppress(Exception):
                async with asyncio.timeout(seconds), Queue(self.servers.url) as queue:
                    async with aclosing(queue.results(since=last)) as results:
                        async for end in results:
                            last = end.sequence
                            if not comes_and_goes:
                                self.findings.read(end)
            await asyncio.sleep(dice.uniform(0.0, 2.0))

    # chaos

    async def trouble_worker(self, worker: WorkerProcess, dice: random.Random) -> None:
        proxy = worker.proxy
        await self.cause(
            dice,
            {
                "worker killed": lambda: worker.kill(dice.uniform(0, 3)),
                "worker stopped": lambda: worker.kill(dice.uniform(0, 3), signal.SIGTERM),
                "worker frozen": lambda: worker.freeze(dice.uniform(0.2, 2 * LEASE)),
                "worker cut off": lambda: proxy.cut(dice.uniform(0.2, 2 * LEASE), close=True),
                "worker delayed": lambda: proxy.cut(dice.uniform(0.2, 2 * LEASE), close=False),
            },
            pause=6.0,
        )

    async def trouble_server(self, dice: random.Random) -> None:
        nodes = self.options.nodes
        kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "server killed": lambda: self.servers.restart(dice.randrange(nodes), dice.random() * 3),
            "server frozen": lambda: self.servers.freeze(dice.randrange(nodes), dice.random() * 3),
        }
        if nodes == 1 and not self.options.keep_data:
            kinds["server lost its newest second"] = self.lose_newest_second
        await self.cause(dice, kinds, pause=16.0)

    async def cause(
        self, dice: random.Random, kinds: dict[str, Callable[[], Awaitable[None]]], pause: float
    ) -> None:
        """Cause one trouble after the other until the chaos is over."""
        while not self.is_over:
            await asyncio.sleep(dice.uniform(0.0, pause))
            if not self.is_over:
                self.findings.events[name := dice.choice(list(kinds))] += 1
                await kinds[name]()

    async def faults(self, dice: random.Random) -> None:
        chosen = {name: dice.uniform(0.02, 0.15) for name in dice.sample(FAULTS, 2)}
        await self.relay.command(faults=chosen)
        await asyncio.sleep(dice.uniform(1.0, 5.0))
        await self.relay.command(faults={})

    async def lose_newest_second(self) -> None:
        """Submissions of the newest second are lost: submit them again."""
        began_at = time.monotonic()
        await self.servers.lose_newest_second(0)
        await asyncio.sleep(0.5)  # for clients that have not read their last answer yet
        lost = {one: v for one, (at, v) in self.submitted.items() if at >= began_at - 0.2}
        async with queue_at(self.servers) as queue:
            await asyncio.gather(*(self.submit(queue, one, v) for one, v in lost.items()))

    async def supervise(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            for worker in self.workers:
                await worker.restart_if_ended()

    # the run

    async def run(self, queue: Queue) -> float | None:
        """Run; return the seconds from the end of the chaos until all was reported, or None."""
        seeds = [random.Random(self.dice.random()) for _ in range(self.options.ids + 4)]
        background = [
            asyncio.create_task(self.reader(comes_and_goes=False, dice=seeds[0])),
            asyncio.create_task(self.reader(comes_and_goes=True, dice=seeds[1])),
            asyncio.create_task(self.supervise()),
        ]
        clients = [
            asyncio.create_task(self.client(queue, f"id-{number}", seeds[number + 4]))
            for number in range(self.options.ids)
        ]
        await asyncio.sleep(2.0)
        troubles = [
            asyncio.create_task(self.trouble_server(seeds[2])),
            asyncio.create_task(
                self.cause(seeds[3], {"relay trouble": lambda: self.faults(seeds[3])}, pause=10.0)
            ),
            *(
                asyncio.create_task(self.trouble_worker(worker, random.Random(seeds[2].random())))
                for worker in self.workers
            ),
        ]
        await asyncio.sleep(self.options.seconds)
        self.is_over = True
        await asyncio.gather(*troubles)
        healed_at = time.monotonic()
        await asyncio.wait(clients, timeout=HEAL_FOR)
        took = time.monotonic() - healed_at
        await asyncio.sleep(1.0)
        for task in (*background, *clients):
            task.cancel()
        await asyncio.wait([*background, *clients])
        return None if self.open else took


def show(chaos: Chaos, took: float | None, relay: dict[str, object]) -> bool:
    """Print the report; return whether all is as promised."""
    found, options = chaos.findings, chaos.options
    losses = found.events["server lost its newest second"]
    most = int(str(relay["most"]))
    print(f"seed {options.seed}: {options.ids} ids, {found.submissions} submissions, "
          f"{options.seconds:g} s of chaos, {options.nodes} server(s)")  # fmt: skip
    print("  " + ", ".join(f"{name} {count}" for name, count in sorted(found.events.items())))
    for name, value in (
        ("lost", len(chaos.open)),
        ("wrong", len(found.wrong)),
        ("old for new", len(found.old)),
        ("stored twice", f"{found.twice} (the server lost data {losses} times)"),
        ("most requests in a second", f"{most} of {options.rate:g}"),
        ("all reported after the chaos", "never" if took is None else f"{took:.1f} s"),
        ("requests", relay["requests"]),
    ):
        print(f"  {name:<32} {value}")
    for line in (*found.wrong[:5], *found.old[:5], *sorted(chaos.open)[:5]):
        print(f"    {line}")
    promised = not (chaos.open or found.wrong or found.old) and most <= options.rate
    return promised and (losses > 0 or not found.twice)


async def main(options: argparse.Namespace) -> bool:
    async with AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        process = LineProcess("tests.bench.chaos_relay", str(options.seed))
        relay = Relay(await stack.enter_async_context(process))
        await relay.start()
        servers = Servers(home, options.nodes)
        for node in range(options.nodes):
            await servers.start(node)
        chaos = Chaos(options, relay, servers)
        try:
            queue = await stack.enter_async_context(queue_at(servers))
            for number in range(WORKERS):
                proxy = Proxy(servers.ports[number % len(servers.ports)])
                await proxy.start()
                log = Path(options.logs or home) / f"worker{number}.log"
                settings = ["--share-budget", "--max-rate", str(options.rate), "--interval", "1"]
                settings += ["--ack-wait", str(LEASE)]
                chaos.workers.append(WorkerProcess(relay, proxy, log, settings))
                await chaos.workers[-1].start()
            took = await chaos.run(queue)
            return show(chaos, took, await relay.command(report=True))
        finally:
            for worker in chaos.workers:
                await worker.stop()
                await worker.proxy.close()
            await servers.stop()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ids", type=int, default=3000)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--rate", type=float, default=20.0, help="requests in any second")
    parser.add_argument("--nodes", type=int, default=1, choices=[1, 3], help="NATS servers")
    parser.add_argument("--keep-data", action="store_true", help="no server loses data")
    parser.add_argument("--logs", help="a directory for the logs of the workers")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(main(arguments())) else 1)
