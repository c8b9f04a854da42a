"""Callers of every kind that wait for the same tasks, and the tally of their results."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from luma_async import LumaError, LumaSession, State
from luma_async.testing import FakeRelay


@dataclass(frozen=True)
class Fate:
    """The plan of one task: its seconds until the end, and its final state."""

    task_id: str
    seconds: float
    ends: Literal["completed", "failed"]


@dataclass(frozen=True)
class Tally:
    """How many tasks were reported rightly, never, wrongly, and twice; how many waits failed."""

    reported: int
    lost: int
    wrong: int
    twice: int
    broken: int

    @property
    def clean(self) -> bool:
        return not (self.lost or self.wrong or self.twice or self.broken)


def fates(count: int, shortest: float, longest: float, seed: int = 0) -> list[Fate]:
    """Draw the fates of so many tasks; one in ten fails."""
    dice = random.Random(seed)
    return [
        Fate(
            f"task-{number:06}",
            dice.uniform(shortest, longest),
            "failed" if dice.random() < 0.1 else "completed",
        )
        for number in range(count)
    ]


def play(relay: FakeRelay, tasks: Iterable[Fate]) -> None:
    for task in tasks:
        relay.add(task.task_id, duration=task.seconds, ends=task.ends, queued=task.seconds / 4)


async def wait_for_all(luma: LumaSession, tasks: Sequence[Fate]) -> Tally:
    """Wait for all tasks: half in one call, a quarter by one call each, the rest by readers."""
    ids = [task.task_id for task in tasks]
    reported: list[tuple[str, State]] = []
    half, most, rest = len(ids) // 2, len(ids) * 3 // 4, len(ids) * 7 // 8

    async def many(some: Sequence[str]) -> None:
        for task_id, generation in (await luma.wait_until_done(some, timeout=None)).items():
            reported.append((task_id, generation.state))

    async def one(task_id: str) -> None:
        reported.append((task_id, (await luma.wait_until_done(task_id, timeout=None)).state))

    async def as_completed(some: Sequence[str]) -> None:
        ends = luma.as_completed(some, timeout=None)
        reported.extend([(generation.id, generation.state) async for generation in ends])

    async def watch(some: Sequence[str]) -> None:
        changes = luma.watch(some, timeout=None)
        reported.extend([(one.id, one.state) async for one in changes if one.is_done])

    callers = [many(ids[:half]), *map(one, ids[half:most]), as_completed(ids[most:rest])]
    ends = await asyncio.gather(*callers, watch(ids[rest:]), return_exceptions=True)
    errors = [error for error in ends if error]
    for error in errors:
        if not isinstance(error, LumaError):
            raise error
        print(f"a caller received {error!r}")
    return _tally(tasks, reported, len(errors))


def _tally(tasks: Sequence[Fate], reported: Sequence[tuple[str, State]], broken: int) -> Tally:
    right = {task.task_id: State(task.ends) for task in tasks}
    times = Counter(task_id for task_id, _ in reported)
    return Tally(
        reported=sum(right[task_id] is state for task_id, state in set(reported)),
        lost=sum(task_id not in times for task_id in right),
        wrong=sum(right[task_id] is not state for task_id, state in reported),
        twice=sum(count > 1 for count in times.values()),
        broken=broken,
    )
