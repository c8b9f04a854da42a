"""A link that fails is tried again while the task is young; then the relay is asked, once."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from luma_async import Downloader, DownloadError, LumaSession, download
from luma_async.downloads.host_errors import HostError, Meaning
from luma_async.downloads.link_policy import MAX_DEAD_LINKS, DeadLinks, LinkPolicy, Step
from luma_async.testing import FakeRelay, Reply
from tests.downloads.video_store import BODY, HERE, VideoStore, answer, files
from tests.worker.worker_processes import until

LATE, OVER = HostError(Meaning.NOT_YET, 404), HostError(Meaning.EXPIRED, 403)
NOT_YET = answer(404, body=b"<Error><Code>NoSuchKey</Code></Error>")
EXPIRED = answer(400, body=b"<Error><Code>ExpiredToken</Code></Error>")
PASSING = {
    "not there": NOT_YET,
    "a page": answer(403, body=b"<html>Just a moment...</html>", Content_Type="text/html"),
    "not made yet": answer(202, body=b"{}"),
}


def test_a_link_is_tried_again_with_growing_delays_until_the_grace_is_over() -> None:
    policy, now, delays = LinkPolicy(60.0), 100.0, list[float]()
    while True:
        step, delay = policy.next_step(LATE, now, 0.0)
        if step is not Step.RETRY:
            break
        delays.append(delay)
        now += delay
    assert delays[:5] == [0.5, 1.0, 2.0, 4.0, 5.0]
    assert now == 160.0, "the last request is sent when the grace is over"
    assert step is Step.ASK_RELAY
    assert policy.next_step(LATE, now, 0.0)[0] is Step.FAIL


@pytest.mark.parametrize("status", [200, 206])
def test_something_else_than_a_video_is_given_up_sooner(status: int) -> None:
    policy, page = LinkPolicy(60.0), HostError(Meaning.NOT_YET, status)
    assert policy.next_step(LATE, 0.0, 0.0)[0] is Step.RETRY
    assert policy.next_step(page, 20.0, 0.0) == (Step.RETRY, 1.0)
    assert policy.next_step(page, 29.5, 0.0) == (Step.RETRY, 0.5)
    assert policy.next_step(page, 30.0, 0.0)[0] is Step.ASK_RELAY
    assert policy.next_step(LATE, 31.0, 0.0)[0] is Step.RETRY


@pytest.mark.parametrize("status", [202, 205, 207, 404])
def test_what_is_not_made_yet_is_waited_for_as_long_as_the_grace(status: int) -> None:
    policy, error = LinkPolicy(60.0), HostError(Meaning.NOT_YET, status)
    assert policy.next_step(error, 0.0, 0.0)[0] is Step.RETRY
    assert policy.next_step(error, 59.0, 0.0) == (Step.RETRY, 1.0)
    assert policy.next_step(error, 60.0, 0.0)[0] is Step.ASK_RELAY


@pytest.mark.parametrize("error", [OVER, HostError(Meaning.NEEDS_KEY, 401)])
def test_a_link_that_cannot_work_any_more_is_replaced_at_once(error: HostError) -> None:
    policy = LinkPolicy(60.0)
    assert policy.next_step(error, 0.0, 0.5) == (Step.ASK_RELAY, 0.0)
    assert policy.next_step(error, 1.0, 0.5) == (Step.FAIL, 0.0)


def test_the_new_link_is_tried_again_within_the_same_grace() -> None:
    policy = LinkPolicy(60.0)
    policy.next_step(OVER, 0.0, 0.5)
    assert policy.next_step(LATE, 59.0, 0.5) == (Step.RETRY, 1.0)
    assert policy.next_step(LATE, 60.0, 0.5) == (Step.FAIL, 0.0)


def test_the_memory_of_dead_links_is_bounded() -> None:
    dead = DeadLinks()
    dead.record("first", 0.0)
    for number in range(MAX_DEAD_LINKS):
        dead.record(str(number), 1.0)
    dead.record("0", 50.0)
    assert dead.dead_for("first", 100.0) == 0.0
    assert dead.dead_for("0", 100.0) == 99.0
    dead.forget("0")
    assert dead.dead_for("0", 100.0) == 0.0


@pytest.mark.virtual_time
@pytest.mark.parametrize("passing", PASSING.values(), ids=PASSING)
async def test_a_file_that_comes_late_is_saved(
    store: VideoStore, tmp_path: Path, relay: FakeRelay, luma: LumaSession, passing: object
) -> None:
    store.script = [passing] * 9  # type: ignore[list-item]
    path = await download(store.video(), tmp_path, luma=luma, allow_hosts=HERE)
    assert path.read_bytes() == BODY
    assert 20.0 < asyncio.get_running_loop().time() < 60.0
    assert {request.path for request in store.seen} == {"/v.mp4"}
    assert relay.requests == 0


@pytest.mark.virtual_time
@pytest.mark.parametrize("body", [b"<html>", b'{"state": "processing"}', b""])
async def test_a_page_with_status_200_passes(
    store: VideoStore, tmp_path: Path, relay: FakeRelay, luma: LumaSession, body: bytes
) -> None:
    store.script = [answer(200, body=body, Content_Type="video/mp4")] * 3
    path = await download(store.video(), tmp_path, luma=luma, allow_hosts=HERE)
    assert path.read_bytes() == BODY
    assert relay.requests == 0


@pytest.mark.virtual_time
async def test_after_the_grace_the_relay_is_asked_for_a_new_link(
    store: VideoStore, tmp_path: Path, relay: FakeRelay, luma: LumaSession
) -> None:
    relay.reply(store.new_link_reply(), on="get")
    store.missing = {"/v.mp4"}
    path = await download(store.video(), tmp_path, luma=luma, allow_hosts=HERE)
    assert path.read_bytes() == BODY
    assert [request.path for request in store.seen].count("/fresh.mp4") == 1
    assert len(store.seen) > 8
    assert 60.0 <= asyncio.get_running_loop().time() < 62.0
    assert relay.requests == 1


@pytest.mark.parametrize(
    "dead",
    [EXPIRED, answer(410), answer(403, body=b"<Message>Request has expired</Message>")],
)
async def test_for_an_expired_link_the_relay_is_asked_at_once(
    store: VideoStore, tmp_path: Path, relay: FakeRelay, luma: LumaSession, dead: object
) -> None:
    relay.reply(store.new_link_reply(), on="get")
    store.script = [dead]  # type: ignore[list-item]
    video = store.video(path="/v.mp4?sig=1#t=2")
    path = await download(video, tmp_path, luma=luma, allow_hosts=HERE)
    assert path.read_bytes() == BODY
    assert [request.path for request in store.seen] == ["/v.mp4", "/fresh.mp4"]
    assert relay.requests == 1


@pytest.mark.virtual_time
async def test_an_expired_link_behind_a_redirect_is_tried_again(
    store: VideoStore, tmp_path: Path, relay: FakeRelay, luma: LumaSession
) -> None:
    store.script = [answer(302, Location="/old"), EXPIRED, answer(302, Location="/new")]
    path = await download(store.video(), tmp_path, luma=luma, allow_hosts=HERE)
    assert path.read_bytes() == BODY
    assert [request.path for request in store.seen] == ["/v.mp4", "/old", "/v.mp4", "/new"]
    assert relay.requests == 0


@pytest.mark.virtual_time
async def test_a_link_of_a_task_that_is_hours_old_is_tried_again(
    store: VideoStore, tmp_path: Path, relay: FakeRelay, luma: LumaSession
) -> None:
    store.script = [NOT_YET]
    created_at = datetime.now(UTC) - timedelta(hours=23)
    young = msgspec.structs.replace(store.video(), created_at=created_at)
    assert (await download(young, tmp_path, luma=luma, allow_hosts=HERE)).read_bytes() == BODY
    assert relay.requests == 0


@pytest.mark.parametrize("age", [timedelta(days=1, seconds=0.5), timedelta(days=300)], ids=str)
async def test_a_link_of_a_task_that_is_older_than_a_day_is_not_tried_again(
    store: VideoStore, tmp_path: Path, relay: FakeRelay, luma: LumaSession, age: timedelta
) -> None:
    relay.reply(store.new_link_reply(), on="get")
    store.script = [NOT_YET]
    created_at = datetime.now(UTC) - age
    old = msgspec.structs.replace(store.video(), created_at=created_at)
    path = await download(old, tmp_path, luma=luma, allow_hosts=HERE)
    assert path.read_bytes() == BODY
    assert [request.path for request in store.seen] == ["/v.mp4", "/fresh.mp4"]


@pytest.mark.virtual_time
async def test_without_a_session_the_grace_is_a_minute(store: VideoStore, tmp_path: Path) -> None:
    store.missing = {"/v.mp4"}
    with pytest.raises(DownloadError, match="pass luma"):
        await download(store.video(), tmp_path, allow_hosts=HERE)
    assert 60.0 <= asyncio.get_running_loop().time() < 60.9


@pytest.mark.virtual_time
async def test_the_session_says_how_long_the_grace_is(store: VideoStore, tmp_path: Path) -> None:
    async with FakeRelay() as relay:
        url, key = relay.url, relay.api_key
        async with LumaSession(url, api_key=key, link_grace=600.0) as luma:
            assert luma.link_grace == 600.0
            store.script = [NOT_YET] * 20
            await download(store.video(), tmp_path, luma=luma, allow_hosts=HERE)
    assert asyncio.get_running_loop().time() > 60.0


async def fails(
    store: VideoStore, directory: Path, luma: LumaSession | None, link_grace: float = 0
) -> str:
    """Return the error of a download."""
    with pytest.raises(DownloadError) as caught:
        await download(store.video(), directory, luma=luma, allow_hosts=HERE, link_grace=link_grace)
    return str(caught.value)


async def test_the_error_names_host_status_code_and_remedy(
    store: VideoStore, tmp_path: Path, relay: FakeRelay, luma: LumaSession
) -> None:
    link = f"{store.url}/v.mp4".replace(store.url.rpartition(":")[2], "").replace(":/v", "/v")
    store.missing = {"/v.mp4", "/fresh.mp4"}
    assert await fails(store, tmp_path, None) == (
        f"{link} fails with status 404 NoSuchKey; "
        "pass luma, so that the relay is asked for a new link"
    )
    relay.reply(store.new_link_reply("/v.mp4"), on="get")
    assert await fails(store, tmp_path, luma) == (
        f"{link} fails with status 404 NoSuchKey, and the relay has no other link; "
        "try again in some minutes"
    )
    relay.reply(Reply(body=b'{"id": "a", "state": "completed"}'), on="get")
    assert await fails(store, tmp_path, luma) == (
        f"{link} fails with status 404 NoSuchKey, and the relay has no link now; "
        "try again in some minutes"
    )
    relay.reply(store.new_link_reply(), on="get")
    assert await fails(store, tmp_path, luma) == (
        f"{link.replace('/v.', '/fresh.')} fails with status 404 NoSuchKey, and so does the new "
        "link of the relay; try again in some minutes"
    )
    assert not files(tmp_path)


@pytest.mark.virtual_time
async def test_a_new_task_is_advised_only_if_the_relay_repeats_a_link_that_is_dead_for_minutes(
    store: VideoStore, tmp_path: Path, relay: FakeRelay, luma: LumaSession
) -> None:
    store.missing = {"/v.mp4"}
    texts: list[str] = []
    async with Downloader(tmp_path, luma=luma, allow_hosts=HERE) as downloader:
        for _ in range(4):
            relay.reply(store.new_link_reply("/v.mp4"), on="get")
            with pytest.raises(DownloadError) as caught:
                await downloader.download(store.video())
            texts.append(str(caught.value))
    assert [text.endswith("submit the task again") for text in texts] == [False, True, True, True]
    assert "for 60 s" in texts[0]
    assert "for 2 min" in texts[1]


@pytest.mark.virtual_time
@pytest.mark.parametrize(("grace", "since"), [(0.0, ""), (0.5, ""), (1.5, ", for 2 s")])
async def test_an_error_says_for_how_long_the_link_has_failed_if_that_is_a_second(
    store: VideoStore, tmp_path: Path, relay: FakeRelay, luma: LumaSession, grace: float, since: str
) -> None:
    store.missing = {"/v.mp4"}
    relay.reply(store.new_link_reply("/v.mp4"), on="get")
    text = await fails(store, tmp_path, luma, grace)
    assert f"NoSuchKey{since}, and the relay has no other link" in text


@pytest.mark.virtual_time
async def test_no_new_task_is_advised_for_a_link_that_worked_meanwhile(
    store: VideoStore, tmp_path: Path, relay: FakeRelay, luma: LumaSession
) -> None:
    texts: list[str] = []
    async with Downloader(tmp_path, luma=luma, allow_hosts=HERE, link_grace=0) as downloader:
        for _ in range(2):
            store.missing = {"/v.mp4"}
            relay.reply(store.new_link_reply("/v.mp4"), on="get")
            with pytest.raises(DownloadError) as caught:
                await downloader.download(store.video())
            texts.append(str(caught.value))
            store.missing = set()
            (await downloader.download(store.video())).unlink()
            await asyncio.sleep(600.0)
    assert all(text.endswith("try again in some minutes") for text in texts), texts


async def test_a_link_that_wants_a_key_says_how_to_send_it(
    store: VideoStore, tmp_path: Path, relay: FakeRelay, luma: LumaSession
) -> None:
    store.script = [answer(401)] * 2
    expected = "status 401: the link wants a key; pass headers and header_hosts"
    assert (await fails(store, tmp_path, None)).endswith(expected)
    relay.reply(store.new_link_reply("/v.mp4"), on="get")
    assert (await fails(store, tmp_path, luma)).endswith(expected)
    assert not any("Authorization" in request.headers for request in store.seen)


@pytest.mark.virtual_time
async def test_a_download_that_waits_for_its_file_does_not_delay_others(
    store: VideoStore, tmp_path: Path
) -> None:
    store.script = [NOT_YET]
    async with Downloader(tmp_path, at_once=1, allow_hosts=HERE) as downloader:
        late = asyncio.create_task(downloader.download(store.video("late")))
        await until(lambda: bool(store.seen))
        await downloader.download(store.video("a"))
        assert not late.done()
        await late
    assert files(tmp_path) == ["a.mp4", "late.mp4"]
