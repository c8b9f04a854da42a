"""Clients that stand on httpx: the official SDK, as it comes and with care, and httpx itself.

With care: no more coroutines ask at a time than there are connections, since httpcore goes through
all that wait for one at each request; and connections are few and kept, since for each that is idle
it goes through all of them.
"""

import asyncio

import httpx

from tests.bench.protocol import Go, singly

TIMEOUT = httpx.Timeout(30.0, pool=None)


async def as_it_comes(go: Go) -> dict[str, str]:
    from lumaai import APIError, AsyncLumaAI

    async with AsyncLumaAI(auth_token=go.key, base_url=f"{go.url}/luma") as luma:

        async def ask(task_id: str) -> str | None:
            state: str | None = (await luma.generations.get(task_id)).state
            return state

        return await singly(go, ask, APIError)


async def official(go: Go) -> dict[str, str]:
    from lumaai import APIError, AsyncLumaAI, DefaultAsyncHttpxClient

    slots = asyncio.Semaphore(go.connections)
    http = DefaultAsyncHttpxClient(limits=limits(go), timeout=TIMEOUT)
    async with AsyncLumaAI(
        auth_token=go.key, base_url=f"{go.url}/luma", timeout=TIMEOUT, http_client=http
    ) as luma:

        async def ask(task_id: str) -> str | None:
            async with slots:
                state: str | None = (await luma.generations.get(task_id)).state
            return state

        return await singly(go, ask, APIError)


async def plain(go: Go) -> dict[str, str]:
    slots = asyncio.Semaphore(go.connections)
    headers = {"Authorization": f"Bearer {go.key}"}
    async with httpx.AsyncClient(
        base_url=go.url, headers=headers, limits=limits(go), timeout=TIMEOUT
    ) as http:

        async def ask(task_id: str) -> str:
            async with slots:
                response = await http.get(f"/luma/generations/{task_id}")
            response.raise_for_status()
            return str(response.json()["state"])

        return await singly(go, ask, httpx.HTTPError, ValueError)


def limits(go: Go) -> httpx.Limits:
    return httpx.Limits(max_connections=go.connections, max_keepalive_connections=go.connections)
