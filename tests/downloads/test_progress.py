"""How often the progress of a download is reported."""

import asyncio
from pathlib import Path

import pytest

from luma_async import DownloadProgress
from luma_async.downloads.progress import ProgressReporter
from luma_async.polling.hooks import Hook


def event(received: int, total: int | None, path: Path | None = None) -> DownloadProgress:
    return DownloadProgress(id="a", received=received, total=total, path=path)


@pytest.mark.virtual_time
async def test_the_hook_is_called_at_the_start_ten_times_a_second_and_at_the_end() -> None:
    events: list[DownloadProgress] = []
    reporter = ProgressReporter("a", Hook("on_progress", events.append))
    for tick in range(101):
        reporter.update(tick, None)
        await asyncio.sleep(1 / 64)
    assert [one.received for one in events] == [*range(0, 101, 7)], "each 7 / 64 s"
    reporter.finish(Path("a.mp4"))
    assert events[-1] == event(100, 100, Path("a.mp4"))


@pytest.mark.virtual_time
async def test_an_event_is_due_a_tenth_of_a_second_after_the_last_one() -> None:
    events: list[DownloadProgress] = []
    reporter = ProgressReporter("a", Hook("on_progress", events.append))
    reporter.update(1, 9)
    reporter.update(2, 9)
    await asyncio.sleep(0.1)
    reporter.update(3, 9)
    assert events == [event(1, 9), event(3, 9)]
