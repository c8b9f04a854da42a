"""Each video is in its file, under the id of its task; all other requests are refused."""

import asyncio
from pathlib import Path
from typing import Any

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
from tests.downloads.video_store import BODY, HERE, VideoStore, answer, files


async def test_a_video_is_saved_under_its_id_and_requested_without_a_key(
    store: VideoStore, tmp_path: Path, luma: LumaSession
) -> None:
    path = await download(store.video(), tmp_path / "new" / "dir", luma=luma, allow_hosts=HERE)
    assert path == tmp_path / "new" / "dir" / "a.mp4"
    assert path.read_bytes() == BODY
    assert files(path.parent) == ["a.mp4"]
    (request,) = store.seen
    assert "Authorization" not in request.headers
    assert request.headers["Accept-Encoding"] == "identity"


async def test_neither_a_response_nor_the_environment_adds_headers_to_a_request(
    store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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


async def test_concurrent_downloads_of_one_task_send_one_request(
    store: VideoStore, tmp_path: Path
) -> None:
    async with Downloader(tmp_path, allow_hosts=HERE) as downloader:
        paths = await asyncio.gather(*(downloader.download(store.video()) for _ in range(3)))
    assert set(paths) == {tmp_path / "a.mp4"}
    assert len(store.seen) == 1


async def test_a_downloader_that_is_entered_twice_is_a_runtime_error(tmp_path: Path) -> None:
    async with Downloader(tmp_path) as downloader:
        with pytest.raises(RuntimeError, match="make another one"):
            await downloader.__aenter__()


async def test_an_existing_file_is_not_downloaded_again(store: VideoStore, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"mine")
    path = await download(store.video(), tmp_path, allow_hosts=HERE)
    assert path.read_bytes() == b"mine"
    assert not store.seen


@pytest.mark.parametrize(("options", "at_once"), [({"at_once": 3}, 3), ({}, 4)])
async def test_no_more_than_at_once_downloads_run_concurrently(
    store: VideoStore, tmp_path: Path, options: dict[str, Any], at_once: int
) -> None:
    """The first requests are answered when as many have arrived, however slow the machine is."""
    running = most = 0
    is_full = asyncio.Event()

    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == at_once:
            is_full.set()
        await is_full.wait()
        await asyncio.sleep(0.01)
        running -= 1
        return web.Response(body=BODY, headers={"Content-Type": "video/mp4"})

    store.script = [slow] * 6
    async with Downloader(tmp_path, allow_hosts=HERE, **options) as downloader, asyncio.timeout(10):
        await asyncio.gather(*(downloader.download(store.video(str(n))) for n in range(6)))
    assert most == at_once
    assert len(files(tmp_path)) == len(store.seen) == 6


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


async def test_the_error_shows_no_signature(store: VideoStore, tmp_path: Path) -> None:
    store.script = [answer(418)]
    with pytest.raises(DownloadError) as caught:
        await download(store.video(path="/v.mp4?sig=s3cret"), tmp_path, allow_hosts=HERE)
    assert "s3cret" not in str(caught.value)
    assert "/v.mp4" in str(caught.value)


async def test_the_hook_receives_the_progress_from_the_first_byte_to_the_file_in_place(
    store: VideoStore, tmp_path: Path
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
    store: VideoStore, tmp_path: Path
) -> None:
    events: list[DownloadProgress] = []
    store.script = [answer(418)]
    async with Downloader(tmp_path, allow_hosts=HERE, on_progress=events.append) as downloader:
        with pytest.raises(DownloadError):
            await downloader.download(store.video())
    assert events == [DownloadProgress(id="a", received=0, total=None, path=None)]


async def test_an_exception_of_the_hook_loses_no_file_and_is_logged_once(
    store: VideoStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(event: DownloadProgress) -> None:
        raise RuntimeError("the bar is closed")

    async with Downloader(tmp_path, allow_hosts=HERE, on_progress=broken) as downloader:
        assert (await downloader.download(store.video())).read_bytes() == BODY
    assert [one.message.partition(" failed")[0] for one in caplog.records] == ["on_progress"]


async def test_a_download_without_a_hook_logs_nothing(
    store: VideoStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await download(store.video(), tmp_path, allow_hosts=HERE)
    assert not caplog.records


async def test_a_directory_with_the_name_of_the_file_is_an_error(
    store: VideoStore, tmp_path: Path
) -> None:
    (tmp_path / "a.mp4").mkdir()
    with pytest.raises(DownloadError, match=r"a\.mp4 is a directory; remove it"):
        await download(store.video(), tmp_path, allow_hosts=HERE)
    assert not store.seen

    async def make_it_now(request: web.BaseRequest) -> web.StreamResponse:
        (tmp_path / "b.mp4").mkdir()
        return web.Response(body=BODY, headers={"Content-Type": "video/mp4"})

    store.script = [make_it_now]
    with pytest.raises(DownloadError, match=r"b\.mp4 is a directory; remove it"):
        await download(store.video("b"), tmp_path, allow_hosts=HERE)


async def test_a_saved_file_may_be_moved_away_at_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_saved_and_taken(path: Path) -> bool:
        path.rename(path.with_suffix(".taken"))
        return True

    monkeypatch.setattr("luma_async.downloads.downloader.is_saved", is_saved_and_taken)
    (tmp_path / "a.mp4").write_bytes(b"video")
    generation = Generation(
        id="a", state=State.COMPLETED, video=Video(download_url="http://cdn.example/v.mp4")
    )
    assert await download(generation, tmp_path) == tmp_path / "a.mp4"


async def test_an_expired_link_with_a_user_is_not_tried_again(
    store: VideoStore, tmp_path: Path
) -> None:
    expired = answer(400, body=b"<Error><Code>ExpiredToken</Code></Error>")
    store.script = [expired]
    store.url = store.url.replace("://", "://user:word@")
    with pytest.raises(DownloadError, match="ExpiredToken"):
        await download(store.video(), tmp_path, allow_hosts=HERE)
    assert len(store.seen) == 1
