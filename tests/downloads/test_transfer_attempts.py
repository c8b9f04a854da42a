"""When a transfer is tried again, how far it has come, and what is remembered between attempts."""

import asyncio
import os
from pathlib import Path

import pytest
from aiohttp import web

from luma_async import Downloader, DownloadError, DownloadProgress, download
from luma_async.downloads import transfer
from luma_async.downloads.partial_file import PARTS_FOLDER
from tests.downloads.video_store import BODY, HERE, VideoStore, answer, open_part

WEBM = b"\x1aE\xdf\xa3" + bytes(5000)


def record_of(directory: Path) -> Path:
    return directory / PARTS_FOLDER / "a.mp4.json"


async def test_the_fifth_transient_error_in_a_row_is_final(
    store: VideoStore, tmp_path: Path
) -> None:
    store.script = [answer(503)] * 5
    with pytest.raises(DownloadError, match="try again later to resume it"):
        await download(store.video(), tmp_path, allow_hosts=HERE)
    store.script = [answer(503)] * 4
    assert await download(store.video(), tmp_path, allow_hosts=HERE)


def test_the_delay_is_half_a_second_after_progress_and_doubles_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("random.random", lambda: 1.0)
    assert [transfer.retry_delay(count, None) for count in range(5)] == [0.5, 1.0, 2.0, 4.0, 8.0]
    monkeypatch.setattr("random.random", lambda: 0.25)
    assert transfer.retry_delay(0, None) == 0.125


@pytest.mark.virtual_time
async def test_a_complete_file_is_moved_at_once(
    store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "FIRST_RETRY_DELAY", 60.0)
    monkeypatch.setattr("random.random", lambda: 0.5)
    await download(store.video(), tmp_path, allow_hosts=HERE)
    assert asyncio.get_running_loop().time() < 5.0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_each_kind_of_redirect_is_followed(
    store: VideoStore, tmp_path: Path, status: int
) -> None:
    store.script = [answer(status, Location="/other.mp4")]
    await download(store.video(), tmp_path, allow_hosts=HERE)
    assert [request.path for request in store.seen] == ["/v.mp4", "/other.mp4"]


async def test_the_progress_is_reported_while_a_file_arrives(
    store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server sends the next bytes when the last ones were reported."""
    events: list[int] = []
    reported = {size: asyncio.Event() for size in (0, 1000, 2000, 3000)}
    monkeypatch.setattr("luma_async.downloads.progress.REPORT_EVERY", 0.0)

    def on_progress(event: DownloadProgress) -> None:
        events.append(event.received)
        reported[event.received].set()

    async def drip(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "video/mp4"})
        response.content_length = 3000
        await response.prepare(request)
        for start in range(0, 3000, 1000):
            await response.write(BODY[start : start + 1000])
            await reported[start + 1000].wait()
        return response

    store.script = [drip]
    async with Downloader(tmp_path, allow_hosts=HERE, on_progress=on_progress) as downloader:
        await asyncio.wait_for(downloader.download(store.video()), 10)
    assert set(events) == {0, 1000, 2000, 3000}


async def test_a_complete_file_that_was_not_renamed_is_reported_with_its_size(
    store: VideoStore, tmp_path: Path
) -> None:
    store.put_part(tmp_path, BODY)
    events: list[DownloadProgress] = []
    async with Downloader(tmp_path, allow_hosts=HERE, on_progress=events.append) as downloader:
        await downloader.download(store.video())
    assert {(one.received, one.total) for one in events} == {(len(BODY), len(BODY))}


async def test_a_partial_response_with_the_whole_file_replaces_the_part_of_another_link(
    store: VideoStore, tmp_path: Path
) -> None:
    store.put_part(tmp_path, b"x" * 5000)
    content_range = f"bytes 0-{len(BODY) - 1}/{len(BODY)}"
    store.script = [answer(206, body=BODY, Content_Range=content_range, ETag='"two"')]
    path = await download(store.video(path="/raw.mp4"), tmp_path, allow_hosts=HERE)
    assert path.read_bytes() == BODY
    assert len(store.seen) == 1


async def test_the_first_bytes_of_any_video_are_continued_up_to_its_size(
    store: VideoStore, tmp_path: Path
) -> None:
    """An MP4 has its size in its boxes, too; a WebM has not."""
    store.body = WEBM
    content_range = f"bytes 0-999/{len(WEBM)}"
    store.script = [answer(206, body=WEBM[:1000], Content_Range=content_range, ETag=store.etag)]
    path = await download(store.video(), tmp_path, allow_hosts=HERE)
    assert path.read_bytes() == WEBM
    assert store.ranges == [None, "bytes=1000-"]


async def test_a_size_that_a_later_response_names_is_remembered(
    store: VideoStore, tmp_path: Path
) -> None:
    store.put_part(tmp_path, BODY[:5000], total=None)
    store.cut_after = [1000] * 5
    with pytest.raises(DownloadError):
        await download(store.video(), tmp_path, allow_hosts=HERE)
    part = open_part(tmp_path)
    assert part.record is not None
    assert part.record.total == len(BODY)
    part.close()


async def test_a_record_of_which_nothing_changes_is_not_written_again(
    store: VideoStore, tmp_path: Path
) -> None:
    """While it is written, a kill would lose it, and with it the bytes."""
    store.put_part(tmp_path, BODY[:5000])
    os.utime(record_of(tmp_path), (0, 0))
    store.cut_after = [1000] * 5
    with pytest.raises(DownloadError):
        await download(store.video(), tmp_path, allow_hosts=HERE)
    assert (tmp_path / PARTS_FOLDER / "a.mp4").stat().st_size == 10_000
    assert record_of(tmp_path).stat().st_mtime == 0
