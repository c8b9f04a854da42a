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
from tests.downloads.video_store import BODY, HERE, Handler, VideoStore, answer, files


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


async def test_the_first_bytes_may_come_one_by_one(store: VideoStore, tmp_path: Path) -> None:
    async def drip(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        for place in range(20):
            await response.write(BODY[place : place + 1])
            await asyncio.sleep(0)
        await response.write(BODY[20:])
        return response

    store.script = [drip]
    assert (await download(store.video(), tmp_path, allow_hosts=HERE)).read_bytes() == BODY


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
    store.script = [answer(200, body=body, Content_Type="video/mp4")]
    with pytest.raises(DownloadError, match=f"is not a video but {kind}"):
        await download(store.video(), tmp_path, allow_hosts=HERE, link_grace=0)
    assert not files(tmp_path)


async def test_a_transient_error_is_retried_five_times_at_most(
    store: VideoStore, tmp_path: Path
) -> None:
    store.script = [answer(503), answer(429, Retry_After="0")]
    assert (await download(store.video(), tmp_path, allow_hosts=HERE)).read_bytes() == BODY
    store.script = [answer(500)] * transfer.MAX_ATTEMPTS
    with pytest.raises(DownloadError, match="try again"):
        await download(store.video("b"), tmp_path, allow_hosts=HERE)


async def test_a_host_that_sends_a_few_bytes_per_connection_is_given_up(
    store: VideoStore, tmp_path: Path
) -> None:
    store.cut_after = [1000] * 9
    with pytest.raises(DownloadError, match="try again later to resume it"):
        await download(store.video(), tmp_path, allow_hosts=HERE)
    assert len(store.seen) == transfer.MAX_ATTEMPTS
    assert await download(store.video(), tmp_path, allow_hosts=HERE), "it is resumed later"


async def test_a_host_that_sends_the_same_bytes_again_is_given_up(
    store: VideoStore, tmp_path: Path
) -> None:
    """Without a validator each attempt begins again; more than before is progress, not more."""
    store.etag = 'W/"one"'
    store.cut_after = ([100_000, 1000] * 9)[: 1 + transfer.MAX_ATTEMPTS]
    with pytest.raises(DownloadError, match="try again later to resume it"):
        await download(store.video(), tmp_path, allow_hosts=HERE)
    assert len(store.seen) == 1 + transfer.MAX_ATTEMPTS


@pytest.mark.virtual_time
async def test_the_retry_after_of_a_host_is_waited_for(store: VideoStore, tmp_path: Path) -> None:
    store.script = [answer(503, Retry_After="30")]
    await download(store.video(), tmp_path, allow_hosts=HERE)
    assert asyncio.get_running_loop().time() >= 30.0


async def test_a_chunked_response_ends_where_its_server_says(
    store: VideoStore, tmp_path: Path
) -> None:
    """Its end is known, so an MP4 without frames is what the server has."""
    body = b"\0\0\0\x10ftypisom\0\0\2\0" + b"\0\0\0\x0cmoov----"

    async def chunked(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "video/mp4"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(body)
        return response

    store.script = [chunked]
    assert (await download(store.video(), tmp_path, allow_hosts=HERE)).read_bytes() == body
    assert len(store.seen) == 1


async def test_five_redirects_are_followed(store: VideoStore, tmp_path: Path) -> None:
    store.script = [answer(302, Location="/v.mp4")] * transfer.MAX_REDIRECTS
    assert (await download(store.video(), tmp_path, allow_hosts=HERE)).read_bytes() == BODY


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
    store.script = [answer(301, Location="/v.mp4")] * (transfer.MAX_REDIRECTS + 1)
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


@pytest.mark.parametrize("max_bytes", [100_000, 2_000_000])
@pytest.mark.parametrize("has_length", [True, False])
async def test_a_file_larger_than_max_bytes_is_not_kept(
    store: VideoStore, tmp_path: Path, has_length: bool, max_bytes: int
) -> None:
    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "video/mp4"})
        await response.prepare(request)
        for _ in range(20):
            await response.write(BODY)
        return response

    store.body = BODY * 4
    store.script = [] if has_length else [endless]
    with pytest.raises(DownloadError, match="raise max_bytes"):
        await download(store.video(), tmp_path, allow_hosts=HERE, max_bytes=max_bytes)
    assert len(store.seen) == 1
    assert not files(tmp_path)
    assert not (tmp_path / PARTS_FOLDER).exists()


async def test_the_first_bytes_of_a_file_larger_than_max_bytes_are_not_kept(
    store: VideoStore, tmp_path: Path
) -> None:
    store.put_part(tmp_path, BODY[:5000])
    with pytest.raises(DownloadError, match="raise max_bytes"):
        await download(store.video(), tmp_path, allow_hosts=HERE, max_bytes=100_000)
    assert not files(tmp_path)


@pytest.mark.parametrize("has_length", [True, False])
@pytest.mark.parametrize(("size", "fits"), [(10, True), (11, False)])
async def test_a_file_may_have_max_bytes_and_no_more(
    store: VideoStore, tmp_path: Path, size: int, fits: bool, has_length: bool
) -> None:
    async def without_length(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "video/mp4"})
        await response.prepare(request)
        await response.write(b"\0" * size)
        return response

    store.script = [answer(200, body=b"\0" * size) if has_length else without_length]
    with nullcontext() if fits else pytest.raises(DownloadError, match="larger than 10 bytes"):
        path = await download(store.video(), tmp_path, allow_hosts=HERE, max_bytes=10)
        assert path.stat().st_size == size
    assert files(tmp_path) == ["a.mp4"] * fits
    assert len(store.seen) == 1


async def test_a_file_is_not_held_in_memory_while_the_disk_is_slow(
    store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, sizes, loop = os.pwrite, list[int](), asyncio.get_running_loop()

    async def receive_more() -> None:
        for _ in range(50):
            await asyncio.sleep(0)

    def slow(file: int, data: Any, offset: int) -> int:
        sizes.append(len(data))
        asyncio.run_coroutine_threadsafe(receive_more(), loop).result()
        return real(file, data, offset)

    monkeypatch.setattr(os, "pwrite", slow)
    store.body = BODY * 4
    path = await download(store.video(), tmp_path, allow_hosts=HERE)
    assert path.stat().st_size == sum(sizes)
    assert max(sizes) <= 2**19


async def test_an_attempt_that_brings_64_kib_is_progress(store: VideoStore, tmp_path: Path) -> None:
    """So four more attempts may bring less."""
    store.cut_after = [65_536, 10, 10, 10, 10]
    path = await download(store.video(), tmp_path, allow_hosts=HERE)
    assert path.read_bytes() == BODY


async def test_five_attempts_that_bring_less_than_64_kib_each_are_no_progress(
    store: VideoStore, tmp_path: Path
) -> None:
    store.cut_after = [65_535] * 5
    with pytest.raises(DownloadError, match="try again later to resume it"):
        await download(store.video(), tmp_path, allow_hosts=HERE)
