"""Videos to files, from a server that does what servers do."""

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

from luma_async import Downloader, DownloadError, Generation, LumaSession, State, Video, download
from luma_async.downloads import downloader as downloading
from luma_async.downloads import transfer as fetching
from luma_async.downloads.partial_file import PARTS_FOLDER, PartialFile, folder, mark_of
from luma_async.testing import FakeRelay, Reply
from tests.worker.worker_processes import until

BODY = os.urandom(600_000)
HERE = ("127.0.0.1",)
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Store:
    """A server of videos; `handle` may be replaced, `seen` is what was asked."""

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
            await asyncio.sleep(0.05)  # what has come when a connection breaks, aiohttp forgets
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
    monkeypatch.setattr(fetching, "FIRST_PAUSE", 0.001)
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


def told_anew(store: Store) -> Reply:
    """Return the relay's answer about a task whose link is another one now."""
    fresh = {"id": "a", "state": "completed", "video": {"download_url": f"{store.url}/fresh.mp4"}}
    return Reply(body=json.dumps(fresh).encode())


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def test_a_video_is_saved_under_its_id_and_asked_for_without_a_key(
    store: Store, tmp_path: Path, luma: LumaSession
) -> None:
    path = await download(store.video(), tmp_path / "new" / "dir", luma=luma, allow_hosts=HERE)
    assert path == tmp_path / "new" / "dir" / "a.mp4"
    assert path.read_bytes() == BODY
    assert files(path.parent) == ["a.mp4"]
    (asked,) = store.seen
    assert "Authorization" not in asked.headers
    assert asked.headers["Accept-Encoding"] == "identity"


