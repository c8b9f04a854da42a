"""Clients written by hand with aiohttp: singly, in batches, and in batches at the least cost."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from tests.bench.protocol import DONE, Go, singly

SEATS = 100
IN_FLIGHT = 8
ERRORS = (aiohttp.ClientError, TimeoutError, ValueError)

Chunks = Sequence[Sequence[str]]
Told = dict[str, str]


async def gets(go: Go) -> Told:
    async with aiohttp.ClientSession(go.url, headers=authorized(go)) as http:

        async def ask(task_id: str) -> str:
            async with http.get(f"/luma/generations/{task_id}") as response:
                response.raise_for_status()
                return str((await response.json())["state"])

        return await singly(go, ask, *ERRORS)


async def batch(go: Go) -> Told:
    slots = asyncio.Semaphore(IN_FLIGHT)
    async with aiohttp.ClientSession(go.url, headers=authorized(go)) as http:

        async def ask(ids: Sequence[str], told: Told) -> None:
            with suppress(*ERRORS):
                async with slots, http.post("/luma/tasks", json={"ids": ids}) as response:
                    response.raise_for_status()
                    rows: list[dict[str, Any]] = await response.json()
                told.update({row["id"]: row["state"] for row in rows if row["state"] in DONE})

        async def look(chunks: Chunks, told: Told) -> None:
            await asyncio.gather(*(ask(ids, told) for ids in chunks))

        return await in_rounds(go, look)


class Row(msgspec.Struct, gc=False):
    """What of a row must be known."""

    id: str
    state: str


async def floor(go: Go, *, spread: bool = False) -> Told:
    url = URL(f"{go.url}/luma/tasks", encoded=True)
    headers = {**authorized(go), "Content-Type": "application/json"}
    encode = msgspec.json.Encoder().encode
    decode = msgspec.json.Decoder(list[Row]).decode
    async with aiohttp.ClientSession(
        headers=headers,
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(),
    ) as http:

        async def some(chunks: Iterator[Sequence[str]], told: Told) -> None:
            for ids in chunks:
                with suppress(*ERRORS):
                    async with http.post(url, data=encode({"ids": ids})) as response:
                        rows = decode(await response.read())
                    for row in rows:
                        if row.state in DONE:
                            told[row.id] = row.state

        async def look(chunks: Chunks, told: Told) -> None:
            left = iter(chunks)
            await asyncio.gather(*(some(left, told) for _ in range(min(IN_FLIGHT, len(chunks)))))

        async def late(ids: Sequence[str], seconds: float, told: Told) -> None:
            await asyncio.sleep(seconds)
            await some(iter([ids]), told)

        async def spread_look(chunks: Chunks, told: Told) -> None:
            apart = go.interval / max(1, len(chunks))
            await asyncio.gather(*(late(ids, n * apart, told) for n, ids in enumerate(chunks)))

        return await in_rounds(go, spread_look if spread else look)


async def spread_floor(go: Go) -> Told:
    """Do the same with the requests of a round spread over the interval, as a poller's are."""
    return await floor(go, spread=True)


async def in_rounds(go: Go, look: Callable[[Chunks, Told], Awaitable[None]]) -> Told:
    """Look at all open ids every interval, or as soon as the last look is over."""
    loop = asyncio.get_running_loop()
    told: Told = {}
    pending = list(go.ids)
    due = loop.time()
    while True:
        await look([pending[at : at + SEATS] for at in range(0, len(pending), SEATS)], told)
        pending = [task_id for task_id in pending if task_id not in told]
        if not pending:
            return told
        due = max(due + go.interval, loop.time())
        await asyncio.sleep(due - loop.time())


def authorized(go: Go) -> dict[str, str]:
    return {"Authorization": f"Bearer {go.key}"}
