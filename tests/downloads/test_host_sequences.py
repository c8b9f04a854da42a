"""Whatever a host answers, in any order: the file in place has the right bytes, or is not there.

The host has a file that may change. It may cut a response, send another range than requested, a
page, an error, or no validator; it may ignore If-Range; the process may be killed at any byte and
before the move. In two things the host is honest: a strong validator is of one version, and the
bytes of a 200 are its file's.
"""

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from luma_async import Downloader, DownloadError, Generation, State, Video
from luma_async.downloads.partial_file import PartialFile
from luma_async.testing import run_virtual
from tests.downloads.video_store import files
from tests.properties import examples

SIZE = 3000  # bytes
DATE = "Fri, 20 Nov 2026 10:00:00 GMT"
ERRORS = (401, 403, 404, 410, 416, 429, 500, 503)
WRONG_RANGES = (
    "bytes {start}-{last}/{more}", "bytes 0-{last}/{size}", "bytes {later}-{last}/{size}",
    "bytes {start}-{size}/{size}", "bytes */{size}", "none", "",
)  # fmt: skip


class Killed(BaseException):
    """The process is gone."""


@dataclass
class Answer:
    """One answer of the host: what it sends, and where it breaks off."""

    kind: str = "file"
    is_new_version: bool = False
    cut: int | None = None
    is_chunked: bool = False
    is_killed: bool = False
    detail: int = 0


