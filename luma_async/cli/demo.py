"""The demo: many tasks on a relay of our own, one wait for all of them, and what it cost.

The relay is a `FakeRelay` in the same event loop, asked over real HTTP on loopback: no key, no
network. All that can be computed is computed here, by pure functions; how it looks is the command
line's business.
"""

import asyncio
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from luma_async.scheduling.pace import Every
from luma_async.scheduling.throttle import Limits
from luma_async.session import LumaSession
from luma_async.structs import Generation, State
from luma_async.testing import FakeRelay

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

FAILING = 0.08
TICK = 0.1

_ROOM = 1.2


class Settings(Struct, frozen=True, kw_only=True):
    """What the demo plays: `tasks` that end at random over about `seconds`.

    `interval` is seconds from one look at a task to the next. The same `seed` plays the same tasks.
    """

    tasks: int = 1000
    seconds: float = 20.0
    interval: float = 1.0
    seed: int = 0


class Fate(Struct, frozen=True, kw_only=True):
    """What becomes of one task: pending for `queued` seconds, and ended `duration` seconds on.

    Both are seconds since its submission.
    """

    queued: float
    duration: float
    ends: Literal["completed", "failed"]


class Progress(Struct, frozen=True, kw_only=True):
    """What the session knows and has spent, `elapsed` seconds after the submission.

    The four states count tasks. What they lack of `tasks` has not been answered for yet.
    """

    tasks: int
    elapsed: float
    pending: int
    processing: int
    completed: int
    failed: int
    requests: int
    in_flight: int


class Report(Struct, frozen=True, kw_only=True):
    """How the demo ended.

    `requests` arrived at the relay; `requests_singly` would have, had each task been asked about
    alone, every `interval` seconds. The lags are seconds from the true end of a task to its news;
    `seconds` is from the submission to the last news.
    """

    completed: int
    failed: int
    interval: float
    requests: int
    requests_singly: int
    lag_mean: float
    lag_p95: float
    seconds: float

    @property
    def tasks(self) -> int:
        """How many tasks ended."""
        return self.completed + self.failed

    @property
    def ratio(self) -> float:
        """How many times the requests spent asking singly would have taken."""
        return self.requests_singly / self.requests


Show = Callable[[Progress], None]


def fates(settings: Settings) -> list[Fate]:
    """Draw what becomes of each task, FAILING of them failing; equal settings draw the same."""
    dice = random.Random(settings.seed)  # noqa: S311 - a plan that repeats is the point
    failing = set(dice.sample(range(settings.tasks), round(settings.tasks * FAILING)))
    return [_fate(dice, settings.seconds, number in failing) for number in range(settings.tasks)]


def _fate(dice: random.Random, seconds: float, fails: bool) -> Fate:
    duration = dice.uniform(0.0, seconds)
    queued = duration * dice.uniform(0.1, 0.5)
    return Fate(queued=queued, duration=duration, ends="failed" if fails else "completed")


def looks_singly(duration: float, interval: float) -> int:
    """Count the GETs for one task: at once, then every `interval`, until one finds it ended."""
    return math.ceil(duration / interval) + 1


def percentile(values: Iterable[float], percent: float) -> float:
    """Return the least value that at least `percent` of 100 values do not exceed; 0 for none."""
    ranked = sorted(values)
    rank = math.ceil(len(ranked) * percent / 100)
    return ranked[max(rank, 1) - 1] if ranked else 0.0


def limits_for(settings: Settings) -> Limits:
    """Return the default limits, unless one look at every task does not fit into an interval.

    Then, and only then, `max_rate` is raised to what a full round needs, and a fifth above that:
    the demo is to show the pace it was given, and its relay minds no crowd.
    """
    usual = Limits()
    needed = math.ceil(settings.tasks / usual.max_batch) / settings.interval
    return usual if needed <= usual.max_rate else Limits(max_rate=needed * _ROOM)


