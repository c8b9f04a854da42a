"""The videos that a wait saves: one link that fails does not keep the others."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from luma_async import Downloader
from luma_async.cli.display.progress import Progress
from luma_async.cli.saves import VideoSaves
from tests.downloads.video_store import HERE, VideoStore


async def test_links_that_are_tried_again_do_not_keep_a_video_waiting(
    store: VideoStore, tmp_path: Path
) -> None:
    store.missing = {"/dead.mp4"}
    saved: list[str] = []
    is_saved = asyncio.Event()
    board = Progress()
    ids = [*map(str, range(8)), "good"]
    board.add(ids, 0.0)
    async with Downloader(tmp_path, allow_hosts=HERE, link_grace=60.0) as downloader:

        def on_saved(row: object) -> None:
            saved.append(getattr(row, "id", ""))
            is_saved.set()

        saves = VideoSaves(downloader, board, on_saved, original=False)
        for task_id in ids:
            path = "/v.mp4" if task_id == "good" else "/dead.mp4"
            generation = store.video(task_id, path)
            saves.add(board.end(task_id, generation, 1.0, datetime.now(UTC)))
        await asyncio.wait_for(is_saved.wait(), 10)
        await saves.cancel()
    assert saved == ["good"]
