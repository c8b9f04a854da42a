"""The videos that a wait saves: all of them, and one link that fails does not keep the others."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web

from luma_async import Downloader
from luma_async.cli import saves as module
from luma_async.cli.display.progress import Progress, TaskRow
from luma_async.cli.saves import VideoSaves
from tests.downloads.video_store import HERE, VideoStore, files


class Saving:
    """Saves videos of the store, and keeps the ids of those that were saved or could not be."""

    def __init__(self, store: VideoStore, downloader: Downloader) -> None:
        self.store = store
        self.board = Progress()
        self.done: list[str] = []
        self.first_done = asyncio.Event()
        self.fails_for = ""
        self.saves = VideoSaves(downloader, self.board, self.on_saved, original=False)

    def on_saved(self, row: TaskRow) -> None:
        self.done.append(row.id)
        self.first_done.set()
        if row.id == self.fails_for:
            raise OSError("the report cannot be written")

    def add(self, *ids: str, path: str = "/v.mp4") -> list[TaskRow]:
        """Save the videos of tasks that have just ended; return their rows."""
        rows: list[TaskRow] = []
        for task_id in self.board.add(ids, 0.0):
            task = self.store.video(task_id, path)
            rows.append(self.board.end(task_id, task, 1.0, datetime.now(UTC)))
            self.saves.add(rows[-1])
        return rows


@pytest.fixture
async def saving(store: VideoStore, tmp_path: Path) -> AsyncIterator[Saving]:
    async with Downloader(tmp_path, allow_hosts=HERE, link_grace=60.0) as downloader:
        saving = Saving(store, downloader)
        yield saving
        saving.board.close()


async def test_links_that_are_tried_again_do_not_keep_a_video_waiting(saving: Saving) -> None:
    saving.store.missing = {"/dead.mp4"}
    saving.add(*map(str, range(8)), path="/dead.mp4")
    saving.add("good")
    await asyncio.wait_for(saving.first_done.wait(), 10)
    await saving.saves.cancel()
    assert saving.done == ["good"]


async def test_videos_that_wait_for_their_turn_are_on_the_disk_and_then_saved_in_order(
    saving: Saving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_UNDER_WAY", 1)
    rows = saving.add(*"abcdefg")
    assert [row.details is None for row in rows] == [False] + [True] * 6
    await saving.saves.join()
    assert saving.done == [*"abcdefg"]
    saving.add("h")
    await saving.saves.join()
    assert saving.done == [*"abcdefgh"]
    assert {name for name in files(tmp_path) if "." in name} >= {f"{i}.mp4" for i in "abcdefgh"}
    assert saving.board.saved_count == 8


async def test_a_video_that_cannot_be_saved_has_the_reason_and_the_options_of_the_command(
    store: VideoStore, tmp_path: Path
) -> None:
    async with Downloader(tmp_path, link_grace=0.0) as downloader:
        saving = Saving(store, downloader)
        (row,) = saving.add("a")
        await saving.saves.join()
    details = saving.board.details(row)
    assert saving.done == ["a"]
    assert details.file is None
    assert "--allow-host" in (details.trouble or "")


async def test_an_error_of_the_command_is_raised_by_the_join(saving: Saving) -> None:
    saving.fails_for = "a"
    saving.add("a", "b")
    with pytest.raises(OSError, match="the report"):
        await saving.saves.join()
    assert "a" in saving.done


async def test_after_a_cancellation_no_video_is_begun(
    saving: Saving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_UNDER_WAY", 1)
    is_asked, never = asyncio.Event(), asyncio.Event()

    async def silent(request: web.BaseRequest) -> web.StreamResponse:
        is_asked.set()
        await never.wait()
        return web.Response()

    saving.store.script = [silent]
    saving.add("a", "b")
    await asyncio.wait_for(is_asked.wait(), 10)
    await saving.saves.cancel()
    await saving.saves.cancel()
    never.set()
    assert saving.done == []
    assert len(saving.store.seen) == 1
    assert not [task for task in asyncio.all_tasks() if "VideoSaves" in repr(task)]
