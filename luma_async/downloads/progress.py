"""How much of a video is saved: the events of `Downloader(on_progress=…)`."""

import asyncio
from collections.abc import Callable
from math import inf
from pathlib import Path

from msgspec import Struct

from luma_async.polling.hooks import Hook

REPORT_EVERY = 0.1  # seconds between two events of one download


class DownloadProgress(Struct, frozen=True, kw_only=True):
    """How much of the video of a task is saved.

    `id` is the id of the task. `received` is the number of bytes on disk, including those of an
    earlier download that is continued. `total` is the size of the file in bytes, or None if it is
    unknown. `path` is the path of the file once it is in place, else None.
    """

    id: str
    received: int
    total: int | None
    path: Path | None


class ProgressReporter:
    """Report the progress of one download to a hook, if there is one.

    An event is sent at the start, then at most once per `REPORT_EVERY`, and at the end.
    """

    def __init__(self, task_id: str, hook: Hook[DownloadProgress] | None) -> None:
        self._task_id = task_id
        self._hook = hook
        self._received = 0
        self._total: int | None = None
        self._next_at = -inf

    def update(self, received: int, total: int | None) -> None:
        """Report the number of bytes on disk, unless the last event was just sent."""
        self._received, self._total = received, total
        if self._hook is None:
            return
        now = asyncio.get_running_loop().time()
        if now >= self._next_at:
            self._next_at = now + REPORT_EVERY
            self._send(self._hook, None)

    def finish(self, path: Path | None, size: int | None = None) -> None:
        """Report the end of the download. `path` is the file, or None if it was not saved.

        `size` is the size of the file in bytes, by default what was received.
        """
        if size is not None:
            self._received = size
        if path is not None:
            self._total = self._received
        if self._hook is not None:
            self._send(self._hook, path)

    def _send(self, hook: Callable[[DownloadProgress], None], path: Path | None) -> None:
        hook(
            DownloadProgress(
                id=self._task_id, received=self._received, total=self._total, path=path
            )
        )