async def test_a_compressed_file_is_refused_and_not_decoded(
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
    with pytest.raises(DownloadError, match="comes compressed"):
        await download(store.video(), tmp_path, allow_hosts=HERE)
    assert not made


async def test_neither_an_answer_nor_the_environment_adds_to_a_request(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.url = store.url.replace("127.0.0.1", "localhost")  # of an address no cookie is kept
    (tmp_path / "netrc").write_text("machine localhost login me password s3cret")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("http_proxy", store.url)
    monkeypatch.delenv("no_proxy", raising=False)
    store.script = [answer(302, Location="/other.mp4", Set_Cookie="id=me")]
    await download(store.video(), tmp_path, allow_hosts=("localhost",))
    assert [one.raw_path for one in store.seen] == ["/v.mp4", "/other.mp4"], "a proxy gets URLs"
    assert not {"Cookie", "Authorization"} & {*store.seen[0].headers, *store.seen[1].headers}


class Names:
    """In place of aiohttp's resolver: what the names of one zone resolve to."""

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[dict[str, Any]]:
        zone = {"inside.example": ["127.0.0.1"], "mixed.example": ["10.0.0.1", "8.8.8.8", "::1"]}
        return [
            {"hostname": host, "host": one, "port": port, "family": 2, "proto": 0, "flags": 0}
            for one in zone[host.lower()]
        ]

    async def close(self) -> None:
        pass


async def test_a_name_is_judged_by_what_it_resolves_to(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aiohttp, "DefaultResolver", Names)
    store.url = store.url.replace("127.0.0.1", "inside.example")
    with pytest.raises(DownloadError, match=r"private address at inside\.example; .*allow_hosts"):
        await download(store.video(), tmp_path)
    assert not store.seen
    path = await download(store.video(), tmp_path, allow_hosts=("Inside.Example",))
    assert path.read_bytes() == BODY
    found = await fetching.PublicResolver(()).resolve("mixed.example")
    assert [one["host"] for one in found] == ["8.8.8.8"]


async def test_a_proxy_may_be_private_and_is_the_one_to_look_names_up(
    store: Store, tmp_path: Path
) -> None:
    video = store.video()
    store.url = "http://cdn.example"
    proxy = str(video.url).removesuffix("/v.mp4").replace("127.0.0.1", "localhost")
    path = await download(store.video(), tmp_path, proxy=proxy)
    assert path.read_bytes() == BODY
    assert store.seen[0].headers["Host"] == "cdn.example"


async def test_a_server_that_falls_silent_is_left_and_asked_again(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(100)
        return web.Response()

    monkeypatch.setattr(downloading, "READ_TIMEOUT", 0.05)
    store.script = [silent]
    async with asyncio.timeout(10):
        path = await download(store.video(), tmp_path, allow_hosts=HERE)
    assert path.read_bytes() == BODY


async def test_one_task_that_is_asked_for_twice_at_once_is_fetched_once(
    store: Store, tmp_path: Path
) -> None:
    async with Downloader(tmp_path, allow_hosts=HERE) as downloader:
        paths = await asyncio.gather(*(downloader.download(store.video()) for _ in range(3)))
    assert set(paths) == {tmp_path / "a.mp4"}
    assert len(store.seen) == 1


def test_a_pause_is_as_long_as_the_server_asks_and_never_longer_than_a_minute() -> None:
    pause = fetching._retry_delay  # pyright: ignore[reportPrivateUsage]
    assert pause(1, 30.0) == 30.0
    assert pause(1, 86_400.0) == fetching.LONGEST_PAUSE == 60.0
    assert pause(fetching.MAX_ATTEMPTS, None) <= fetching.FIRST_PAUSE * 2**fetching.MAX_ATTEMPTS


async def test_what_is_there_is_not_fetched_again(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"mine")
    path = await download(store.video(), tmp_path, allow_hosts=HERE)
    assert path.read_bytes() == b"mine"
    assert not store.seen


async def test_what_breaks_off_goes_on_where_it_was(store: Store, tmp_path: Path) -> None:
    """As often as it takes: with each try there is progress."""
    store.cut_after = [70_000] * 8
    path = await download(store.video(), tmp_path, allow_hosts=HERE)
    assert path.read_bytes() == BODY
    assert store.ranges == [None, *(f"bytes={70_000 * n}-" for n in range(1, 9))]
    assert files(tmp_path) == ["a.mp4"]


async def test_a_part_that_claims_to_be_all_is_gone_on_with(store: Store, tmp_path: Path) -> None:
    told = f"bytes 0-9/{len(BODY)}"
    headers = {"Content_Range": told, "Content_Type": "video/mp4", "ETag": store.etag}
    store.script = [answer(206, body=BODY[:10], **headers)]
    assert (await download(store.video(), tmp_path, allow_hosts=HERE)).read_bytes() == BODY
    assert store.ranges == [None, "bytes=10-"]


async def test_the_longest_of_the_parts_that_were_left_counts(store: Store, tmp_path: Path) -> None:
    for mark, size in ((mark_of("old"), 50), (mark_of(store.etag, None, len(BODY)), 5000)):
        part = PartialFile(tmp_path, "a.mp4", mark)
        part.write(BODY[:size])
        part.close()
    (tmp_path / PARTS_FOLDER / "a.mp4.other").touch()
    assert (await download(store.video(), tmp_path, allow_hosts=HERE)).read_bytes() == BODY
    assert store.ranges == ["bytes=5000-"]
    assert files(tmp_path) == [PARTS_FOLDER, "a.mp4"]
    assert files(tmp_path / PARTS_FOLDER) == ["a.mp4.other"]


async def test_a_cancelled_download_is_gone_on_with_by_the_next_one(
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
    await until(lambda: any(one.stat().st_size == 50_000 for one in folder(tmp_path).iterdir()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (left,) = files(tmp_path / PARTS_FOLDER)
    assert left.startswith("a.mp4.")
    assert (await download(store.video(), tmp_path, allow_hosts=HERE)).read_bytes() == BODY
    assert store.ranges[-1] == "bytes=50000-"
    assert files(tmp_path) == ["a.mp4"]


async def test_bytes_of_two_versions_are_never_mixed(store: Store, tmp_path: Path) -> None:
    store.cut_after = [100_000]
    store.next_version = BODY[::-1], '"two"'
    path = await download(store.video(), tmp_path, allow_hosts=HERE)
    assert path.read_bytes() == BODY[::-1]
    assert files(tmp_path) == ["a.mp4"]


async def test_a_server_that_knows_no_ranges_sends_it_whole(store: Store, tmp_path: Path) -> None:
    store.cut_after = [100_000]
    path = await download(store.video(), tmp_path, allow_hosts=HERE)
    path.unlink()
    mark = mark_of('"one"', None, len(BODY))
    part = PartialFile(tmp_path, "a.mp4", mark)
    part.write(b"x" * 1000)
    part.close()
    store.script = [answer(200, body=BODY, ETag='"one"', Content_Type="video/mp4")]
    path = await download(store.video(), tmp_path, allow_hosts=HERE)
    assert path.read_bytes() == BODY
    assert store.ranges[-1] == "bytes=1000-"


async def test_a_server_that_knows_no_ranges_overwrites_what_an_older_part_held(
    store: Store, tmp_path: Path
) -> None:
    for mark, size in ((mark_of("old"), 5000), (mark_of(store.etag, None, len(BODY)), 50)):
        part = PartialFile(tmp_path, "a.mp4", mark)
        part.write(b"x" * size)
        part.close()
    store.script = [answer(200, body=BODY, ETag=store.etag, Content_Type="video/mp4")]
    assert (await download(store.video(), tmp_path, allow_hosts=HERE)).read_bytes() == BODY
    assert store.ranges == ["bytes=5000-"]


async def test_another_part_than_was_asked_for_is_not_put_behind_what_is_there(
    store: Store, tmp_path: Path
) -> None:
    part = PartialFile(tmp_path, "a.mp4", mark_of(store.etag, None, len(BODY)))
    part.write(BODY[:1000])
    part.close()
    told = f"bytes 2000-{len(BODY) - 1}/{len(BODY)}"
    headers = {"Content_Range": told, "Content_Type": "video/mp4", "ETag": store.etag}
    store.script = [answer(206, body=BODY[2000:], **headers)]
    assert (await download(store.video(), tmp_path, allow_hosts=HERE)).read_bytes() == BODY


async def test_a_part_that_the_server_does_not_know_is_begun_anew(
    store: Store, tmp_path: Path
) -> None:
    part = PartialFile(tmp_path, "a.mp4", mark_of("gone"))
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
async def test_a_dead_link_is_asked_anew_of_the_relay_once(
    store: Store, tmp_path: Path, relay: FakeRelay, luma: LumaSession, dead: Handler
) -> None:
    relay.reply(told_anew(store), on="get")
    store.script = [dead]
    path = await download(store.video(), tmp_path, luma=luma, allow_hosts=HERE)
    assert path.read_bytes() == BODY
    assert [request.path for request in store.seen] == ["/v.mp4", "/fresh.mp4"]
    assert relay.requests == 1


async def test_a_fresh_link_that_is_dead_too_is_the_end(
    store: Store, tmp_path: Path, relay: FakeRelay, luma: LumaSession
) -> None:
    relay.reply(told_anew(store), on="get")
    store.script = [answer(403), answer(403)]
    with pytest.raises(DownloadError, match="submit the task anew"):
        await download(store.video(), tmp_path, luma=luma, allow_hosts=HERE)
    assert relay.requests == 1
    assert not files(tmp_path)


async def test_a_dead_link_without_a_session_says_what_to_give(
    store: Store, tmp_path: Path
) -> None:
    store.script = [answer(404)]
    with pytest.raises(DownloadError, match="give luma, which asks for a fresh link"):
        await download(store.video(), tmp_path, allow_hosts=HERE)


async def test_a_passing_fault_is_tried_again_and_a_lasting_one_five_times(
    store: Store, tmp_path: Path
) -> None:
    store.script = [answer(503), answer(429, Retry_After="0")]
    assert (await download(store.video(), tmp_path, allow_hosts=HERE)).read_bytes() == BODY
    store.script = [answer(500)] * 9
    store.seen.clear()
    with pytest.raises(DownloadError, match="try again"):
        await download(store.video("b"), tmp_path, allow_hosts=HERE)
    assert len(store.seen) == fetching.MAX_ATTEMPTS


async def test_a_host_in_a_private_range_is_refused_before_it_is_asked(
    store: Store, tmp_path: Path
) -> None:
    for host in ("127.0.0.1", "localhost", "0x7f.1", "2130706433"):
        store_url = store.url.replace("127.0.0.1", host)
        video = Generation(
            id="a", state=State.COMPLETED, video=Video(download_url=f"{store_url}/v.mp4")
        )
        with pytest.raises(DownloadError, match="private address.*allow_hosts|no URL"):
            await download(video, tmp_path)
    assert not store.seen


async def test_a_redirect_is_followed_and_judged_as_the_link_was(
    store: Store, tmp_path: Path
) -> None:
    store.script = [answer(302, Location="/other.mp4?sig=%2f")]
    assert (await download(store.video(), tmp_path, allow_hosts=HERE)).read_bytes() == BODY
    assert store.seen[-1].raw_path == "/other.mp4?sig=%2f"
    for elsewhere in (store.url.replace("127.0.0.1", "localhost"), "file:///etc/passwd", "ftp://a"):
        store.script = [answer(307, Location=elsewhere)]
        with pytest.raises(DownloadError, match="allow_hosts|not followed"):
            await download(store.video("b"), tmp_path, allow_hosts=HERE)
    store.script = [answer(301, Location="/v.mp4")] * 20
    with pytest.raises(DownloadError, match="on and on"):
        await download(store.video("b"), tmp_path, allow_hosts=HERE)
    assert files(tmp_path) == ["a.mp4"]


@pytest.mark.parametrize(
    "odd",
    [
        answer(200, body=BODY, Content_Encoding="gzip", Content_Type="video/mp4"),
        answer(206, body=BODY, Content_Range="nonsense", Content_Type="video/mp4"),
        answer(204),
        answer(400),
        answer(304),
    ],
)
async def test_an_odd_answer_is_an_error_and_no_file(
    store: Store, tmp_path: Path, odd: Handler
) -> None:
    store.script = [odd]
    with pytest.raises(DownloadError, match="ask the relay's operator"):
        await download(store.video(), tmp_path, allow_hosts=HERE)
    assert not files(tmp_path)


@pytest.mark.parametrize(
    "odd",
    [
        answer(200, Content_Type="video/mp4"),
        answer(206, body=BODY, Content_Range="bytes 0-9/10", Content_Type="video/mp4"),
    ],
)
async def test_a_file_that_is_empty_or_too_long_is_a_dead_link(
    store: Store, tmp_path: Path, odd: Handler
) -> None:
    store.script = [odd]
    with pytest.raises(DownloadError, match="is empty or of another length"):
        await download(store.video(), tmp_path, allow_hosts=HERE)
    assert not files(tmp_path)


@pytest.mark.parametrize("told", [True, False])
async def test_a_file_longer_than_it_may_be_is_not_kept(
    store: Store, tmp_path: Path, told: bool
) -> None:
    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "video/mp4"})
        await response.prepare(request)
        for _ in range(20):
            await response.write(BODY)
        return response

    store.script = [] if told else [endless]
    with pytest.raises(DownloadError, match="raise max_bytes"):
        await download(store.video(), tmp_path, allow_hosts=HERE, max_bytes=100_000)
    assert not files(tmp_path)


@pytest.mark.parametrize(("size", "fits"), [(10, True), (11, False)])
async def test_max_bytes_is_the_most_that_a_file_may_have(
    store: Store, tmp_path: Path, size: int, fits: bool
) -> None:
    async def untold(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "video/mp4"})
        await response.prepare(request)
        await response.write(b"x" * size)
        return response

    store.script = [untold]
    with nullcontext() if fits else pytest.raises(DownloadError, match="longer than 10 bytes"):
        path = await download(store.video(), tmp_path, allow_hosts=HERE, max_bytes=10)
        assert path.stat().st_size == size
    assert files(tmp_path) == ["a.mp4"] * fits


async def test_no_more_than_so_many_are_fetched_at_once(store: Store, tmp_path: Path) -> None:
    under_way = most = 0

    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= 1
        return web.Response(body=b"video", headers={"Content-Type": "video/mp4"})

    store.script = [slow] * 12
    async with Downloader(tmp_path, at_once=3, allow_hosts=HERE) as downloader:
        await asyncio.gather(*(downloader.download(store.video(str(n))) for n in range(12)))
    assert most == 3
    assert len(files(tmp_path)) == 12


async def test_a_link_that_no_name_server_can_be_asked_about_is_a_download_error(
    store: Store, tmp_path: Path
) -> None:
    for host in ("a..b", f"{'a' * 64}.example"):
        video = Generation(
            id="a", state=State.COMPLETED, video=Video(download_url=f"http://{host}/v.mp4")
        )
        with pytest.raises(DownloadError, match="no URL"):
            await download(video, tmp_path)
    store.script = [answer(302, Location="//[bad")]
    with pytest.raises(DownloadError, match="no URL"):
        await download(store.video(), tmp_path, allow_hosts=HERE)


async def test_one_file_is_not_written_by_two(store: Store, tmp_path: Path) -> None:
    mark = mark_of('"one"', None, len(BODY))
    mine = PartialFile(tmp_path, "a.mp4", mark)
    with pytest.raises(DownloadError, match="by somebody else; wait"):
        await download(store.video(), tmp_path, allow_hosts=HERE)
    mine.close()
    assert (await download(store.video(), tmp_path, allow_hosts=HERE)).read_bytes() == BODY


def test_a_part_that_was_finished_before_it_was_locked_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark, real = mark_of("one"), fcntl.flock
    first = PartialFile(tmp_path, "a.mp4", mark)
    first.write(BODY)

    def late(file: int, how: int) -> None:
        monkeypatch.undo()
        first.finish()
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(DownloadError, match="by somebody else; wait"):
        PartialFile(tmp_path, "a.mp4", mark)
    assert (tmp_path / "a.mp4").read_bytes() == BODY


async def test_a_download_cancelled_while_it_writes_is_gone_on_with(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that writes is not waited for, and finds its file open until it is done."""
    real, writing, go_on, written = os.pwrite, asyncio.Event(), threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(file: int, data: Any, offset: int) -> int:
        loop.call_soon_threadsafe(writing.set)
        go_on.wait(10)
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
        go_on.set()
        await written.wait()
        monkeypatch.setattr(os, "pwrite", real)
        await until(lambda: _is_free(tmp_path))
        assert (await downloader.download(store.video())).read_bytes() == BODY
        assert str(store.ranges[-1]).startswith("bytes=")


def _is_free(directory: Path) -> bool:
    """Whether nobody holds the one part that is there."""
    (part,) = folder(directory).iterdir()
    with part.open("rb") as opened, suppress(BlockingIOError):
        fcntl.flock(opened.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


async def test_a_link_in_place_of_a_part_is_not_written_through(
    store: Store, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    mark = mark_of('"one"', None, len(BODY))
    (folder(tmp_path) / f"a.mp4.{mark}").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        await download(store.video(), tmp_path, allow_hosts=HERE)
    assert victim.read_bytes() == b"precious"


async def test_a_full_disk_is_an_os_error_and_what_was_written_stays(
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


async def test_what_has_no_video_says_so(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="download what is completed"):
        await download(Generation(id="a", state=State.PROCESSING), tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [{"allow_hosts": "127.0.0.1"}, {"luma": "session"}, {"at_once": 0}, {"max_bytes": 1.5}],
)
async def test_wrong_arguments_are_refused_at_once(tmp_path: Path, wrong: dict[str, Any]) -> None:
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
