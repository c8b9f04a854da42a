"""The files behind the links of a FakeRelay: content, routes, ranges and status."""

import hashlib
import xml.etree.ElementTree as ElementTree
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from multidict import CIMultiDictProxy

from luma_async import LumaSession
from luma_async.testing import FakeRelay, Reply
from luma_async.testing.media import media_url, parse_range, parse_route, picture, video
from luma_async.testing.simulation import ENVELOPES, Envelope

HOSTILE = ["a/b c%é", "..", "x.svg", "<script>", "任务", "a\r\nb", "?#"]

Answer = tuple[int, CIMultiDictProxy[str], bytes]


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as http:
        yield http


async def ask(http: aiohttp.ClientSession, url: str, method: str = "GET", **headers: str) -> Answer:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    async with http.request(method, url, headers=fields) as answer:
        return answer.status, answer.headers, await answer.read()


def test_the_video_is_an_mp4_with_h264_and_its_index_in_front() -> None:
    mp4 = video("x")
    assert mp4[4:8] == b"ftyp"
    assert b"avc1" in mp4
    assert mp4.index(b"moov") < mp4.index(b"mdat")
    assert len(mp4) < 8192


def test_each_task_has_its_own_video_which_never_changes() -> None:
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
def test_an_image_is_svg_without_the_id(task_id: str) -> None:
    drawn = picture(task_id)
    root = ElementTree.fromstring(drawn)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert {len(text.strip()) for text in root.itertext()} <= {0}
    assert drawn == picture(task_id) != picture(task_id + "x")


@pytest.mark.parametrize("task_id", HOSTILE)
def test_a_link_leads_to_its_task_for_any_id(task_id: str) -> None:
    url = media_url("http://h", task_id)
    assert url.count("/") == 4
    assert parse_route(url.removeprefix("http://h")) == (task_id, "mp4")


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
def test_a_range_is_parsed_as_in_rfc_9110(header: str, wanted: range | None) -> None:
    assert parse_range(header, 100) == wanted


@pytest.mark.virtual_time
@pytest.mark.parametrize("envelope", ENVELOPES)
async def test_the_links_of_a_generation_lead_to_the_files(
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
async def test_a_range_request_gets_a_part_of_the_file(
    relay: FakeRelay, http: aiohttp.ClientSession
) -> None:
    url, whole = media_url(relay.url, relay.add("x")), video("x")
    status, headers, body = await ask(http, url, Range="bytes=1000-")
    assert (status, body) == (206, whole[1000:])
    assert headers["Content-Range"] == f"bytes 1000-{len(whole) - 1}/{len(whole)}"
    status, headers, body = await ask(http, url, Range=f"bytes={len(whole)}-")
    assert (status, body) == (416, b"")
    assert headers["Content-Range"] == f"bytes */{len(whole)}"


@pytest.mark.virtual_time
async def test_with_another_etag_a_range_request_gets_the_whole_file(
    relay: FakeRelay, http: aiohttp.ClientSession
) -> None:
    url = media_url(relay.url, relay.add("x"))
    _, headers, whole = await ask(http, url)
    etag = headers["ETag"]
    assert (await ask(http, url, Range="bytes=9-", If_Range=etag))[0] == 206
    assert (await ask(http, url, Range="bytes=9-", If_Range='"other"'))[::2] == (200, whole)
    assert (await ask(http, url, If_None_Match=etag))[::2] == (304, b"")


@pytest.mark.virtual_time
async def test_head_has_the_length_and_no_body(
    relay: FakeRelay, http: aiohttp.ClientSession
) -> None:
    url = media_url(relay.url, relay.add("x"))
    status, headers, body = await ask(http, url, "HEAD", Range="bytes=9-")
    assert (status, headers["Content-Length"], body) == (200, str(len(video("x"))), b"")
    assert headers["Accept-Ranges"] == "bytes"


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    "script", [{"duration": 5}, {"ends": "failed"}, {"link_after": 5}, {"visible_after": 5}]
)
async def test_a_task_without_a_link_has_no_file(
    relay: FakeRelay, http: aiohttp.ClientSession, script: dict[str, Any]
) -> None:
    url = media_url(relay.url, relay.add("x", **script))
    assert (await ask(http, url))[0] == 404
    assert (await ask(http, media_url(relay.url, "unknown")))[0] == 404


@pytest.mark.virtual_time
async def test_requests_for_files_have_their_own_log(
    relay: FakeRelay, http: aiohttp.ClientSession
) -> None:
    await ask(http, media_url(relay.url, relay.add("x")), Range="bytes=9-")
    await ask(http, media_url(relay.url, "y", "svg"), "HEAD")
    assert [(asked.method, asked.ids, asked.status) for asked in relay.media_log] == [
        ("GET", ("x",), 206),
        ("HEAD", ("y",), 404),
    ]
    assert (relay.log, relay.requests) == ([], 0)


@pytest.mark.virtual_time
async def test_only_scripted_replies_for_media_are_sent_for_files(
    relay: FakeRelay, http: aiohttp.ClientSession
) -> None:
    url = media_url(relay.url, relay.add("x"))
    relay.reply(Reply(503))
    relay.reply(Reply(403), Reply(body=b"x" * 200, breakage="truncated"), on="media")
    assert (await ask(http, url))[0] == 403
    with pytest.raises(aiohttp.ClientPayloadError):
        await ask(http, url)
    assert (await ask(http, url))[0] == 200
    assert (await ask(http, relay.url))[0] == 503


async def test_after_a_restart_the_links_lead_to_the_new_url(
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
