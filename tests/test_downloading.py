"""Videos to files, from a server on loopback that fails in the ways of real servers."""

import asyncio
import fcntl
import gzip
import json
import os
import threading
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from luma_async import (
    Downloader,
    DownloadError,
    DownloadProgress,
    Generation,
    LumaSession,
    State,
    Video,
    download,
)
from luma_async.downloads import downloader as downloader_module
from luma_async.downloads import transfer
from luma_async.downloads.partial_file import PARTS_FOLDER, PartialFile, parts_folder, version_of
from luma_async.downloads.public_resolver import PublicResolver
from luma_async.testing import FakeRelay, Reply
from tests.worker.worker_processes import until

BODY = os.urandom(600_000)
HERE = ("127.0.0.1",)
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Store:
    """A server of videos; `script` contains the next handlers, `seen` the requests so far."""

    def __init__(self) -> None:
        self.url = ""
        self.body = BODY
        self.etag = '"one"'
        self.seen: list[web.BaseRequest] = []
        self.cut_after: list[int] = []
        self.next_version: tuple[bytes, str] | None = None
        self.script: list[Handler] = []

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.seen.append(request)
        if self.script:
            return await self.script.pop(0)(request)
        start = int(request.headers.get("Range", "bytes=0-")[6:-1])
        headers = {"ETag": self.etag, "Content-Type": "video/mp4"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(self.body) - 1}/{len(self.body)}"
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        response.content_length = len(self.body) - start
        await response.prepare(request)
        part = self.body[start:]
        if self.cut_after:
            await response.write(part[: self.cut_after.pop(0)])
            await asyncio.sleep(0.05)  # aiohttp drops the bytes that arrive together with the reset
            self.body, self.etag = self.next_version or (self.body, self.etag)
            assert request.transport
            request.transport.close()
        else:
            await response.write(part)
        return response

    def video(self, task_id: str = "a", path: str = "/v.mp4") -> Generation:
        return Generation(
            id=task_id, state=State.COMPLETED, video=Video(download_url=self.url + path)
        )

    @property
    def ranges(self) -> list[str | None]:
        return [request.headers.get("Range") for request in self.seen]


