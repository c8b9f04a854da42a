"""luma_async as a client among others: one call, as many callers as ids, and at a fixed pace."""

import asyncio
from collections.abc import Iterable

from luma_async import Every, Generation, Learned, Limits, LumaSession, Pace
from tests.bench.protocol import Go

LIMITS = Limits(max_batch=100, max_in_flight=8, max_rate=1e6)


async def one_call(go: Go) -> dict[str, str]:
    async with session(go, Learned(go.interval)) as luma:
        return states((await luma.wait_until_done(go.ids)).values())


async def as_many_callers(go: Go) -> dict[str, str]:
    async with session(go, Learned(go.interval)) as luma:
        callers = (luma.wait_until_done(task_id) for task_id in go.ids)
        return states(await asyncio.gather(*callers))


async def every(go: Go) -> dict[str, str]:
    async with session(go, Every(go.interval)) as luma:
        return states((await luma.wait_until_done(go.ids)).values())


def session(go: Go, pace: Pace) -> LumaSession:
    return LumaSession(go.url, api_key=go.key, pace=pace, limits=LIMITS)


def states(generations: Iterable[Generation]) -> dict[str, str]:
    return {generation.id: str(generation.state) for generation in generations}
