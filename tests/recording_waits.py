"""Waits and callers that record what they received, and when."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import inf
from typing import TypeAlias

from luma_async.errors import LumaError
from luma_async.polling.direct import DirectClient
from luma_async.polling.interfaces import Watcher
from luma_async.polling.iterator import Reader
from luma_async.polling.poller import Poller
from luma_async.polling.wait import READER_IDLE_TIMEOUT, Notify, Wait
from luma_async.protocol.rows import RowText
from luma_async.scheduling.changes import Change
from luma_async.structs import Generation
from tests.in_memory_relays import ROUNDING, LimitChecker, RelayClient, Stage

Habit: TypeAlias = tuple[float | None, float]


class RecordingWait(Wait):
    """A wait that records its changes with their times, and passes them to `listener`."""

    def __init__(
        self,
        poller: Poller,
        door: RelayClient,
        asked: tuple[str, ...],
        timeout: float | None,
        news: Notify,
        listener: "Callable[[RecordingWait, Change[Watcher]], None]",
        clock: Callable[[], float],
    ) -> None:
        super().__init__(poller, door, asked, timeout, news)
        self.ids = asked  # `asked` is emptied when the wait is stopped
        self.ends: dict[str, Change[Watcher]] = {}
        self.ended_at: dict[str, float] = {}
        self.left_at: set[float] = set()
        self.is_direct = timeout == 0
        self.is_watching = False
        self.watched_at = inf
        self.aborted = False
        self.paused_at = inf
        self._listener = listener
        self._clock = clock

    @property
    def done(self) -> dict[str, Generation]:
        """The tasks that have ended so far, in that order."""
        return {task_id: done for task_id, done in self._ended.items() if done}

    def on_change(self, change: Change[Watcher]) -> None:
        self._listener(self, change)
        if change.ended:
            self.ends[change.task_id] = change
            self.ended_at[change.task_id] = self._clock()
        super().on_change(change)

    def abort(self, cause: Exception) -> None:
        self.aborted = True
        super().abort(cause)

    def detach(self) -> None:
        self.record_leaving()
        super().detach()

    def now(self) -> float:
        return self._clock()

    def wants(self, task_id: str) -> bool:
        return self.is_watching and task_id in self.ids and task_id not in self.ends

    def wanted(self, task_id: str) -> bool:
        """Whether it watches the id, or did until this moment."""
        now = self._clock()
        read = now <= self.paused_at + READER_IDLE_TIMEOUT + ROUNDING
        watched = (self.is_watching and read) or now in self.left_at
        return watched and task_id in self.ids and self.open_after(now, task_id)

    def open_after(self, when: float, *ids: str) -> bool:
        """Whether one of the ids, or of all, was not reported as ended before `when`."""
        return any(self.ended_at.get(i, inf) >= when for i in ids or self.ids)

    def record_leaving(self) -> None:
        if self.is_watching:
            self.is_watching = False
            self.left_at.add(self._clock())


class RecordingPoller(Poller):
    """A poller that records for each wait whether it watches."""

    def subscribe(
        self, watcher: Watcher, ids: Iterable[str], until: float = inf
    ) -> dict[str, RowText]:
        known = super().subscribe(watcher, ids, until)
        if isinstance(watcher, RecordingWait):
            watcher.is_watching = True
            watcher.watched_at = watcher.now()
        return known

    def unsubscribe(self, watcher: Watcher, ids: Iterable[str]) -> Iterator[None]:
        if isinstance(watcher, RecordingWait):
            watcher.record_leaving()
        return super().unsubscribe(watcher, ids)


class Caller:
    """A caller that awaits the result, or reads with `patience` per step and a `pause` after it.

    A step that takes longer than `patience` seconds is cancelled, and tried again after the pause.
    """

    def __init__(
        self,
        wait: RecordingWait,
        news: Notify,
        timeout: float | None,
        habit: Habit,
        session: LimitChecker,
    ) -> None:
        self.wait = wait
        self.news = news
        self.timeout = timeout
        self.patience, self.pause = habit
        self.steady = self.patience is None and not self.pause
        self.session = session
        self.reader: Reader | None = None
        self.read: list[Generation] = []
        self.error: LumaError | None = None
        self.left = False
        self.begun_at = self.ended_at = 0.0

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        self.begun_at = loop.time()
        try:
            await (self._await() if self.news is Notify.NOTHING else self._read())
        except LumaError as error:
            self.error = error
        finally:
            self.ended_at = loop.time()

    async def _await(self) -> None:
        try:
            await self.wait.start()
            await self.wait.wait_for_news()
        finally:
            self.wait.stop()

    async def _read(self) -> None:
        async with Reader(self.wait) as self.reader:
            more = True
            while more:
                more = await self._step(self.reader)

    async def _step(self, reader: Reader) -> bool:
        self.wait.paused_at = inf
        try:
            async with asyncio.timeout(self.patience):
                self.read.append(await anext(reader))
        except StopAsyncIteration:
            return False
        except TimeoutError as error:
            if isinstance(error, LumaError):
                raise
            self.wait.paused_at = asyncio.get_running_loop().time()
        await asyncio.sleep(self.pause)
        return True

    def __repr__(self) -> str:
        return f"<Caller for {self.news.name} of {self.wait.ids}>"


class DirectCall:
    """One direct call, and the stages that its response may have."""

    def __init__(self, ids: list[str], alone: bool, session: LimitChecker) -> None:
        self.ids = ids
        self.alone = alone
        self.session = session
        self.found: dict[str, Generation] = {}
        self.error: LumaError | None = None
        self.stages: dict[str, int] = {}
        self.begun_at = 0.0

    async def run(self, client: DirectClient, history: Mapping[str, list[Stage]]) -> None:
        self.begun_at = asyncio.get_running_loop().time()
        self.stages = {i: len(stages) - 1 for i, stages in history.items()}
        try:
            if self.alone:
                self.found[self.ids[0]] = await client.get(self.ids[0])
            else:
                await client.get_many(self.ids, self.found)
        except LumaError as error:
            self.error = error

    def __repr__(self) -> str:
        return f"<DirectCall for {self.ids}>"
