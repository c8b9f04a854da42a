"""No request is sent to a private address, however the link or its host leads there."""

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from luma_async import DownloadError, Generation, State, Video, download
from luma_async.downloads.public_resolver import PublicResolver
from tests.downloads.video_store import BODY, HERE, VideoStore, answer


async def test_a_private_host_is_refused_before_a_request_is_sent(
    store: VideoStore, tmp_path: Path
) -> None:
    for host in ("127.0.0.1", "localhost", "0x7f.1", "2130706433"):
        store_url = store.url.replace("127.0.0.1", host)
        video = Generation(
            id="a", state=State.COMPLETED, video=Video(download_url=f"{store_url}/v.mp4")
        )
        with pytest.raises(DownloadError, match="private address.*allow_hosts|not a valid URL"):
            await download(video, tmp_path)
    assert not store.seen


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
    store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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


async def test_a_proxy_may_be_private_and_resolves_the_names(
    store: VideoStore, tmp_path: Path
) -> None:
    video = store.video()
    store.url = "http://cdn.example"
    proxy = str(video.url).removesuffix("/v.mp4").replace("127.0.0.1", "localhost")
    path = await download(store.video(), tmp_path, proxy=proxy)
    assert path.read_bytes() == BODY
    assert store.seen[0].headers["Host"] == "cdn.example"


async def test_a_host_that_cannot_be_resolved_is_a_download_error(
    store: VideoStore, tmp_path: Path
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
