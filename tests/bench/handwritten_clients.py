"""Clients written by hand with aiohttp: singly, in batches, and in batches at the least cost."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from tests.bench.protocol import DONE, Go, singly

MAX_BATCH = 100
IN_FLIGHT = 8
ERRORS = (aiohttp.ClientError, TimeoutError, ValueError)

Chunks = Sequence[Sequence[str]]
States = dict[str, str]


async def gets(go: Go) -> States:
    async with aiohttp.ClientSession(go.url, headers=authorized(go)) as http:

        async def ask(task_id: str) -> str:
            async with http.get(f"/luma/generations/{task_id}") as response:
                response.raise_for_status()
                return str((await response.json())["state"])

        return await singly(go, ask, *ERRORS)


async def batch(go: Go, *, spread: bool = False) -> States:
    slots = asyncio.Semaphore(IN_FLIGHT)
    async with aiohttp.ClientSession(go.url, headers=authorized(go)) as http:

        async def ask(ids: Sequence[str], states: States) -> None:
            with suppress(*ERRORS):
                async with slots, http.post("/luma/tasks", json={"ids": ids}) as response:
                    response.raise_for_status()
                    rows: list[dict[str, Any]] = await response.json()
                states.update({row["id"]: row["state"] for row in rows if row["state"] in DONE})

        async def poll(chunks: Chunks, states: States) -> None:
            await asyncio.gather(*(ask(ids, states) for ids in chunks))

        return await in_rounds(go, spread_out(go, ask) if spread else poll)


async def spread_batch(go: Go) -> States:
    """Do the same with the requests of a round spread over the interval, as a poller's are."""
    return await batch(go, spread=True)


def spread_out(
    go: Go, ask: Callable[[Sequence[str], States], Awaitable[None]]
) -> Callable[[Chunks, States], Awaitable[None]]:
    async def late(ids: Sequence[str], seconds: float, states: States) -> None:
        await asyncio.sleep(seconds)
        await ask(ids, states)

    async def poll(chunks: Chunks, states: States) -> None:
        apart = go.interval / max(1, len(chunks))
        await asyncio.gather(*(late(ids, n * apart, states) for n, ids in enumerate(chunks)))

    return poll


class Row(msgspec.Struct, gc=False):
    """What of a row must be known."""

    id: str
    state: str


async def floor(go: Go, *, spread: bool = False) -> States:
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

        async def some(chunks: Iterator[Sequence[str]], states: States) -> None:
            for ids in chunks:
                with suppress(*ERRORS):
                    async with http.post(url, data=encode({"ids": ids})) as response:
                        rows = decode(await response.read())
                    for row in rows:
                        if row.state in DONE:
                            states[row.id] = row.state

        async def poll(chunks: Chunks, states: States) -> None:
            left = iter(chunks)
            await asyncio.gather(*(some(left, states) for _ in range(min(IN_FLIGHT, len(chunks)))))

        async def ask(ids: Sequence[str], states: States) -> None:
            await some(iter([ids]), states)

        return await in_rounds(go, spread_out(go, ask) if spread else poll)


async def spread_floor(go: Go) -> States:
    """Do the same with the requests of a round spread over the interval, as a poller's are."""
    return await floor(go, spread=True)


async def in_rounds(go: Go, poll: Callable[[Chunks, States], Awaitable[None]]) -> States:
    """Poll all open ids every interval, or as soon as the last round is over."""
    loop = asyncio.get_running_loop()
    states: States = {}
    pending = list(go.ids)
    due = loop.time()
    while True:
        await poll(
            [pending[at : at + MAX_BATCH] for at in range(0, len(pending), MAX_BATCH)], states
        )
        pending = [task_id for task_id in pending if task_id not in states]
        if not pending:
            return states
        due = max(due + go.interval, loop.time())
        await asyncio.sleep(due - loop.time())


def authorized(go: Go) -> dict[str, str]:
    return {"Authorization": f"Bearer {go.key}"}
