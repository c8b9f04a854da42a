"""What people have today: a coroutine for each id, as a task of a task queue (taskiq, streaq).

Each sends a GET of its own, sleeps, and repeats; failed requests are retried. What has ended is
stored in a list of Redis. Settings come from the environment, as both start this module by name.
"""

import asyncio
import os
from typing import Any

import aiohttp
import redis.asyncio

REDIS = os.environ.get("BENCH_REDIS", "redis://127.0.0.1:6379")
RELAY = os.environ.get("BENCH_RELAY", "")
KEY = os.environ.get("BENCH_KEY", "")
ENGINE = os.environ.get("BENCH_ENGINE", "")
INTERVAL = 5.0
CONNECTIONS = 20
AT_ONCE = 10_000
IDLE = 15
RESULTS = "bench:results"

_shared: dict[str, Any] = {}


async def wait_for(task_id: str) -> None:
    """Ask until a task has ended, and note it."""
    if not _shared:
        _shared["http"] = aiohttp.ClientSession(
            RELAY,
            headers={"Authorization": f"Bearer {KEY}"},
            connector=aiohttp.TCPConnector(limit=CONNECTIONS),
        )
        _shared["redis"] = redis.asyncio.from_url(REDIS)
    while True:
        try:
            async with _shared["http"].get(f"/luma/generations/{task_id}") as answer:
                if (await answer.json())["state"] in ("completed", "failed"):
                    break
        except (aiohttp.ClientError, TimeoutError, KeyError):
            pass
        await asyncio.sleep(INTERVAL)
    await _shared["redis"].rpush(RESULTS, task_id)


if ENGINE == "taskiq":
    from taskiq_redis import RedisStreamBroker

    broker = RedisStreamBroker(
        REDIS, idle_timeout=IDLE * 1000, unacknowledged_lock_timeout=5.0, consumer_id="0"
    )
    taskiq_wait = broker.task("wait")(wait_for)
elif ENGINE == "streaq":
    from streaq import Worker

    worker = Worker(redis_url=REDIS, concurrency=AT_ONCE, idle_timeout=IDLE)
    streaq_wait = worker.task(max_tries=None, silent=True)(wait_for)
