"""What callers cost: 10,000 ids in one call against 10,000 callers with one id each.

    python -m tests.bench.callers_vs_ids [--ids N] [--interval S] [--rounds N] [--real]

Both run on FakeRelay over real HTTP, 100 ids a request. The figure is requests per interval, and
the ratio of the two; the clock is virtual, or real with --real.
"""

import argparse
import asyncio
import time
from collections.abc import Sequence

from luma_async import Every, Limits, LumaSession, WaitTimeout
from luma_async.testing import FakeRelay, run_virtual


async def requests_per_interval(ids: int, callers: int, interval: float, rounds: int) -> float:
    """Return the mean over the rounds that follow the first."""
    loop = asyncio.get_running_loop()
    async with FakeRelay(latency=0.05) as relay:
        tasks = [relay.add(ends="never") for _ in range(ids)]
        limits = Limits(max_batch=100, max_in_flight=20, max_rate=100.0)
        pace = Every(interval)
        begun = loop.time()
        async with LumaSession(relay.url, api_key=relay.api_key, pace=pace, limits=limits) as luma:
            size = ids // callers
            parts = [tasks[start : start + size] for start in range(0, ids, size)]
            await asyncio.gather(*(_wait(luma, part, (rounds + 1) * interval) for part in parts))
        since = begun + interval
        counted = [asked for asked in relay.log if since <= asked.at < since + rounds * interval]
    return len(counted) / rounds


async def _wait(luma: LumaSession, ids: Sequence[str], timeout: float) -> None:
    try:
        await luma.wait_until_done(ids, timeout=timeout)
    except WaitTimeout:
        return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--ids", type=int, default=10_000)
    parser.add_argument("--interval", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--real", action="store_true", help="let the clock be real")
    args = parser.parse_args()
    run = asyncio.run if args.real else run_virtual
    figures: list[float] = []
    for callers in (1, args.ids):
        begun = time.perf_counter()
        figure = run(requests_per_interval(args.ids, callers, args.interval, args.rounds))
        seconds = time.perf_counter() - begun
        print(f"{callers:>6} callers: {figure:.1f} requests per interval ({seconds:.1f} s to run)")
        figures.append(figure)
    print(f"ratio {figures[1] / figures[0]:.3f}; the floor is {-(-args.ids // 100)}")


if __name__ == "__main__":
    main()
