"""An hour of polling 1,000 ids, in virtual time: how many real seconds it takes.

    python -m tests.bench.virtual_hour [--ids N] [--hours H]

Two rows: over real HTTP to FakeRelay in the same loop, and with a relay that is a function.
"""

import argparse
import asyncio
import time

from luma_async import Every, Limits, LumaSession, WaitTimeout
from luma_async.polling.poller import Poller
from luma_async.polling.wait import Notify, Wait
from luma_async.scheduling.changes import Grace
from luma_async.structs import State
from luma_async.testing import FakeRelay, run_virtual
from tests.in_memory_relays import ScriptedRelay


async def over_http(ids: int, seconds: float) -> int:
    async with FakeRelay() as relay:
        tasks = [relay.add(ends="never") for _ in range(ids)]
        async with LumaSession(relay.url, api_key=relay.api_key) as luma:
            try:
                await luma.wait_until_done(tasks, timeout=seconds)
            except WaitTimeout:
                return luma.stats.requests
    raise AssertionError("the wait should run out of time")


async def over_a_function(ids: int, seconds: float) -> int:
    relay = ScriptedRelay(lambda _: State.PROCESSING)
    poller = Poller(relay, Every(5.0), Limits(), Grace(), request_timeout=30.0)
    wait = Wait(poller, relay, tuple(map(str, range(ids))), seconds, Notify.NOTHING)
    try:
        await wait.start()
        await wait.wait_for_news()
    except WaitTimeout:
        return poller.snapshot().requests
    finally:
        wait.stop()
        await asyncio.sleep(0)
    raise AssertionError("the wait should run out of time")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--ids", type=int, default=1000)
    parser.add_argument("--hours", type=float, default=1.0)
    args = parser.parse_args()
    for name, scenario in (("HTTP", over_http), ("function", over_a_function)):
        begun = time.perf_counter()
        requests = run_virtual(scenario(args.ids, args.hours * 3600.0))
        seconds = time.perf_counter() - begun
        print(f"{name:>8}: {seconds:.2f} s for {requests} requests about {args.ids} ids")


if __name__ == "__main__":
    main()