@pytest.fixture
async def store(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Store]:
    monkeypatch.setattr(transfer, "FIRST_RETRY_DELAY", 0.001)
    store = Store()
    runner = web.ServerRunner(web.Server(store.handle, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    store.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield store
    await runner.cleanup()


def answer(status: int, *, body: bytes = b"", **headers: str) -> Handler:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=body, headers=named)

    return handle


def new_link_reply(store: Store) -> Reply:
    """Return the reply of the relay for a task that has a new link."""
    fresh = {"id": "a", "state": "completed", "video": {"download_url": f"{store.url}/fresh.mp4"}}
    return Reply(body=json.dumps(fresh).encode())


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def test_a_video_is_saved_under_its_id_and_requested_without_a_key(
    store: Store, tmp_path: Path, luma: LumaSession
) -> None:
    path = await download(store.video(), tmp_path / "new" / "dir", luma=luma, allow_hosts=HERE)
    assert path == tmp_path / "new" / "dir" / "a.mp4"
    assert path.read_bytes() == BODY
    assert files(path.parent) == ["a.mp4"]
    (request,) = store.seen
    assert "Authorization" not in request.headers
    assert request.headers["Accept-Encoding"] == "identity"


async def test_a_file_with_a_content_encoding_is_refused_and_not_decoded(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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


async def test_neither_a_response_nor_the_environment_adds_headers_to_a_request(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.url = store.url.replace(
        "127.0.0.1", "localhost"
    )  # aiohttp keeps no cookies of an IP address
    (tmp_path / "netrc").write_text("machine localhost login me password s3cret")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("http_proxy", store.url)
    monkeypatch.delenv("no_proxy", raising=False)
    store.script = [answer(302, Location="/other.mp4", Set_Cookie="id=me")]
    await download(store.video(), tmp_path, allow_hosts=("localhost",))
    assert [one.raw_path for one in store.seen] == ["/v.mp4", "/other.mp4"], (
        "a proxy would receive whole URLs"
    )
    assert not {"Cookie", "Authorization"} & {*store.seen[0].headers, *store.seen[1].headers}


class FakeResolver:
    """Replaces aiohttp's resolver: it knows two names."""

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[dict[str, Any]]:
        zone = {"inside.example": ["127.0.0.1"], "mixed.example": ["10.0.0.1", "8.8.8.8", "::1"]}
        return [
            {"hostname": host, "host": one, "port": port, "family": 2, "proto": 0, "flags": 0}
            for one in zone[host.lower()]
        ]

    async def close(self) -> None:
        pass


async def test_a_host_name_is_checked_by_its_resolved_addresses(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aiohttp, "DefaultResolver", FakeResolver)
    store.url = store.url.replace("127.0.0.1", "inside.example")
    with pytest.raises(DownloadError, match=r"at inside\.example; .* 127\.0\.0\.1 .*allow_hosts"):
        await download(store.video(), tmp_path)
    assert not store.seen
    path = await download(store.video(), tmp_path, allow_hosts=("Inside.Example",))
    assert path.read_bytes() == BODY
    found = await PublicResolver(()).resolve("mixed.example")
    assert [one["host"] for one in found] == ["8.8.8.8"]


async def test_a_proxy_may_be_private_and_resolves_the_names(store: Store, tmp_path: Path) -> None:
    video = store.video()
    store.url = "http://cdn.example"
    proxy = str(video.url).removesuffix("/v.mp4").replace("127.0.0.1", "localhost")
    path = await download(store.video(), tmp_path, proxy=proxy)
    assert path.read_bytes() == BODY
    assert store.seen[0].headers["Host"] == "cdn.example"


async def test_a_server_that_stops_sending_is_retried_after_the_read_timeout(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(100)
        return web.Response()

    monkeypatch.setattr(downloader_module, "READ_TIMEOUT", 0.05)
    store.script = [silent]
    async with asyncio.timeout(10):
        path = await download(store.video(), tmp_path, allow_hosts=HERE)
    assert path.read_bytes() == BODY


async def test_concurrent_downloads_of_one_task_send_one_request(
    store: Store, tmp_path: Path
) -> None:
    async with Downloader(tmp_path, allow_hosts=HERE) as downloader:
        paths = await asyncio.gather(*(downloader.download(store.video()) for _ in range(3)))
    assert set(paths) == {tmp_path / "a.mp4"}
    assert len(store.seen) == 1


def test_the_retry_delay_is_at_least_retry_after_and_at_most_a_minute() -> None:
    delay = transfer._retry_delay  # pyright: ignore[reportPrivateUsage]
    assert delay(1, 30.0) == 30.0
    assert delay(1, 86_400.0) == transfer.MAX_RETRY_DELAY == 60.0
    assert (
        delay(transfer.MAX_ATTEMPTS, None) <= transfer.FIRST_RETRY_DELAY * 2**transfer.MAX_ATTEMPTS
    )


async def test_an_existing_file_is_not_downloaded_again(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"mine")
    path = await download(store.video(), tmp_path, allow_hosts=HERE)
    assert path.read_bytes() == b"mine"
    assert not store.seen


async def test_an_interrupted_download_is_resumed(store: Store, tmp_path: Path) -> None:
    """It is resumed any number of times, because each attempt makes progress."""
    store.cut_after = [70_000] * 8
    path = await download(store.video(), tmp_path, allow_hosts=HERE)
    assert path.read_bytes() == BODY
    assert store.ranges == [None, *(f"bytes={70_000 * n}-" for n in range(1, 9))]
    assert files(tmp_path) == ["a.mp4"]


async def test_a_partial_response_to_a_whole_request_is_continued(
    store: Store, tmp_path: Path
) -> None:
    content_range = f"bytes 0-9/{len(BODY)}"
    headers = {"Content_Range": content_range, "Content_Type": "video/mp4", "ETag": store.etag}
    store.script = [answer(206, body=BODY[:10], **headers)]
    assert (await download(store.video(), tmp_path, allow_hosts=HERE)).read_bytes() == BODY
    assert store.ranges == [None, "bytes=10-"]


async def test_the_longest_partial_file_is_continued(store: Store, tmp_path: Path) -> None:
    for version, size in ((version_of("old"), 50), (version_of(store.etag, None, len(BODY)), 5000)):
        part = PartialFile(tmp_path, "a.mp4", version)
        part.write(BODY[:size])
        part.close()
    (tmp_path / PARTS_FOLDER / "a.mp4.other").touch()
    assert (await download(store.video(), tmp_path, allow_hosts=HERE)).read_bytes() == BODY
    assert store.ranges == ["bytes=5000-"]
    assert files(tmp_path) == [PARTS_FOLDER, "a.mp4"]
    assert files(tmp_path / PARTS_FOLDER) == ["a.mp4.other"]


async def test_a_cancelled_download_is_resumed_by_the_next_one(
    store: Store, tmp_path: Path
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
        lambda: any(one.stat().st_size == 50_000 for one in parts_folder(tmp_path).iterdir())
    )
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (part,) = files(tmp_path / PARTS_FOLDER)
    assert part.startswith("a.mp4.")
    assert (await download(store.video(), tmp_path, allow_hosts=HERE)).read_bytes() == BODY
    assert store.ranges[-1] == "bytes=50000-"
    assert files(tmp_path) == ["a.mp4"]


async def test_bytes_of_two_versions_are_never_mixed(store: Store, tmp_path: Path) -> None:
    store.cut_after = [100_000]
    store.next_version = BODY[::-1], '"two"'
    path = await download(store.video(), tmp_path, allow_hosts=HERE)
    assert path.read_bytes() == BODY[::-1]
    assert files(tmp_path) == ["a.mp4"]


async def test_a_server_without_ranges_sends_the_whole_file(store: Store, tmp_path: Path) -> None:
    store.cut_after = [100_000]
    path = await download(store.video(), tmp_path, allow_hosts=HERE)
    path.unlink()
    version = version_of('"one"', None, len(BODY))
    part = PartialFile(tmp_path, "a.mp4", version)
    part.write(b"x" * 1000)
    part.close()
    store.script = [answer(200, body=BODY, ETag='"one"', Content_Type="video/mp4")]
    path = await download(store.video(), tmp_path, allow_hosts=HERE)
    assert path.read_bytes() == BODY
    assert store.ranges[-1] == "bytes=1000-"


async def test_a_whole_response_replaces_the_bytes_of_a_partial_file(
    store: Store, tmp_path: Path
) -> None:
    for version, size in ((version_of("old"), 5000), (version_of(store.etag, None, len(BODY)), 50)):
        part = PartialFile(tmp_path, "a.mp4", version)
        part.write(b"x" * size)
        part.close()
    store.script = [answer(200, body=BODY, ETag=store.etag, Content_Type="video/mp4")]
    assert (await download(store.video(), tmp_path, allow_hosts=HERE)).read_bytes() == BODY
    assert store.ranges == ["bytes=5000-"]


async def test_another_range_than_requested_is_not_appended(store: Store, tmp_path: Path) -> None:
    part = PartialFile(tmp_path, "a.mp4", version_of(store.etag, None, len(BODY)))
    part.write(BODY[:1000])
    part.close()
    content_range = f"bytes 2000-{len(BODY) - 1}/{len(BODY)}"
    headers = {"Content_Range": content_range, "Content_Type": "video/mp4", "ETag": store.etag}
    store.script = [answer(206, body=BODY[2000:], **headers)]
    assert (await download(store.video(), tmp_path, allow_hosts=HERE)).read_bytes() == BODY


async def test_after_status_416_the_download_starts_again(store: Store, tmp_path: Path) -> None:
    part = PartialFile(tmp_path, "a.mp4", version_of("gone"))
    part.write(b"x" * 1000)
    part.close()
    store.script = [answer(416, Content_Range=f"bytes */{len(BODY)}")]
    assert (await download(store.video(), tmp_path, allow_hosts=HERE)).read_bytes() == BODY
    assert store.ranges == ["bytes=1000-", None]
    assert files(tmp_path) == ["a.mp4"]


@pytest.mark.parametrize(
    "dead",
    [*map(answer, (401, 403, 404, 410)), answer(200, body=b"<p>", Content_Type="text/html")],
)
async def test_for_a_dead_link_the_relay_is_asked_for_a_new_one_once(
    store: Store, tmp_path: Path, relay: FakeRelay, luma: LumaSession, dead: Handler
) -> None:
    relay.reply(new_link_reply(store), on="get")
    store.script = [dead]
    path = await download(store.video(), tmp_path, luma=luma, allow_hosts=HERE)
    assert path.read_bytes() == BODY
    assert [request.path for request in store.seen] == ["/v.mp4", "/fresh.mp4"]
    assert relay.requests == 1


async def test_a_second_dead_link_is_an_error(
    store: Store, tmp_path: Path, relay: FakeRelay, luma: LumaSession
) -> None:
    relay.reply(new_link_reply(store), on="get")
    store.script = [answer(403), answer(403)]
    with pytest.raises(DownloadError, match="the second dead link; submit the task again"):
        await download(store.video(), tmp_path, luma=luma, allow_hosts=HERE)
    assert relay.requests == 1
    assert not files(tmp_path)


async def test_the_error_of_a_dead_link_without_a_session_has_the_remedy(
    store: Store, tmp_path: Path
) -> None:
    store.script = [answer(404)]
    with pytest.raises(DownloadError, match="pass luma, so that the relay is asked for a new link"):
        await download(store.video(), tmp_path, allow_hosts=HERE)


async def test_a_transient_error_is_retried_five_times_at_most(
    store: Store, tmp_path: Path
) -> None:
    store.script = [answer(503), answer(429, Retry_After="0")]
    assert (await download(store.video(), tmp_path, allow_hosts=HERE)).read_bytes() == BODY
    store.script = [answer(500)] * 9
    store.seen.clear()
    with pytest.raises(DownloadError, match="try again"):
        await download(store.video("b"), tmp_path, allow_hosts=HERE)
    assert len(store.seen) == transfer.MAX_ATTEMPTS


async def test_a_private_host_is_refused_before_a_request_is_sent(
    store: Store, tmp_path: Path
) -> None:
    for host in ("127.0.0.1", "localhost", "0x7f.1", "2130706433"):
        store_url = store.url.replace("127.0.0.1", host)
        video = Generation(
            id="a", state=State.COMPLETED, video=Video(download_url=f"{store_url}/v.mp4")
        )
        with pytest.raises(DownloadError, match="private address.*allow_hosts|not a valid URL"):
            await download(video, tmp_path)
    assert not store.seen


async def test_a_redirect_is_followed_and_checked_like_the_link(
    store: Store, tmp_path: Path
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
    store: Store, tmp_path: Path, handler: Handler
) -> None:
    store.script = [handler]
    with pytest.raises(DownloadError, match="ask the relay's operator"):
        await download(store.video(), tmp_path, allow_hosts=HERE)
    assert not files(tmp_path)


@pytest.mark.parametrize(
    "handler",
    [
        answer(200, Content_Type="video/mp4"),
        answer(206, body=BODY, Content_Range="bytes 0-9/10", Content_Type="video/mp4"),
    ],
)
async def test_an_empty_or_too_long_file_is_a_dead_link(
    store: Store, tmp_path: Path, handler: Handler
) -> None:
    store.script = [handler]
    with pytest.raises(DownloadError, match="is empty, or longer than the server announced"):
        await download(store.video(), tmp_path, allow_hosts=HERE)
    assert not files(tmp_path)


@pytest.mark.parametrize("has_length", [True, False])
async def test_a_file_larger_than_max_bytes_is_not_kept(
    store: Store, tmp_path: Path, has_length: bool
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
    store: Store, tmp_path: Path, size: int, fits: bool
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


async def test_no_more_than_at_once_downloads_run_concurrently(
    store: Store, tmp_path: Path
) -> None:
    running = most = 0

    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return web.Response(body=b"video", headers={"Content-Type": "video/mp4"})

    store.script = [slow] * 12
    async with Downloader(tmp_path, at_once=3, allow_hosts=HERE) as downloader:
        await asyncio.gather(*(downloader.download(store.video(str(n))) for n in range(12)))
    assert most == 3
    assert len(files(tmp_path)) == 12


async def test_a_host_that_cannot_be_resolved_is_a_download_error(
    store: Store, tmp_path: Path
) -> None:
    for host in ("a..b", f"{'a' * 64}.example"):
        video = Generation(
            id="a", state=State.COMPLETED, video=Video(download_url=f"http://{host}/v.mp4")
        )
        with pytest.raises(DownloadError, match="not a valid URL"):
            await download(video, tmp_path)
    store.script = [answer(302, Location="//[bad")]
    with pytest.raises(DownloadError, match="redirects to an invalid URL"):
        await download(store.video(), tmp_path, allow_hosts=HERE)


async def test_one_file_is_not_written_by_two_downloads(store: Store, tmp_path: Path) -> None:
    version = version_of('"one"', None, len(BODY))
    other = PartialFile(tmp_path, "a.mp4", version)
    with pytest.raises(DownloadError, match="another download of a.mp4 is running; wait"):
        await download(store.video(), tmp_path, allow_hosts=HERE)
    other.close()
    assert (await download(store.video(), tmp_path, allow_hosts=HERE)).read_bytes() == BODY


def test_a_partial_file_that_is_finished_before_its_lock_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, real = version_of("one"), fcntl.flock
    first = PartialFile(tmp_path, "a.mp4", version)
    first.write(BODY)

    def late(file: int, how: int) -> None:
        monkeypatch.undo()
        first.finish()
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(DownloadError, match="another download of a.mp4 is running; wait"):
        PartialFile(tmp_path, "a.mp4", version)
    assert (tmp_path / "a.mp4").read_bytes() == BODY


async def test_a_download_cancelled_during_a_write_is_resumed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cancellation does not wait for the writing thread, whose file stays open until then."""
    real, writing, may_write, written = (
        os.pwrite,
        asyncio.Event(),
        threading.Event(),
        asyncio.Event(),
    )
    loop = asyncio.get_running_loop()

    def slow(file: int, data: Any, offset: int) -> int:
        loop.call_soon_threadsafe(writing.set)
        may_write.wait(10)
        try:
            return real(file, data, offset)
        finally:
            loop.call_soon_threadsafe(written.set)

    monkeypatch.setattr(os, "pwrite", slow)
    async with Downloader(tmp_path, allow_hosts=HERE) as downloader:
        task = asyncio.create_task(downloader.download(store.video()))
        await writing.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        may_write.set()
        await written.wait()
        monkeypatch.setattr(os, "pwrite", real)
        await until(lambda: _is_free(tmp_path))
        assert (await downloader.download(store.video())).read_bytes() == BODY
        assert str(store.ranges[-1]).startswith("bytes=")


def _is_free(directory: Path) -> bool:
    """Return whether the only partial file is not locked."""
    (part,) = parts_folder(directory).iterdir()
    with part.open("rb") as opened, suppress(BlockingIOError):
        fcntl.flock(opened.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


async def test_a_symbolic_link_in_place_of_a_partial_file_is_not_followed(
    store: Store, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    version = version_of('"one"', None, len(BODY))
    (parts_folder(tmp_path) / f"a.mp4.{version}").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        await download(store.video(), tmp_path, allow_hosts=HERE)
    assert victim.read_bytes() == b"precious"


async def test_a_full_disk_is_an_os_error_and_the_download_can_be_resumed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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


async def test_the_hook_receives_the_progress_from_the_first_byte_to_the_file_in_place(
    store: Store, tmp_path: Path
) -> None:
    events: list[DownloadProgress] = []
    async with Downloader(tmp_path, allow_hosts=HERE, on_progress=events.append) as downloader:
        path = await downloader.download(store.video())
        assert events[0] == DownloadProgress(id="a", received=0, total=len(BODY), path=None)
        size = len(BODY)
        assert events[-1] == DownloadProgress(id="a", received=size, total=size, path=path)
        events.clear()
        await downloader.download(store.video())
        assert events == [DownloadProgress(id="a", received=size, total=size, path=path)]


async def test_the_hook_receives_the_end_of_a_download_that_failed(
    store: Store, tmp_path: Path
) -> None:
    events: list[DownloadProgress] = []
    store.script = [answer(418)]
    async with Downloader(tmp_path, allow_hosts=HERE, on_progress=events.append) as downloader:
        with pytest.raises(DownloadError):
            await downloader.download(store.video())
    assert events == [DownloadProgress(id="a", received=0, total=None, path=None)]


async def test_an_exception_of_the_hook_loses_no_file_and_is_logged_once(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(event: DownloadProgress) -> None:
        raise RuntimeError("the bar is closed")

    async with Downloader(tmp_path, allow_hosts=HERE, on_progress=broken) as downloader:
        assert (await downloader.download(store.video())).read_bytes() == BODY
    assert [one.message.partition(" failed")[0] for one in caplog.records] == ["on_progress"]


async def test_a_task_without_a_link_is_a_download_error(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="download completed tasks only"):
        await download(Generation(id="a", state=State.PROCESSING), tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [{"allow_hosts": "127.0.0.1"}, {"luma": "session"}, {"at_once": 0}, {"max_bytes": 1.5}],
)
async def test_invalid_arguments_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match="give"):
        Downloader(tmp_path, **wrong)
    with pytest.raises(RuntimeError, match="async with"):
        await Downloader(tmp_path).download(
            Generation(id="a", state=State.COMPLETED, result_url="http://a.example/")
        )
    with pytest.raises(TypeError, match="give a Generation"):
        await Downloader(tmp_path).download("a")  # type: ignore[arg-type]


async def test_the_error_shows_no_signature(store: Store, tmp_path: Path) -> None:
    store.script = [answer(418)]
    with pytest.raises(DownloadError) as caught:
        await download(store.video(path="/v.mp4?sig=s3cret"), tmp_path, allow_hosts=HERE)
    assert "s3cret" not in str(caught.value)
    assert "/v.mp4" in str(caught.value)
