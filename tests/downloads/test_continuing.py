"""A partial file is continued only if the server proves that the file is still the same."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from luma_async import DownloadError, download
from luma_async.downloads.partial_file import PARTS_FOLDER
from tests.downloads.video_store import BODY, HERE, VideoStore, answer, files, parts
from tests.worker.worker_processes import until


async def test_an_interrupted_download_is_resumed(store: VideoStore, tmp_path: Path) -> None:
    """It is resumed any number of times, because each attempt makes progress."""
    store.cut_after = [65_536] * 8
    path = await download(store.video(), tmp_path, allow_hosts=HERE)
    assert path.read_bytes() == BODY
    assert store.ranges == [None, *(f"bytes={65_536 * n}-" for n in range(1, 9))]
    assert files(tmp_path) == ["a.mp4"]


async def test_a_partial_response_to_a_whole_request_is_continued(
    store: VideoStore, tmp_path: Path
) -> None:
    content_range = f"bytes 0-9/{len(BODY)}"
    headers = {"Content_Range": content_range, "Content_Type": "video/mp4", "ETag": store.etag}
    store.script = [answer(206, body=BODY[:10], **headers)]
    assert (await download(store.video(), tmp_path, allow_hosts=HERE)).read_bytes() == BODY
    assert store.ranges == [None, "bytes=10-"]


async def test_a_partial_file_is_continued_with_its_validator(
    store: VideoStore, tmp_path: Path
) -> None:
    store.put_part(tmp_path, BODY[:5000])
    (tmp_path / PARTS_FOLDER / "other.mp4").touch()
    assert (await download(store.video(), tmp_path, allow_hosts=HERE)).read_bytes() == BODY
    assert store.ranges == ["bytes=5000-"]
    assert store.seen[0].headers["If-Range"] == '"one"'
    assert parts(tmp_path) == ["other.mp4"]


@pytest.mark.parametrize(
    "changed", [{"validator": None}, {"validator": '"zero"'}, {"total": 5}], ids=str
)
async def test_a_partial_file_of_another_version_is_written_again(
    store: VideoStore, tmp_path: Path, changed: dict[str, Any]
) -> None:
    store.put_part(tmp_path, b"x" * 5000, **changed)
    assert (await download(store.video(), tmp_path, allow_hosts=HERE)).read_bytes() == BODY
    assert files(tmp_path) == ["a.mp4"]


async def test_a_partial_file_of_another_link_is_written_again(
    store: VideoStore, tmp_path: Path
) -> None:
    store.put_part(tmp_path, b"x" * 5000)
    path = await download(store.video(path="/raw.mp4"), tmp_path, allow_hosts=HERE)
    assert path.read_bytes() == BODY
    assert store.ranges == [None]


@pytest.mark.parametrize("is_complete", [True, False])
async def test_a_complete_file_that_was_not_renamed_is_renamed(
    store: VideoStore, tmp_path: Path, is_complete: bool
) -> None:
    total = None if is_complete else len(BODY)
    store.put_part(tmp_path, BODY, validator=None, total=total, is_complete=is_complete)
    assert (await download(store.video(), tmp_path, allow_hosts=HERE)).read_bytes() == BODY
    assert not store.seen
    assert files(tmp_path) == ["a.mp4"]


async def test_a_cancelled_download_is_resumed_by_the_next_one(
    store: VideoStore, tmp_path: Path
) -> None:
    stalled = asyncio.Event()

    async def stall(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"ETag": store.etag, "Content-Type": "video/mp4"})
        response.content_length = len(BODY)
        await response.prepare(request)
        await response.write(BODY[:50_000])
        stalled.set()
        await asyncio.sleep(100)
        return response

    store.script = [stall]
    task = asyncio.create_task(download(store.video(), tmp_path, allow_hosts=HERE))
    await stalled.wait()
    await until(
        lambda: (
            (part := tmp_path / PARTS_FOLDER / "a.mp4").exists() and part.stat().st_size > 49_999
        )
    )
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert parts(tmp_path) == ["a.mp4", "a.mp4.json"]
    assert (await download(store.video(), tmp_path, allow_hosts=HERE)).read_bytes() == BODY
    assert store.ranges[-1] == "bytes=50000-"
    assert files(tmp_path) == ["a.mp4"]


async def test_bytes_of_two_versions_are_never_mixed(store: VideoStore, tmp_path: Path) -> None:
    store.cut_after = [100_000]
    store.next_version = BODY[::-1], '"two"'
    path = await download(store.video(), tmp_path, allow_hosts=HERE)
    assert path.read_bytes() == BODY[::-1]
    assert files(tmp_path) == ["a.mp4"]


async def test_without_a_validator_the_download_begins_again(
    store: VideoStore, tmp_path: Path
) -> None:
    """Another file of the same length may be behind the same link."""

    async def cut(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "video/mp4"})
        response.content_length = len(BODY)
        await response.prepare(request)
        await response.write(BODY[:100_000])
        await asyncio.sleep(0.05)
        assert request.transport
        request.transport.close()
        return response

    store.script = [cut]
    store.body = BODY[:100] + BODY[:99:-1]
    path = await download(store.video(), tmp_path, allow_hosts=HERE)
    assert path.read_bytes() == store.body
    assert store.ranges == [None, None]


async def test_a_server_without_ranges_sends_the_whole_file(
    store: VideoStore, tmp_path: Path
) -> None:
    store.put_part(tmp_path, b"x" * 1000)
    store.script = [answer(200, body=BODY, ETag=store.etag, Content_Type="video/mp4")]
    assert (await download(store.video(), tmp_path, allow_hosts=HERE)).read_bytes() == BODY
    assert store.ranges == ["bytes=1000-"]


WRONG_RANGES = {
    "no Content-Range": {},
    "not a range": {"Content_Range": "nonsense"},
    "another range": {"Content_Range": f"bytes 2000-{len(BODY) - 1}/{len(BODY)}"},
    "from the start": {"Content_Range": f"bytes 0-{len(BODY) - 1}/{len(BODY)}"},
    "beyond the end": {"Content_Range": f"bytes 1000-{len(BODY)}/{len(BODY)}"},
    "another length": {"Content_Range": f"bytes 1000-{len(BODY) - 1}/{len(BODY) + 1}"},
    "another version": {
        "Content_Range": f"bytes 1000-{len(BODY) - 1}/{len(BODY)}",
        "ETag": '"two"',
    },
    "several parts": {
        "Content_Range": f"bytes 1000-{len(BODY) - 1}/{len(BODY)}",
        "Content_Type": "multipart/byteranges; boundary=x",
    },
}


@pytest.mark.parametrize("headers", WRONG_RANGES.values(), ids=WRONG_RANGES)
async def test_after_a_wrong_range_the_whole_file_is_requested(
    store: VideoStore, tmp_path: Path, headers: dict[str, str]
) -> None:
    store.put_part(tmp_path, BODY[:1000])
    store.script = [answer(206, body=b"x" * 9000, **{"Content_Type": "video/mp4", **headers})]
    assert (await download(store.video(), tmp_path, allow_hosts=HERE)).read_bytes() == BODY
    assert store.ranges == ["bytes=1000-", None]
    assert files(tmp_path) == ["a.mp4"]


@pytest.mark.parametrize("content_range", [f"bytes */{len(BODY)}", "", "bytes */1000"])
async def test_after_status_416_the_download_starts_again(
    store: VideoStore, tmp_path: Path, content_range: str
) -> None:
    store.put_part(tmp_path, b"x" * 1000)
    store.script = [answer(416, Content_Range=content_range)]
    assert (await download(store.video(), tmp_path, allow_hosts=HERE)).read_bytes() == BODY
    assert store.ranges == ["bytes=1000-", None]
    assert files(tmp_path) == ["a.mp4"]


async def test_status_416_for_a_complete_file_of_the_same_version_ends_the_download(
    store: VideoStore, tmp_path: Path
) -> None:
    store.put_part(tmp_path, BODY, total=None)
    store.script = [answer(416, Content_Range=f"bytes */{len(BODY)}", ETag=store.etag)]
    assert (await download(store.video(), tmp_path, allow_hosts=HERE)).read_bytes() == BODY
    assert len(store.seen) == 1


async def test_a_page_in_place_of_the_rest_does_not_replace_a_partial_file(
    store: VideoStore, tmp_path: Path
) -> None:
    store.put_part(tmp_path, BODY[:5000])
    store.script = [answer(200, body=b"<html>" + b" " * 600_000, Content_Type="video/mp4")]
    with pytest.raises(DownloadError, match="is not a video but HTML"):
        await download(store.video(), tmp_path, allow_hosts=HERE, link_grace=0)
    assert (await download(store.video(), tmp_path, allow_hosts=HERE)).read_bytes() == BODY
    assert store.ranges == ["bytes=5000-"] * 2


async def test_a_full_disk_is_an_os_error_and_the_download_can_be_resumed(
    store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite

    def full(file: int, data: Any, offset: int) -> int:
        if offset >= 100_000:
            raise OSError(28, "No space left on device")
        return real(file, data[: 100_000 - offset], offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space left"):
            await download(store.video(), tmp_path, allow_hosts=HERE)
    assert len(store.seen) == 1
    assert (await download(store.video(), tmp_path, allow_hosts=HERE)).read_bytes() == BODY
    assert store.ranges[-1] == "bytes=100000-"
