"""One run of `luma-async render`: submits, waits and saves, and writes the journal.

`plan` decides what is to be done. Each submission is a task of its own. If the run is interrupted,
one that was sent is awaited, so that its answer gets into the journal; all others are cancelled.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial

import anyio

from luma_async.cli.display.output import Output, show_end
from luma_async.cli.display.progress import Progress, TaskRow, why
from luma_async.cli.rendering.journal import Journal
from luma_async.cli.rendering.plan import UNDECIDED, Entry, Plan, Status, Step, step_after
from luma_async.cli.rendering.prompts import PromptRow
from luma_async.cli.runtime import print_error
from luma_async.cli.saves import VideoSaves
from luma_async.downloads.downloader import Downloader
from luma_async.errors import LumaError
from luma_async.polling.following import Ended, Following
from luma_async.polling.submit_calls import submitter_of
from luma_async.polling.submitting import SendHooks
from luma_async.session import LumaSession
from luma_async.structs import Generation, State
from luma_async.text import one_line

MIN_PAUSE, MAX_PAUSE = 1.0, 60.0  # seconds before a row that was not taken is submitted again


class Rendering:
    """The entries of a run, and what changes them. `stopped` is why no more is submitted."""

    def __init__(
        self,
        plan: Plan,
        journal: Journal,
        board: Progress,
        output: Output,
        concurrency: int,
        *,
        keeps_ended: bool = False,
    ) -> None:
        self.entries: dict[str, Entry] = plan.entries
        self._counts = Counter(one.status for one in plan.entries.values())
        self.stopped: LumaError | None = None
        self.is_leaving: bool = False
        self._plan = plan
        self._journal = journal
        self._board = board
        self._output = output
        self._keeps_ended = keeps_ended
        self._concurrency = concurrency
        self._keys = {one.task_id: one.key for one in plan.wait if one.task_id}
        self._open = len(self._keys)
        self._room = asyncio.Event()
        self._disk = ThreadPoolExecutor(1, "journal")
        self._submissions: dict[asyncio.Task[None], Sending] = {}
        self._records: set[asyncio.Task[None]] = set()
        self._failure: Exception | None = None

    async def run(self, luma: LumaSession, downloader: Downloader) -> None:
        """Do what the plan says; return when all tasks have ended and are saved."""
        try:
            await self._on_disk(partial(self._journal.replace, self.entries.values()))
            saves = VideoSaves(downloader, self._board, self._on_saved, self._output.shows_original)
            await self._run(luma, luma.follow(last_seen=False), saves)
        finally:
            self._disk.shutdown()
        if self._failure is not None:
            raise self._failure

    async def _run(self, luma: LumaSession, following: Following, saves: VideoSaves) -> None:
        following.add(self._board.add(self._keys, time.monotonic()))
        submitting = asyncio.create_task(self._submit_all(luma, following))
        try:
            async for ended in following:
                await self._end(ended, saves)
                if submitting.done() and not following:
                    following.close()
            await submitting
            await saves.join()
            await asyncio.gather(*self._records)
        finally:
            following.close()
            await self._leave(submitting, saves)

    async def record(self, entry: Entry) -> None:
        """Write an entry to the journal; it is written even if the caller is cancelled."""
        self._counts[self.entries[entry.key].status] -= 1
        self._counts[entry.status] += 1
        self.entries[entry.key] = entry
        self._board.note = self._note()
        await self._on_disk(partial(self._journal.write, entry))

    def _note(self) -> str:
        """Return what the table shows of rows that have no task."""
        unknown = sum(self._counts[status] for status in UNDECIDED)
        parts = {"not submitted yet": self._counts[Status.NEW], "in flight or unknown": unknown}
        return ", ".join(f"{count:,} rows {what}" for what, count in parts.items() if count)

    async def _on_disk(self, act: Callable[[], None]) -> None:
        """Run one write at a time, in a thread: an fsync may take long."""
        with anyio.CancelScope(shield=True):
            job = asyncio.get_running_loop().run_in_executor(self._disk, act)
            await asyncio.shield(job)

    async def _submit_all(self, luma: LumaSession, following: Following) -> None:
        try:
            for row in self._plan.submit:
                await self._wait_for_room()
                if self.stopped or self._failure:
                    break
                self._open += 1
                sending = Sending(self, row.key)
                task = asyncio.create_task(self._submit(luma, row, sending, following))
                self._submissions[task] = sending
                task.add_done_callback(self._submissions.pop)
            if self._submissions:
                await asyncio.wait(list(self._submissions))
        finally:
            if not following:
                following.close()

    async def _wait_for_room(self) -> None:
        while self._open >= self._concurrency and not (self.stopped or self._failure):
            self._room.clear()
            await self._room.wait()

    async def _submit(
        self, luma: LumaSession, row: PromptRow, sending: "Sending", following: Following
    ) -> None:
        """Submit a row until it is taken, refused, or its outcome is unknown."""
        created = False
        try:
            while not (created or self.stopped or self.is_leaving):
                try:
                    task = await submitter_of(luma).submit(row.submission, sending)
                except LumaError as error:
                    if await self._refused(row.key, error):
                        break
                else:
                    created = True
                    await self._created(row.key, task, following)
        except Exception as error:  # a disk that is full
            if self._failure is not None:
                print_error(error)  # it may have the id of another task
            self._failure = self._failure or error
            self._room.set()
            following.close()
        finally:
            if not created:
                self._release()

    async def _refused(self, key: str, error: LumaError) -> bool:
        """Record the error of a submission. Return whether the row is not to be sent again."""
        entry, text, step = self.entries[key], one_line(str(error)), step_after(error)
        match step:
            case Step.UNKNOWN:
                await self.record(entry.after_loss(one_line(str(error.__cause__ or error))))
            case Step.SKIP:
                await self.record(entry.after_refusal(Status.REFUSED, text))
            case Step.STOP:
                await self.record(entry.after_refusal(Status.NEW, text))
                self._stop(error)
            case Step.RETRY:
                await self.record(entry.after_refusal(Status.NEW, text))
                await asyncio.sleep(min(error.retry_after or MIN_PAUSE, MAX_PAUSE))
        return step is not Step.RETRY

    def _stop(self, error: LumaError) -> None:
        """Submit no more; cancel what was not sent yet."""
        self.stopped = self.stopped or error
        for task, sending in list(self._submissions.items()):
            if not sending.is_sent:
                task.cancel()

    async def _created(self, key: str, task: Generation, following: Following) -> None:
        entry = self.entries[key].after_creation(task.id)
        try:
            await self.record(entry)
        except OSError as error:
            raise OSError(f"{error}; line {entry.line} is task {one_line(task.id)}") from None
        self._keys[task.id] = key
        self._board.add([task.id], time.monotonic())
        if not (self.is_leaving or self._failure):
            following.add([task.id])

    def _release(self) -> None:
        self._open -= 1
        self._room.set()

    async def _end(self, ended: Ended, saves: VideoSaves) -> None:
        row = self._board.end(ended.id, ended.generation, time.monotonic(), datetime.now(UTC))
        self._release()
        if row.word == State.COMPLETED:
            saves.add(row)
            return
        status = Status.FAILED if row.word == State.FAILED else Status.MISSING
        reason = one_line(why(row, self._board.details(row)))
        await self._record_end(row, self._entry(row).after_end(status, reason))

    def _on_saved(self, row: TaskRow) -> None:
        """Record a video that was saved, or could not be saved."""
        details = self._board.details(row)
        if details.file is not None:
            end = self._entry(row).after_end(Status.SAVED, file=details.file.name)
        else:
            end = self._entry(row).after_end(Status.COMPLETED, one_line(details.trouble or ""))
        task = asyncio.create_task(self._record_end(row, end))
        self._records.add(task)
        task.add_done_callback(self._recorded)

    def _recorded(self, task: asyncio.Task[None]) -> None:
        """Remove what succeeded; the error of another is raised when all tasks have ended."""
        if not task.cancelled() and task.exception() is None:
            self._records.discard(task)

    async def _record_end(self, row: TaskRow, end: Entry) -> None:
        """Write the end of a task, then show it."""
        await self.record(end)
        show_end(self._board, self._output, row, keep=self._keeps_ended)

    def _entry(self, row: TaskRow) -> Entry:
        return self.entries[self._keys[row.id]]

    async def _leave(self, submitting: asyncio.Task[None], saves: VideoSaves) -> None:
        """Cancel what is under way, but wait for the answers to submissions that were sent."""
        self.is_leaving = True
        submitting.cancel()
        for task, sending in list(self._submissions.items()):
            if not sending.is_sent:
                task.cancel()
        if sent := sum(sending.is_sent for sending in self._submissions.values()):
            what = "answer to 1 submission" if sent == 1 else f"answers to {sent} submissions"
            print_error(f"waiting for the {what}; press ctrl-C again to leave without")
        with anyio.CancelScope(shield=True):
            await saves.cancel()
            await asyncio.wait([submitting, *self._records, *self._submissions])


class Sending(SendHooks):
    """Writes the journal around the requests of one row; `is_sent`: its outcome is to be known."""

    def __init__(self, rendering: Rendering, key: str) -> None:
        self.is_sent: bool = False
        self._rendering = rendering
        self._key = key

    @property
    def _entry(self) -> Entry:
        return self._rendering.entries[self._key]

    async def before_send(self) -> None:
        """Write that the row may have been submitted from now on."""
        self.is_sent = True
        await self._rendering.record(self._entry.after_sending(time.time()))

    async def not_taken(self) -> None:
        """Write that it was not; raise CancelledError if no more is to be submitted."""
        await self._rendering.record(self._entry.after_refusal(Status.NEW))
        self.is_sent = False
        if self._rendering.is_leaving or self._rendering.stopped:
            raise asyncio.CancelledError
