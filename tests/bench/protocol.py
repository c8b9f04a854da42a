"""What the processes of a comparison send to each other, and the loop of one request per id."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

DONE = frozenset({"completed", "failed"})


@dataclass(frozen=True)
class Course:
    """What is to be run: so many tasks, each as long as the seed draws it; times in seconds.

    `latency` is what the relay waits before it answers.
    """

    ids: int
    seed: int
    interval: float
    shortest: float
    longest: float
    connections: int
    latency: float = 0.02


@dataclass(frozen=True)
class Go:
    """What a client is given: a relay, ids, and the seconds between two polls of an id.

    `connections` is for sdk and httpx.
    """

    url: str
    key: str
    ids: Sequence[str]
    interval: float
    connections: int


@dataclass(frozen=True)
class Spent:
    """What a client's process spent: seconds of CPU, seconds, MiB of memory at its peak."""

    cpu: float
    seconds: float
    memory: float


@dataclass(frozen=True)
class Seen:
    """What the relay saw of a client: `lag` and `late` (95 %) in seconds, `busy` a share of 1."""

    requests: int
    asked: int
    lag: float
    late: float
    connections: int
    busy: float


Client = Callable[[Go], Awaitable[dict[str, str]]]


async def singly(
    go: Go, ask: Callable[[str], Awaitable[str | None]], *errors: type[Exception]
) -> dict[str, str]:
    """Run a coroutine for each id: ask, and ask again after the interval."""

    async def one(task_id: str) -> str:
        while True:
            with suppress(*errors):
                state = await ask(task_id)
                if state in DONE:
                    return str(state)
            await asyncio.sleep(go.interval)

    return dict(zip(go.ids, await asyncio.gather(*map(one, go.ids)), strict=True))
