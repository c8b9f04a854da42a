"""A FastAPI service that waits in the background with a limit, and answers with what it has.

python docs/examples/partial_results.py [PORT]

POST /orders submits one video for each prompt, by a request of its own. GET /orders/ID answers with
the videos that have ended so far, and with the ids of the open ones.
"""

import asyncio
import itertools
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Literal

import aiohttp
import uvicorn
from fastapi import FastAPI, HTTPException, Query
from pydantic import BaseModel, Field

from luma_async import Learned, LumaSession, WaitIncomplete

PACE = Learned(float(os.environ.get("PACE", "5")))  # seconds; less where videos take seconds
LIMIT = float(os.environ.get("LIMIT", "600"))  # seconds to wait for an order


class NewOrder(BaseModel):
    """What a customer sends."""

    prompts: list[str] = Field(min_length=1, max_length=100)


class Video(BaseModel):
    """One video that has ended."""

    id: str
    state: str
    url: str | None
    reason: str | None


class Order(BaseModel):
    """What a customer gets: all videos so far."""

    id: int
    status: Literal["waiting", "complete", "out of time", "aborted"] = "waiting"
    done: list[Video] = []
    open: list[str]


# start of the orders
class Orders:
    """Submits orders, and waits for each of them for `LIMIT` seconds."""

    def __init__(self, luma: LumaSession, http: aiohttp.ClientSession) -> None:
        self._luma = luma
        self._http = http
        self._numbers = itertools.count(1)
        self.orders: dict[int, Order] = {}
        self.waits: dict[int, asyncio.Task[None]] = {}

    async def submit(self, prompt: str) -> str:
        """Submit a task by hand; `luma.create(prompt)` also knows what may be sent again."""
        body = {"user_prompt": prompt, "aspect_ratio": "16:9"}
        async with self._http.post("luma/generations", json=body) as response:
            response.raise_for_status()
            task_id: str = (await response.json())["id"]
            return task_id

    async def add(self, prompts: list[str]) -> Order:
        """Submit an order, and wait for it in the background."""
        order = Order(id=next(self._numbers), open=[await self.submit(one) for one in prompts])
        self.orders[order.id] = order
        self.waits[order.id] = asyncio.create_task(self._wait(order))
        return order

    async def _wait(self, order: Order) -> None:
        """Move each video from `open` to `done` when it ends; stop after `LIMIT` seconds."""
        try:
            async for video in self._luma.as_completed(list(order.open), timeout=LIMIT):
                reason = video.failure_reason
                order.open.remove(video.id)
                order.done.append(
                    Video(id=video.id, state=video.state.value, url=video.url, reason=reason)
                )
            order.status = "complete"
        except TimeoutError:  # WaitTimeout is one; what has ended is in `done`
            order.status = "out of time"
        except WaitIncomplete:  # the key was rejected, or the relay lost a task
            order.status = "aborted"


# end of the orders
# start of the service
@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
    """Keep one session for the whole service; it ends when the service does."""
    base_url, key = os.environ["LUMA_BASE_URL"], os.environ["LUMA_API_KEY"]
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession(f"{base_url}/", headers=headers) as http,
        LumaSession(base_url, api_key=key, pace=PACE) as luma,
    ):
        app.state.orders = orders = Orders(luma, http)
        yield
        for wait in orders.waits.values():
            wait.cancel()


app = FastAPI(lifespan=lifespan)


@app.post("/orders", status_code=202)
async def post_order(new: NewOrder) -> Order:
    """Submit an order; respond before its videos are made."""
    orders: Orders = app.state.orders
    try:
        return await orders.add(new.prompts)
    except aiohttp.ClientError as error:
        raise HTTPException(502, f"the relay refuses: {error}") from None


@app.get("/orders/{number}")
async def get_order(number: int, wait: Annotated[float, Query(ge=0, le=30)] = 0.0) -> Order:
    """Respond with what is there, after up to `wait` seconds if the order is not complete."""
    orders: Orders = app.state.orders
    if number not in orders.orders:
        raise HTTPException(404, "no such order")
    if wait:
        await asyncio.wait([orders.waits[number]], timeout=wait)
    return orders.orders[number]


# end of the service
if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]) if len(sys.argv) > 1 else 8080)
