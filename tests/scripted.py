"""A relay without a socket: the two calls, and a count of what became of the requests."""

import asyncio
from collections.abc import Callable, Sequence

from luma_async.structs import State
from tests.answers import Told


class ScriptedRelay:
    """Answers after `latency` seconds what `play` says of each id; None is an unknown id."""

    def __init__(self, play: Callable[[str], State | None], latency: float = 0.1) -> None:
        self.play = play
        self.latency = latency
        self.asked: list[tuple[str, ...]] = []
        self.under_way = 0
        self.cancelled = 0

    async def get(self, task_id: str) -> Told:
        return await self._ask([task_id])

    async def get_many(self, ids: Sequence[str]) -> Told:
        return await self._ask(ids)

    async def _ask(self, ids: Sequence[str]) -> Told:
        self.asked.append(tuple(ids))
        self.under_way += 1
        try:
            await asyncio.sleep(self.latency)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.under_way -= 1
        return Told({i: state for i in ids if (state := self.play(i))})