@dataclass
class Host:
    """A host, its file, and the answers that are left before it works as it should."""

    validator: str
    answers: list[Answer]
    knows_if_range: bool = True
    version: int = 0
    kill: Callable[[], object] = lambda: None
    versions: list[bytes] = field(default_factory=list[bytes])

    @property
    def body(self) -> bytes:
        head = b"\0\0\0\x10ftypisom\0\0\2\0" + b"\0\0\0\x10moov--------"
        frames = SIZE - len(head)
        return head + frames.to_bytes(4) + b"mdat" + bytes([self.version % 250 + 1]) * (frames - 8)

    def headers(self) -> dict[str, str]:
        """Return the validators of the current version."""
        if self.validator == "etag":
            return {"ETag": f'"{self.version}"'}
        if self.validator == "date":
            hour = f"{9 - self.version % 9:02}"
            return {"Last-Modified": DATE.replace("10:00", f"{hour}:00"), "Date": DATE}
        if self.validator == "young date":
            return {"Last-Modified": DATE, "Date": DATE}
        return {"ETag": 'W/"same"'} if self.validator == "weak" else {}

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        answer = self.answers.pop(0) if self.answers else Answer()
        self.version += answer.is_new_version
        self.versions.append(self.body)
        if answer.kind == "error":
            return web.Response(status=ERRORS[answer.detail % len(ERRORS)], text="an error page")
        if answer.kind == "page":
            return web.Response(body=b"<html>" + b" " * SIZE, content_type="video/mp4")
        if answer.kind == "empty":
            return web.Response(content_type="video/mp4")
        if answer.kind == "no length":
            return await self.send_without_length(request, answer)
        start = self.start(request)
        headers, status = self.headers() | {"Content-Type": "video/mp4"}, 206 if start else 200
        if start:
            headers["Content-Range"] = f"bytes {start}-{SIZE - 1}/{SIZE}"
        if answer.kind == "range" and "Range" in request.headers:
            status = 206
            form = WRONG_RANGES[answer.detail % len(WRONG_RANGES)]
            headers["Content-Range"] = form.format(
                start=start, last=SIZE - 1, size=SIZE, more=SIZE + 1, later=start + 1
            )
        if answer.kind == "parts" and start:
            headers["Content-Type"] = "multipart/byteranges; boundary=x"
        return await self.send(request, answer, web.StreamResponse(status=status, headers=headers))

    def start(self, request: web.BaseRequest) -> int:
        """Return the first byte to send: that of the range, if the validator is the current one."""
        wanted = request.headers.get("If-Range")
        if wanted not in (None, *self.headers().values()) and self.knows_if_range:
            return 0
        return int(request.headers.get("Range", "bytes=0-")[6:-1])

    async def send_without_length(
        self, request: web.BaseRequest, answer: Answer
    ) -> web.StreamResponse:
        """Send the whole file until the connection is closed, which may be too early."""
        fields = "".join(f"{name}: {value}\r\n" for name, value in self.headers().items())
        head = f"HTTP/1.1 200 OK\r\nConnection: close\r\n{fields}\r\n"
        assert request.transport
        request.transport.write(head.encode() + self.body[: answer.cut])
        request.transport.close()
        return web.Response()

    async def send(
        self, request: web.BaseRequest, answer: Answer, response: web.StreamResponse
    ) -> web.StreamResponse:
        body = self.body[self.start(request) :]
        if answer.kind == "short" and response.status == 206:
            body = body[: len(body) // 2]
        if answer.is_chunked:
            response.enable_chunked_encoding()
        else:
            response.content_length = len(body)
        await response.prepare(request)
        is_cut = answer.cut is not None
        await response.write(body[: answer.cut])
        if answer.is_killed:
            await asyncio.sleep(0.01)
            self.kill()
        if is_cut or answer.is_killed:
            await asyncio.sleep(0.01)
            if request.transport:
                request.transport.close()
        return response


ANSWERS = st.builds(
    Answer,
    kind=st.sampled_from(
        ["file"] * 4 + ["range", "parts", "short", "no length", "error", "page", "empty"]
    ),
    is_new_version=st.sampled_from([False, False, False, True]),
    cut=st.none() | st.integers(0, SIZE),
    is_chunked=st.booleans(),
    is_killed=st.sampled_from([False, False, True]),
    detail=st.integers(0, 20),
)
VALIDATORS = st.sampled_from(["etag", "date", "young date", "weak", "none"])


async def save(host: Host, directory: Path, url: str, *, dies_before_the_move: bool) -> bool:
    """Run a download as a process of its own; return whether the file is in place."""
    finish = PartialFile.finish

    def die(part: PartialFile) -> Path:
        if dies_before_the_move:
            raise Killed
        return finish(part)

    video = Video(download_url=url)
    generation = Generation(id="a", state=State.COMPLETED, video=video)
    with patch.object(PartialFile, "finish", die):
        async with Downloader(directory, allow_hosts=["127.0.0.1"], link_grace=3.0) as downloader:
            task = asyncio.ensure_future(downloader.download(generation))
            host.kill = task.cancel
            await asyncio.wait([task])
            if not task.cancelled() and not isinstance(
                error := task.exception(), DownloadError | Killed | None
            ):
                raise error
            return not task.cancelled() and task.exception() is None


async def play(host: Host, deaths: list[bool], directory: Path) -> None:
    """Save again and again until the host works as it should; check the file each time."""
    runner = web.ServerRunner(web.Server(host.handle, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v.mp4"
    try:
        for dies in [*deaths, False, False]:
            if await save(host, directory, url, dies_before_the_move=dies):
                break
            if "a.mp4" in files(directory):  # it was moved while the download was cancelled
                assert (directory / "a.mp4").read_bytes() in host.versions
        host.answers.clear()
        assert await save(host, directory, url, dies_before_the_move=False)
        assert (directory / "a.mp4").read_bytes() in host.versions
        assert files(directory) == ["a.mp4"]
    finally:
        await runner.cleanup()


@settings(max_examples=examples(60))
@given(
    VALIDATORS,
    st.lists(ANSWERS, max_size=8),
    st.booleans(),
    st.lists(st.booleans(), max_size=3),
)
def test_the_file_in_place_has_the_right_bytes_or_is_not_there(
    validator: str, answers: list[Answer], knows_if_range: bool, deaths: list[bool]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        host = Host(validator, list(answers), knows_if_range)
        run_virtual(play(host, deaths, Path(directory)))


@pytest.mark.parametrize("validator", ["etag", "date", "young date", "weak", "none"])
@pytest.mark.parametrize("knows_if_range", [True, False])
def test_bytes_of_a_file_that_changes_in_the_middle_are_not_joined(
    validator: str, knows_if_range: bool
) -> None:
    answers = [Answer(cut=1000), Answer(is_new_version=True, cut=2000), Answer(is_new_version=True)]
    with tempfile.TemporaryDirectory() as directory:
        host = Host(validator, answers, knows_if_range)
        run_virtual(play(host, [False], Path(directory)))
        assert host.version == 2
