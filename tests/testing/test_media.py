"""Claims about the files behind a relay's links: what they are, for whom, in parts."""

import hashlib
import xml.etree.ElementTree as ElementTree
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from multidict import CIMultiDictProxy

from luma_async import LumaSession
from luma_async.testing import FakeRelay, Reply
from luma_async.testing.media import link, named, part, picture, video
from luma_async.testing.simulation import ENVELOPES, Envelope

HOSTILE = ["a/b c%é", "..", "x.svg", "<script>", "任务", "a\r\nb", "?#"]

Answer = tuple[int, CIMultiDictProxy[str], bytes]


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as http:
        yield http


async def ask(http: aiohttp.ClientSession, url: str, method: str = "GET", **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with http.request(method, url, headers=named) as answer:
        return answer.status, answer.headers, await answer.read()


# what they are


def test_the_clip_is_an_mp4_of_h264_whose_index_comes_first() -> None:
    clip = video("x")
    assert clip[4:8] == b"ftyp"
    assert b"avc1" in clip
    assert clip.index(b"moov") < clip.index(b"mdat")
    assert len(clip) < 8192


def test_each_task_has_a_video_of_its_own_and_the_same_one_again() -> None:
    assert video("x") == video("x") != video("y")
    assert _boxes(video("x")) == _boxes(video("y"))


def _boxes(mp4: bytes) -> list[bytes]:
    """Return the names of the outermost boxes, which must fill the file."""
    names: list[bytes] = []
    place = 0
    while place < len(mp4):
        names.append(mp4[place + 4 : place + 8])
        place += int.from_bytes(mp4[place : place + 4])
    assert place == len(mp4)
    return names


@pytest.mark.parametrize("task_id", HOSTILE)
def test_a_picture_is_svg_and_says_nothing_of_the_id(task_id: str) -> None:
    drawn = picture(task_id)
    root = ElementTree.fromstring(drawn)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert {len(text.strip()) for text in root.itertext()} <= {0}
    assert drawn == picture(task_id) != picture(task_id + "x")


@pytest.mark.parametrize("task_id", HOSTILE)
def test_a_link_names_its_task_whatever_its_id(task_id: str) -> None:
    url = link("http://h", task_id)
    assert url.count("/") == 4
    assert named(url.removeprefix("http://h")) == (task_id, "mp4")


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("", None),
        ("bytes=0-", range(100)),
        ("bytes=10-19", range(10, 20)),
        ("bytes=90-200", range(90, 100)),
        ("bytes=-10", range(90, 100)),
        ("bytes=-200", range(100)),
        ("Bytes=99-99", range(99, 100)),
        ("bytes=100-", range(0)),
        ("bytes=100-200", range(0)),
        ("bytes=-0", range(0)),
        ("bytes=20-10", None),
        ("bytes=-", None),
        ("bytes=0-1,5-6", None),
        ("bytes=a-b", None),
        ("bytes=٣-", None),
        ("lines=0-1", None),
        (f"bytes={'9' * 5000}-", None),
    ],
)
def test_a_range_is_read_as_rfc_9110_says(header: str, wanted: range | None) -> None:
    assert part(header, 100) == wanted


# over HTTP


@pytest.mark.virtual_time
@pytest.mark.parametrize("envelope", ENVELOPES)
async def test_the_links_that_a_session_reads_lead_to_the_files(
    http: aiohttp.ClientSession, envelope: Envelope
) -> None:
    async with (
        FakeRelay(envelope=envelope, path_prefix="/pro") as relay,
        LumaSession(relay.url, api_key=relay.api_key) as luma,
    ):
        for task_id in HOSTILE:
            generation = await luma.wait_until_done(relay.add(task_id))
            assert generation.url
            assert generation.thumbnail
            status, headers, body = await ask(http, generation.url)
            assert (status, headers["Content-Type"], body) == (200, "video/mp4", video(task_id))
            assert generation.thumbnail.url
            status, headers, body = await ask(http, generation.thumbnail.url)
            assert (status, headers["Content-Type"]) == (200, "image/svg+xml")
            assert body == picture(task_id)


