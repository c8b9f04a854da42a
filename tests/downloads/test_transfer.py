"""One file over HTTP, from a server that fails in the ways of real servers."""

import asyncio
import gzip
import os
import zlib
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from luma_async import DownloadError, download
from luma_async.downloads import downloader as downloader_module
from luma_async.downloads import transfer
from luma_async.downloads.partial_file import PARTS_FOLDER
from tests.downloads.video_store import BODY, HERE, Handler, VideoStore, answer, files, parts
from tests.worker.worker_processes import until


async def test_a_file_with_a_content_encoding_is_refused_and_not_decoded(
    store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    original = zlib.decompressobj

    def counted(*arguments: Any, **options: Any) -> Any:
        made.append(decoder := original(*arguments, **options))
        return decoder

    monkeypatch.setattr(zlib, "decompressobj", counted)
    members = gzip.compress(b"") * 1000
    store.script = [answer(200, body=members, Content_Encoding="gzip", Content_Type="video/mp4")]
    with pytest.raises(DownloadError, match="sent with a Content-Encoding"):
        await download(store.video(), tmp_path, allow_hosts=HERE)
    assert not made


async def test_a_server_that_stops_sending_is_retried_after_the_read_timeout(
    store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(100)
        return web.Response()

    monkeypatch.setattr(downloader_module, "READ_TIMEOUT", 0.05)
    store.script = [silent]
    async with asyncio.timeout(10):
        path = await download(store.video(), tmp_path, allow_hosts=HERE)
    assert path.read_bytes() == BODY


def test_the_retry_delay_is_at_least_retry_after_and_at_most_a_minute() -> None:
    delay = transfer.retry_delay
    assert delay(1, 30.0) == 30.0
    assert delay(1, 86_400.0) == transfer.MAX_RETRY_DELAY == 60.0
    assert (
        delay(transfer.MAX_ATTEMPTS, None) <= transfer.FIRST_RETRY_DELAY * 2**transfer.MAX_ATTEMPTS
    )


async def test_an_interrupted_download_is_resumed(store: VideoStore, tmp_path: Path) -> None:
    """It is resumed any number of times, because each attempt makes progress."""
    store.cut_after = [70_000] * 8
    path = await download(store.video(), tmp_path, allow_hosts=HERE)
    assert path.read_bytes() == BODY
    assert store.ranges == [None, *(f"bytes={70_000 * n}-" for n in range(1, 9))]
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


@pytest.mark.parametrize("encoding", ["aws-chunked", "UTF-8", "Identity", "", " ", "utf-8,none"])
async def test_what_is_no_encoding_is_ignored(
    store: VideoStore, tmp_path: Path, encoding: str
) -> None:
    store.script = [answer(200, body=BODY, Content_Encoding=encoding)]
    assert (await download(store.video(), tmp_path, allow_hosts=HERE)).read_bytes() == BODY


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip", "deflate", "br", "zstd"])
async def test_a_compressed_file_is_not_saved(
    store: VideoStore, tmp_path: Path, encoding: str
) -> None:
    store.script = [answer(200, body=BODY, Content_Encoding=f"aws-chunked, {encoding}")]
    with pytest.raises(DownloadError, match=rf"Content-Encoding \({encoding.lower()}\); ask the"):
        await download(store.video(), tmp_path, allow_hosts=HERE)
    assert not files(tmp_path)


@pytest.mark.parametrize("content_type", ["text/plain", "application/octet-stream", "text/html"])
async def test_the_first_bytes_say_that_it_is_a_video(
    store: VideoStore, tmp_path: Path, content_type: str
) -> None:
    store.script = [answer(200, body=BODY, Content_Type=content_type)]
    assert (await download(store.video(), tmp_path, allow_hosts=HERE)).read_bytes() == BODY
    assert len(store.seen) == 1


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"error": "busy"}', "JSON"),
        (b"<!DOCTYPE html><html>" + b" " * 600_000, "HTML"),
        (b"\x89PNG\r\n\x1a\n" + bytes(600), "PNG"),
        (b'{"type":"about:blank","title":"Gone"}', "JSON"),
        (b"<Error><Code>AccessDenied</Code></Error>", "XML"),
    ],
)
async def test_what_is_no_video_is_not_kept_whatever_its_content_type(
    store: VideoStore, tmp_path: Path, body: bytes, kind: str
) -> None:
    store.script = [answer(200, body=body, Content_Type="video/mp4")] * 2
    with pytest.raises(DownloadError, match=f"is not a video but {kind}"):
        await download(store.video(), tmp_path, allow_hosts=HERE, link_grace=0)
    assert not files(tmp_path)


