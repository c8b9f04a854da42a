"""The videos that a wait saves: a few at a time; those that wait their turn are on disk."""

import argparse
import asyncio
from collections import deque
from collections.abc import Callable

from luma_async.cli.display.progress import Progress, TaskRow
from luma_async.cli.options.link_headers import in_options
from luma_async.downloads.downloader import Downloader
from luma_async.errors import LumaError
from luma_async.session import LumaSession
from luma_async.structs import Generation

MAX_UNDER_WAY = 32  # more than the downloader transfers at once: links that fail wait meanwhile


def downloader_of(arguments: argparse.Namespace, luma: LumaSession, board: Progress) -> Downloader:
    """Return the downloader that the options name."""
    return Downloader(
        arguments.download,
        luma=luma,
        allow_hosts=arguments.allow_host,
        proxy=arguments.proxy,
        on_progress=board.record_download,
        headers=dict(arguments.link_header),
        header_hosts=arguments.link_header_host,
    )


class VideoSaves:
    """Save the videos of completed rows, MAX_UNDER_WAY at a time, in the order of `add`.

    `on_saved` is called with each row whose video was saved or could not be saved. `original`: the
    rows that wait keep the relay's own text.
    """

    def __init__(
        self,
        downloader: Downloader,
        board: Progress,
        on_saved: Callable[[TaskRow], None],
        original: bool,
    ) -> None:
        self._downloader = downloader
        self._board = board
        self._on_saved = on_saved
        self._original = original
        self._waiting: deque[TaskRow] = deque()
        self._running: set[asyncio.Task[None]] = set()

    def add(self, row: TaskRow) -> None:
        """Save the video of a row, when it is its turn."""
        if len(self._running) < MAX_UNDER_WAY:
            task = asyncio.create_task(self._run(row))
            self._running.add(task)
            task.add_done_callback(self._on_done)
        else:
            self._board.store(row, original=self._original)
            self._waiting.append(row)

    async def join(self) -> None:
        """Return when all are saved or could not be saved. Raise what went wrong in the command."""
        await asyncio.gather(*self._running)

    async def cancel(self) -> None:
        """Stop saving."""
        self._waiting.clear()
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        """Forget what succeeded; `join` raises the error of another."""
        if not task.cancelled() and task.exception() is None:
            self._running.discard(task)

    async def _run(self, row: TaskRow) -> None:
        """Save the video of a row, then those of the rows that wait."""
        await self._save(row)
        while self._waiting:
            await self._save(self._waiting.popleft())

    async def _save(self, row: TaskRow) -> None:
        generation = self._board.details(row).generation
        assert isinstance(generation, Generation)
        try:
            self._board.record_file(row, await self._downloader.download(generation))
        except (LumaError, OSError) as error:
            trouble = in_options(str(error))
            self._board.record_file(row, None, trouble)
        self._on_saved(row)