@pytest.mark.virtual_time
async def test_a_file_comes_in_parts(relay: FakeRelay, http: aiohttp.ClientSession) -> None:
    url, whole = link(relay.url, relay.add("x")), video("x")
    status, headers, body = await ask(http, url, Range="bytes=1000-")
    assert (status, body) == (206, whole[1000:])
    assert headers["Content-Range"] == f"bytes 1000-{len(whole) - 1}/{len(whole)}"
    status, headers, body = await ask(http, url, Range=f"bytes={len(whole)}-")
    assert (status, body) == (416, b"")
    assert headers["Content-Range"] == f"bytes */{len(whole)}"


@pytest.mark.virtual_time
async def test_a_part_of_another_file_than_meant_is_the_whole(
    relay: FakeRelay, http: aiohttp.ClientSession
) -> None:
    url = link(relay.url, relay.add("x"))
    _, headers, whole = await ask(http, url)
    etag = headers["ETag"]
    assert (await ask(http, url, Range="bytes=9-", If_Range=etag))[0] == 206
    assert (await ask(http, url, Range="bytes=9-", If_Range='"other"'))[::2] == (200, whole)
    assert (await ask(http, url, If_None_Match=etag))[::2] == (304, b"")


@pytest.mark.virtual_time
async def test_head_tells_the_length_and_sends_nothing(
    relay: FakeRelay, http: aiohttp.ClientSession
) -> None:
    url = link(relay.url, relay.add("x"))
    status, headers, body = await ask(http, url, "HEAD", Range="bytes=9-")
    assert (status, headers["Content-Length"], body) == (200, str(len(video("x"))), b"")
    assert headers["Accept-Ranges"] == "bytes"


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    "script", [{"duration": 5}, {"ends": "failed"}, {"link_after": 5}, {"visible_after": 5}]
)
async def test_there_is_no_file_where_there_is_no_link(
    relay: FakeRelay, http: aiohttp.ClientSession, script: dict[str, Any]
) -> None:
    url = link(relay.url, relay.add("x", **script))
    assert (await ask(http, url))[0] == 404
    assert (await ask(http, link(relay.url, "nobody")))[0] == 404


@pytest.mark.virtual_time
async def test_files_stand_in_a_log_of_their_own(
    relay: FakeRelay, http: aiohttp.ClientSession
) -> None:
    await ask(http, link(relay.url, relay.add("x")), Range="bytes=9-")
    await ask(http, link(relay.url, "y", "svg"), "HEAD")
    assert [(asked.method, asked.ids, asked.status) for asked in relay.media_log] == [
        ("GET", ("x",), 206),
        ("HEAD", ("y",), 404),
    ]
    assert (relay.log, relay.requests) == ([], 0)


@pytest.mark.virtual_time
async def test_scripted_replies_reach_files_where_they_are_for_them(
    relay: FakeRelay, http: aiohttp.ClientSession
) -> None:
    url = link(relay.url, relay.add("x"))
    relay.reply(Reply(503))
    relay.reply(Reply(403), Reply(body=b"x" * 200, breakage="truncated"), on="media")
    assert (await ask(http, url))[0] == 403
    with pytest.raises(aiohttp.ClientPayloadError):
        await ask(http, url)
    assert (await ask(http, url))[0] == 200
    assert (await ask(http, relay.url))[0] == 503


async def test_a_relay_started_again_tells_links_that_lead_to_it(
    http: aiohttp.ClientSession,
) -> None:
    relay = FakeRelay()
    found: set[str] = set()
    for _ in range(2):
        async with relay, LumaSession(relay.url, api_key=relay.api_key) as luma:
            task_id = next(iter(relay.tasks), None) or relay.add()
            url = (await luma.get(task_id)).url
            assert url
            assert url.startswith(relay.url)
            found.add(hashlib.sha256((await ask(http, url))[2]).hexdigest())
    assert len(found) == 1
