"""One call of wait_until_done, as_completed or watch: its ids, its results and how it ends."""

import asyncio
from collections.abc import Iterable
from enum import Enum
from itertools import islice
from math import inf

from luma_async import validation as checks
from luma_async.errors import (
    GenerationsMissing,
    LumaError,
    SessionClosed,
    WaitAborted,
    WaitTimeout,
)
from luma_async.polling.chunks import CHUNK_SIZE, AsyncChunks, emptied
from luma_async.polling.direct import DirectClient
from luma_async.polling.interfaces import Relay, Watcher
from luma_async.polling.poller import Poller
from luma_async.polling.wait_errors import E, done_in_order, incomplete, summary
from luma_async.protocol.rows import RowText
from luma_async.scheduling.changes import Change
from luma_async.scheduling.error_policy import ABORTING, decide
from luma_async.structs import Generation, State

READER_IDLE_TIMEOUT = 1.0
_NO_NEWS: dict[str, Generation] = {}


class Notify(Enum):
    """What wakes a reader."""

    NOTHING = "the end of the wait alone"
    ENDS = "each task as it ends"
    CHANGES = "each change of state"


class Wait:
    """Collect the results of ids until each has ended, the timeout is over, or it is aborted.

    Work for many ids is done in chunks of CHUNK_SIZE; those of the first are checked at once.
    """

    __slots__ = (
        "_aborted", "_deadline", "_ended", "_expired", "_forbidden", "_leaving", "_news",
        "_poller", "_reader", "_relay", "_states", "_stopped", "_timeout", "_trouble", "_unchecked",
        "_wants", "_watching", "_why_missing", "watched_ids",
    )  # fmt: skip

    needs_rows: bool = True  # its errors contain the open tasks as last seen

    def __init__(
        self,
        poller: Poller,
        relay: Relay,
        ids: Iterable[str],
        timeout: float | None,
        news: Notify,
    ) -> None:
        self.watched_ids: dict[str, RowText | None] = {}
        self._news = _NO_NEWS if news is Notify.NOTHING else dict[str, Generation]()
        given = checks.ids(ids)
        self._check(given[:CHUNK_SIZE])
        self._unchecked = islice(given, CHUNK_SIZE, None) if len(given) > CHUNK_SIZE else None
        self._poller = poller
        self._relay = relay
        self._timeout = timeout
        self._deadline = inf
        self._wants = news
        self._ended: dict[str, Generation | None] = {}
        self._forbidden: dict[str, LumaError] | None = None
        self._why_missing: LumaError | None = None
        self._states: dict[str, State] = {}
        self._trouble: LumaError | None = None
        self._aborted: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._leaving: asyncio.TimerHandle | None = None
        self._expired = False
        self._watching = False
        self._stopped = False

    @property
    def ended(self) -> bool:
        """Whether each id is done, missing or forbidden."""
        return len(self._ended) + len(self._forbidden or ()) == len(self.watched_ids)

    def take_news(self) -> Generation:
        """Remove and return the oldest news; of a task that is done, a summary is kept for errors.

        KeyError if there is none. Of each id only the newest unread state is kept.
        """
        news = self._news.pop(next(iter(self._news)))
        if news.is_done:
            self.watched_ids[news.id], self._ended[news.id] = None, summary(news)
        return news

    async def start(self) -> None:
        """Start polling and the timeout, again after a cancellation; 0: poll each id once."""
        self._poller.check_open()
        if self._timeout and self._deadline == inf:
            self._deadline = self._poller.deadlines.add(self, self._timeout)
        if self._unchecked is not None:
            async for part in AsyncChunks(self._unchecked):
                self._check(part)
        if self._stopped or self._expired:
            return
        if self._timeout == 0:
            await self._poll_once()
        else:
            await self._watch()

    def check_home(self) -> None:
        """Raise RuntimeError in another process, thread or loop than the session's."""
        self._poller.affinity.check()

    def detach_later(self) -> None:
        """Detach after `READER_IDLE_TIMEOUT`, unless `wait_for_news` is called before."""
        self._leaving = asyncio.get_running_loop().call_later(READER_IDLE_TIMEOUT, self.detach)

    def detach(self) -> None:
        """Stop polling for this wait; its results stay."""
        self._cancel_detach()
        if self._watching:
            self._watching = False
            self._poller.unsubscribe(self, () if self.ended else self.watched_ids)

    def stop(self) -> None:
        """Unsubscribe for good. Pending and later calls of `wait_for_news` return False."""
        self._stopped = True
        if self._watching and not self.ended:
            self._watching = False
            self._poller.unsubscribe(self, emptied(self.watched_ids))
        self.detach()
        if self._timeout:
            self._poller.deadlines.remove(self, self._timeout)
        self._wake()

    def on_change(self, change: Change[Watcher]) -> None:
        """Receive a change of an id of this wait."""
        if self._stopped or self._expired or self._aborted is not None:
            return
        if change.forbidden:
            self._on_forbidden(change)
            return
        self.watched_ids[change.task_id] = change.row
        if self._forbidden is not None:
            self._forbidden.pop(change.task_id, None)
        if self._wants is Notify.CHANGES:
            self._on_state(change)
        if change.ended:
            self._ended[change.task_id] = generation = change.generation
            self._why_missing = change.error or self._why_missing
            if generation and self._wants is not Notify.NOTHING:
                self._deliver(generation)
            if self.ended:
                self._wake()

    def _on_forbidden(self, change: Change[Watcher]) -> None:
        """Do not wait for an id that the key may not see, unless it is answered before the end."""
        if change.error is not None:
            if self._forbidden is None:
                self._forbidden = {}
            self._forbidden[change.task_id] = change.error
            if self.ended:
                self._wake()

    def _on_state(self, change: Change[Watcher]) -> None:
        generation = change.generation
        if generation and not generation.is_done:
            if self._states.get(generation.id) is not generation.state:
                self._deliver(generation)
            self._states[generation.id] = generation.state

    def _deliver(self, generation: Generation) -> None:
        self._news[generation.id] = generation
        self._wake()

    def abort(self, cause: Exception) -> None:
        """End the wait with a cause."""
        if not self.ended and self._aborted is None:
            self._aborted = cause
            self._watching = False
            self._wake()

    async def wait_for_news(self) -> bool:
        """Wait for news or the end of the wait. Return False if no more news will come.

        Raise the WaitIncomplete of a wait that ended otherwise, after the last news.
        """
        self._cancel_detach()
        if not self._watching and not self._settled():
            await self._watch()
        while not self._settled():
            if self._reader is not None:
                raise RuntimeError("two tasks read one iterator at once; give each its own")
            self._reader = self._poller.loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        if self._stopped:
            return False
        if self._news:
            return True
        if self._aborted:
            raise await self._incomplete(WaitAborted, str(self._aborted), self._aborted)
        if not self.ended:
            trouble = self._trouble or self._poller.health.last_error
            message = f"not all ended in {self._timeout:g} s"
            raise await self._incomplete(WaitTimeout, message, trouble)
        if self._forbidden:
            error = next(iter(self._forbidden.values()))
            message = f"the key may not see {len(self._forbidden)} of the ids ({error})"
            raise await self._incomplete(WaitAborted, message, error)
        if not all(self._ended.values()):
            words = f" ({self._why_missing})" if self._why_missing else ""
            message = f"the relay does not know some ids{words}"
            raise await self._incomplete(GenerationsMissing, message, self._why_missing)
        return False

    async def result(self) -> dict[str, Generation]:
        """Return what has ended, in the order of the ids."""
        return await done_in_order(self.watched_ids, self._ended)

    def _check(self, part: Iterable[object]) -> None:
        """Check some ids, and add each once."""
        self.watched_ids |= dict.fromkeys(map(checks.task_id, part))

    def _settled(self) -> bool:
        return bool(
            self._stopped or self._news or self.ended or self._aborted is not None or self._expired
        )

    async def _watch(self) -> None:
        """Subscribe to all ids that have not ended; to none if it is cancelled."""
        self._watching = True
        try:
            if len(self.watched_ids) <= CHUNK_SIZE:
                self._watch_some(self.watched_ids)
                return
            async for part in AsyncChunks(tuple(self.watched_ids)):
                if not self._watching:
                    return
                self._watch_some(part)
        except SessionClosed as error:
            self.abort(error)
        except BaseException:
            self.detach()
            raise

    def _watch_some(self, ids: Iterable[str]) -> None:
        open_ids = [task_id for task_id in ids if task_id not in self._ended]
        for task_id, row in self._poller.subscribe(self, open_ids, self._deadline).items():
            self.watched_ids[task_id] = row
            if self._wants is Notify.CHANGES:
                self._on_state(Change(task_id=task_id, row=row))

    def expire(self) -> None:
        """End the wait, because its timeout is over."""
        self._expired = True
        self.detach()
        self._wake()

    def _cancel_detach(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()

    async def _poll_once(self) -> None:
        found: dict[str, Generation] = {}
        try:
            await DirectClient(self._poller, self._relay, tries=1).get_many(
                list(self.watched_ids), found
            )
        except LumaError as error:
            self._trouble = error
        finally:
            for task_id, generation in found.items():
                row = RowText(task_id, b"", generation)
                self.on_change(Change(task_id=task_id, row=row, ended=generation.is_done))
            self._expired = True
        if self._trouble and decide(self._trouble, many=False) in ABORTING:
            self.abort(self._trouble)

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def _incomplete(self, kind: type[E], message: str, cause: Exception | None) -> E:
        return await incomplete(kind, message, cause, self.watched_ids, self._ended)
