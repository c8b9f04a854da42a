"""No request is sent to a private address, however the link or its host leads there."""

import socket
from base64 import b64encode
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec.structs import replace
from yarl import URL

from luma_async import Downloader, DownloadError, Generation, State, Video, download
from luma_async.downloads.public_resolver import PublicResolver
from tests.downloads.test_addresses import PRIVATE_IPV6, literals, spellings
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
    """Replaces aiohttp's resolver: each name has a script of addresses; the last one stays."""

    zone: dict[str, list[list[str]]]

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[dict[str, Any]]:
        answers = self.zone[host.lower()]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            {"hostname": host, "host": one, "port": port, "family": 2, "proto": 0, "flags": 0}
            for one in found
        ]

    async def close(self) -> None:
        pass


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """Return the names that can be resolved, to be filled by the test."""
    monkeypatch.setattr(FakeResolver, "zone", {}, raising=False)
    monkeypatch.setattr(aiohttp, "DefaultResolver", FakeResolver)
    return FakeResolver.zone


@pytest.fixture
def connected(store: VideoStore, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the addresses of all connections; those to public ones lead to the store."""
    addresses, port = list[str](), int(store.url.rpartition(":")[2])
    library: Any = aiohttp.connector
    real = library.aiohappyeyeballs.start_connection

    async def start_connection(addr_infos: list[Any], **options: Any) -> Any:
        addresses.extend(info[-1][0] for info in addr_infos)
        here = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
        return await real(addr_infos=[here], **options)

    monkeypatch.setattr(library.aiohappyeyeballs, "start_connection", start_connection)
    return addresses


ZONE = dict[str, list[list[str]]]


async def test_a_host_name_is_checked_by_its_resolved_addresses(
    store: VideoStore, tmp_path: Path, zone: ZONE
) -> None:
    zone["inside.example"] = [["127.0.0.1"]]
    zone["mixed.example"] = [["10.0.0.1", "8.8.8.8", "::1"]]
    store.url = store.url.replace("127.0.0.1", "inside.example")
    with pytest.raises(DownloadError, match=r"at inside\.example; .* 127\.0\.0\.1 .*allow_hosts"):
        await download(store.video(), tmp_path)
    assert not store.seen
    path = await download(store.video(), tmp_path, allow_hosts=("Inside.Example",))
    assert path.read_bytes() == BODY
    found = await PublicResolver(()).resolve("mixed.example")
    assert [(one["host"], one["port"]) for one in found] == [("8.8.8.8", 0)]


async def test_an_address_of_a_fake_ip_resolver_is_connected_to(
    store: VideoStore, tmp_path: Path, zone: ZONE, connected: list[str]
) -> None:
    zone["cdn.example"] = [["198.18.0.7"]]
    store.url = "http://cdn.example"
    assert (await download(store.video(), tmp_path)).read_bytes() == BODY
    assert connected == ["198.18.0.7"]
    store.url = "http://198.18.0.7"
    with pytest.raises(DownloadError, match=r"at 198\.18\.0\.7; .*allow_hosts"):
        await download(store.video("b"), tmp_path)


SPELLINGS = sorted({one for address in literals() for one in spellings(address)})


@pytest.mark.parametrize("how", ["link", "redirect"])
async def test_no_private_address_is_requested_in_any_notation(
    store: VideoStore, tmp_path: Path, connected: list[str], how: str
) -> None:
    hosts = [*SPELLINGS, *(f"[{address}]" for address in PRIVATE_IPV6)]
    hosts += [one.replace(".", "%2e") for one in literals()]
    hosts += [f"user@{one}" for one in literals()]
    asked = 0
    async with Downloader(tmp_path, allow_hosts=HERE) as downloader:
        for number, host in enumerate(hosts):
            target = f"http://{host.replace('%', '%25') if '[' in host else host}:81/v.mp4"
            if "127.0.0.1" in (URL(target, encoded=True).raw_host or ""):
                continue
            video = store.video(str(number))
            if how == "link":
                video = replace(video, video=Video(download_url=target))
            else:
                asked += 1
                store.script = [answer(302, Location=target)]
            with pytest.raises(DownloadError, match="allow_hosts|not a valid URL"):
                await downloader.download(video)
    assert len(store.seen) == asked
    assert set(connected) <= {"127.0.0.1"}


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "169.254.169.254", "168.63.129.16", "::1", "::ffff:10.0.0.1"]
)
async def test_no_name_that_resolves_to_a_private_address_is_requested(
    store: VideoStore, tmp_path: Path, zone: ZONE, connected: list[str], address: str
) -> None:
    """Neither at first, nor behind a redirect, nor if the name resolved to another one before."""
    zone["inside.example"] = [[address]]
    zone["turns.example"] = [["8.8.8.8"], [address]]
    store.url = "http://inside.example"
    with pytest.raises(DownloadError, match="allow_hosts"):
        await download(store.video(), tmp_path)
    assert not connected
    store.url = "http://turns.example"
    resolver = PublicResolver(())
    assert (await resolver.resolve("turns.example"))[0]["host"] == "8.8.8.8"
    with pytest.raises(DownloadError, match="allow_hosts"):
        await download(store.video(), tmp_path)
    assert not connected
    zone["turns.example"] = [["8.8.8.8"], [address]]
    store.script = [answer(302, Location="http://inside.example/v.mp4")]
    with pytest.raises(DownloadError, match="allow_hosts"):
        await download(store.video(), tmp_path)
    assert connected == ["8.8.8.8"]
    assert len(store.seen) == 1


async def test_a_proxy_may_be_private_and_resolves_the_names(
    store: VideoStore, tmp_path: Path
) -> None:
    video = store.video()
    store.url = "http://cdn.example"
    proxy = str(video.url).removesuffix("/v.mp4").replace("127.0.0.1", "user:word@localhost")
    path = await download(store.video(), tmp_path, proxy=proxy)
    assert path.read_bytes() == BODY
    assert store.seen[0].headers["Host"] == "cdn.example"
    login = b64encode(b"user:word").decode()
    assert store.seen[0].headers["Proxy-Authorization"] == f"Basic {login}"


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