def report(
    settings: Settings,
    plan: Sequence[Fate],
    *,
    ends: Counter[State],
    lags: Sequence[float],
    requests: int,
    seconds: float,
) -> Report:
    """Sum up a run: its plan, the ends and lags told, and what arrived at the relay."""
    return Report(
        completed=ends[State.COMPLETED],
        failed=ends[State.FAILED],
        interval=settings.interval,
        requests=requests,
        requests_singly=sum(looks_singly(fate.duration, settings.interval) for fate in plan),
        lag_mean=math.fsum(lags) / len(lags),
        lag_p95=percentile(lags, 95),
        seconds=seconds,
    )


class Tally:
    """Counts the tasks in each state, by the news of each change."""

    def __init__(self) -> None:
        self.counts: Counter[State] = Counter()
        self._known: dict[str, State] = {}

    def learn(self, generation: Generation) -> None:
        """Move one task to the state it is in now."""
        before = self._known.get(generation.id)
        if before is not None:
            self.counts[before] -= 1
        self._known[generation.id] = generation.state
        self.counts[generation.state] += 1


async def demo(settings: Settings, show: Show | None = None) -> Report:
    """Submit the tasks, wait for all of them, and report; `show` is told ten times a second."""
    loop = asyncio.get_running_loop()
    plan = fates(settings)
    async with FakeRelay(seed=settings.seed) as relay, _session(relay, settings) as luma:
        begun = loop.time()
        due = _submit(relay, plan)
        ends: Counter[State] = Counter()
        lags: list[float] = []
        async with _shown(luma, list(due), show):
            async for generation in luma.as_completed(due, timeout=None):
                lags.append(loop.time() - due[generation.id])
                ends[generation.state] += 1
        seconds = loop.time() - begun
        return report(
            settings, plan, ends=ends, lags=lags, requests=relay.requests, seconds=seconds
        )


def _session(relay: FakeRelay, settings: Settings) -> LumaSession:
    return LumaSession(
        relay.url,
        api_key=relay.api_key,
        pace=Every(settings.interval),
        limits=limits_for(settings),
    )


def _submit(relay: FakeRelay, plan: Sequence[Fate]) -> dict[str, float]:
    """Submit the tasks, and tell when each is going to end, by the clock of the loop."""
    ids = [relay.add(duration=f.duration, ends=f.ends, queued=f.queued) for f in plan]
    tasks = relay.tasks
    return {i: tasks[i].submitted_at + f.duration for i, f in zip(ids, plan, strict=True)}


@asynccontextmanager
async def _shown(
    luma: LumaSession, ids: list[str], show: Show | None
) -> "AsyncGenerator[None, None]":
    """Follow the tasks by a second wait, which costs no request, and show them meanwhile."""
    if show is None:
        yield
        return
    tally = Tally()
    async with asyncio.TaskGroup() as group:
        follower = group.create_task(_follow(luma, ids, tally))
        ticker = group.create_task(_tick(luma, len(ids), tally, show))
        yield
        follower.cancel()
        ticker.cancel()


async def _follow(luma: LumaSession, ids: list[str], tally: Tally) -> None:
    async for generation in luma.watch(ids, timeout=None):
        tally.learn(generation)


async def _tick(luma: LumaSession, tasks: int, tally: Tally, show: Show) -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    while True:
        show(_progress(luma, tasks, tally, loop.time() - begun))
        await asyncio.sleep(TICK)


def _progress(luma: LumaSession, tasks: int, tally: Tally, elapsed: float) -> Progress:
    stats = luma.stats
    return Progress(
        tasks=tasks,
        elapsed=elapsed,
        pending=tally.counts[State.PENDING],
        processing=tally.counts[State.PROCESSING],
        completed=tally.counts[State.COMPLETED],
        failed=tally.counts[State.FAILED],
        requests=stats.requests,
        in_flight=stats.in_flight,
    )