async def test_a_transient_error_is_retried_five_times_at_most(
    store: VideoStore, tmp_path: Path
) -> None:
    store.script = [answer(503), answer(429, Retry_After="0")]
    assert (await download(store.video(), tmp_path, allow_hosts=HERE)).read_bytes() == BODY
    store.script = [answer(500)] * 9
    store.seen.clear()
    with pytest.raises(DownloadError, match="try again"):
        await download(store.video("b"), tmp_path, allow_hosts=HERE)
    assert len(store.seen) == transfer.MAX_ATTEMPTS


async def test_a_redirect_is_followed_and_checked_like_the_link(
    store: VideoStore, tmp_path: Path
) -> None:
    store.script = [answer(302, Location="/other.mp4?sig=%2f")]
    assert (await download(store.video(), tmp_path, allow_hosts=HERE)).read_bytes() == BODY
    assert store.seen[-1].raw_path == "/other.mp4?sig=%2f"
    for elsewhere in (store.url.replace("127.0.0.1", "localhost"), "file:///etc/passwd", "ftp://a"):
        store.script = [answer(307, Location=elsewhere)]
        with pytest.raises(DownloadError, match="allow_hosts|not http or https"):
            await download(store.video("b"), tmp_path, allow_hosts=HERE)
    store.script = [answer(301, Location="/v.mp4")] * 20
    with pytest.raises(DownloadError, match="redirects more than 5 times"):
        await download(store.video("b"), tmp_path, allow_hosts=HERE)
    assert files(tmp_path) == ["a.mp4"]


@pytest.mark.parametrize(
    "handler",
    [
        answer(200, body=BODY, Content_Encoding="gzip", Content_Type="video/mp4"),
        answer(206, body=BODY, Content_Range="nonsense", Content_Type="video/mp4"),
        answer(204),
        answer(400),
        answer(304),
    ],
)
async def test_an_unusable_response_is_an_error_and_leaves_no_file(
    store: VideoStore, tmp_path: Path, handler: Handler
) -> None:
    store.script = [handler]
    with pytest.raises(DownloadError, match="ask the relay's operator"):
        await download(store.video(), tmp_path, allow_hosts=HERE)
    assert not files(tmp_path)


@pytest.mark.parametrize(
    "handler",
    [
        answer(200, Content_Type="video/mp4"),
        answer(
            206, body=BODY, ETag='"one"', Content_Range="bytes 0-9/10", Content_Type="video/mp4"
        ),
    ],
)
async def test_an_empty_or_too_long_file_is_not_kept(
    store: VideoStore, tmp_path: Path, handler: Handler
) -> None:
    store.script = [handler]
    with pytest.raises(DownloadError, match="is empty, or longer than the server announced"):
        await download(store.video(), tmp_path, allow_hosts=HERE, link_grace=0)
    assert not files(tmp_path)


@pytest.mark.parametrize("has_length", [True, False])
async def test_a_file_larger_than_max_bytes_is_not_kept(
    store: VideoStore, tmp_path: Path, has_length: bool
) -> None:
    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "video/mp4"})
        await response.prepare(request)
        for _ in range(20):
            await response.write(BODY)
        return response

    store.script = [] if has_length else [endless]
    with pytest.raises(DownloadError, match="raise max_bytes"):
        await download(store.video(), tmp_path, allow_hosts=HERE, max_bytes=100_000)
    assert not files(tmp_path)


@pytest.mark.parametrize(("size", "fits"), [(10, True), (11, False)])
async def test_a_file_may_have_max_bytes_and_no_more(
    store: VideoStore, tmp_path: Path, size: int, fits: bool
) -> None:
    async def without_length(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "video/mp4"})
        await response.prepare(request)
        await response.write(b"x" * size)
        return response

    store.script = [without_length]
    with nullcontext() if fits else pytest.raises(DownloadError, match="larger than 10 bytes"):
        path = await download(store.video(), tmp_path, allow_hosts=HERE, max_bytes=10)
        assert path.stat().st_size == size
    assert files(tmp_path) == ["a.mp4"] * fits


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
