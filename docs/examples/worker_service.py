"""A web shop whose videos are waited for by workers, which outlive it.

python docs/examples/worker_service.py [PORT]
luma-async worker --data ./luma-data

POST /orders submits a video and hands its id to the workers; GET /orders/ID tells how it stands.
The ends are written to shop.db as they come, together with how far they were read: the shop may be
killed at any time, and goes on where it was.
"""

import asyncio
import logging
import os
import sqlite3
import sys
from collections.abc import AsyncGenerator
from contextlib import closing
from pathlib import Path

from aiohttp import web

from luma_async import LumaError, LumaSession, QueueError, SubmitUnknown
from luma_async.worker import End, Queue

DATA = Path(os.environ.get("LUMA_DATA", "./luma-data"))
TABLES = """
    CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, state TEXT, url TEXT);
    CREATE TABLE IF NOT EXISTS place (last INTEGER);
    INSERT INTO place SELECT 0 WHERE NOT EXISTS (SELECT * FROM place);
"""

LUMA = web.AppKey("LUMA", LumaSession)
QUEUE = web.AppKey("QUEUE", Queue)
SHOP = web.AppKey("SHOP", sqlite3.Connection)

logger = logging.getLogger("shop")
routes = web.RouteTableDef()


async def resources(app: web.Application) -> AsyncGenerator[None, None]:
    """Open what the shop needs, and read ends as long as it runs."""
    with closing(database()) as shop:
        async with LumaSession() as luma, Queue(data=DATA) as queue:
            app[LUMA], app[QUEUE], app[SHOP] = luma, queue, shop
            await hand_over(shop, queue)
            reading = asyncio.create_task(read_ends(shop, queue))
            yield
            reading.cancel()
            await asyncio.wait([reading])


def database() -> sqlite3.Connection:
    """Open the database, beside what the workers keep."""
    DATA.mkdir(parents=True, exist_ok=True)
    shop = sqlite3.connect(DATA / "shop.db")
    shop.executescript(TABLES)
    return shop


async def read_ends(shop: sqlite3.Connection, queue: Queue) -> None:
    """Write each end down, together with its place; a server that is away comes back."""
    while True:
        (last,) = shop.execute("SELECT last FROM place").fetchone()
        try:
            async for end in queue.results(since=last):
                write_down(shop, end)
        except QueueError as error:
            logger.error("%s", error)
            await asyncio.sleep(5)


def write_down(shop: sqlite3.Connection, end: End) -> None:
    """Write an end down, and its place with it, or neither."""
    url = end.generation.url if end.generation else None
    with shop:
        told = (end.state.value, url, end.id)
        shop.execute("UPDATE orders SET state = ?, url = ? WHERE id = ?", told)
        shop.execute("UPDATE place SET last = ?", (end.sequence,))
    logger.info("%r %s", end.id, end.state.value)


async def hand_over(shop: sqlite3.Connection, queue: Queue) -> None:
    """Hand new orders to the workers; an id that waits already is one, so twice is fine."""
    found = shop.execute("SELECT id FROM orders WHERE state = 'new'").fetchall()
    try:
        await queue.submit([task_id for (task_id,) in found])
    except QueueError as error:  # they are handed over with the next order, or at the next start
        logger.error("%s", error)
        return
    with shop:
        shop.executemany("UPDATE orders SET state = 'open' WHERE id = ? AND state = 'new'", found)


@routes.post("/orders")
async def post_order(request: web.Request) -> web.Response:
    """Submit a video, write it down, hand it to the workers: in this order nothing is lost."""
    try:
        prompt = str((await request.json())["prompt"])
    except (ValueError, TypeError, KeyError):
        raise web.HTTPBadRequest(text='send {"prompt": "…"}\n') from None
    task_id = await submit(request.app[LUMA], prompt)
    with request.app[SHOP] as shop:
        shop.execute("INSERT INTO orders VALUES (?, 'new', NULL)", (task_id,))
    await hand_over(request.app[SHOP], request.app[QUEUE])
    return web.json_response({"id": task_id}, status=202)


@routes.get("/orders/{task_id}")
async def get_order(request: web.Request) -> web.Response:
    """Tell how an order stands."""
    task_id = request.match_info["task_id"]
    shop = request.app[SHOP]
    row = shop.execute("SELECT state, url FROM orders WHERE id = ?", (task_id,)).fetchone()
    if row is None:
        raise web.HTTPNotFound(text="no such order\n")
    return web.json_response({"id": task_id, "state": row[0], "url": row[1]})


async def submit(luma: LumaSession, prompt: str) -> str:
    """Submit a video, and return its id."""
    try:
        return (await luma.create(prompt)).id
    except SubmitUnknown:
        raise web.HTTPGatewayTimeout(text="it may be made; ask before you order again\n") from None
    except LumaError as error:
        raise web.HTTPBadGateway(text=f"the relay refuses: {error}\n") from None


def application() -> web.Application:
    """Make the shop."""
    app = web.Application()
    app.add_routes(routes)
    app.cleanup_ctx.append(resources)
    return app


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
    web.run_app(application(), host="127.0.0.1", port=port, access_log=None)
