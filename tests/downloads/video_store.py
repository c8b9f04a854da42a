"""A server of videos on loopback that answers as scripted, and partial files to continue."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web
from yarl import URL

from luma_async import Generation, State, Video
from luma_async.downloads.partial_file import PARTS_FOLDER, PartialFile, open_partial_file
from luma_async.downloads.resuming import PartRecord, source_of
from luma_async.testing import Reply

BODY = b"\0\0\0\x20ftypisom" + os.urandom(600_000)
HERE = ("127.0.0.1",)
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class VideoStore:
    """A server of videos; `script` contains the next handlers, `seen` the requests so far.

    Paths in `missing` are answered with 404.
    """

    def __init__(self) -> None:
        self.url = ""
        self.body = BODY
        self.etag = '"one"'
        self.seen: list[web.BaseRequest] = []
        self.cut_after: list[int] = []
        self.next_version: tuple[bytes, str] | None = None
        self.script: list[Handler] = []
        self.missing: set[str] = set()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer by the script; then with the file, or the rest of it if it did not change."""
        self.seen.append(request)
        if self.script:
            return await self.script.pop(0)(request)
        if request.path in self.missing:
            return web.Response(status=404, text="<Error><Code>NoSuchKey</Code></Error>")
        start = 0
        if request.headers.get("If-Range", self.etag) == self.etag:
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

    def assert_all_used(self) -> None:
        assert not self.script, f"{len(self.script)} scripted handlers were not used"
        assert not self.cut_after, f"{len(self.cut_after)} interruptions were not used"

    def video(self, task_id: str = "a", path: str = "/v.mp4") -> Generation:
        """Return a completed task with a link to this server."""
        return Generation(
            id=task_id, state=State.COMPLETED, video=Video(download_url=self.url + path)
        )

    def new_link_reply(self, path: str = "/fresh.mp4") -> Reply:
        """Return the reply of a relay for a task that has another link."""
        video = {"download_url": self.url + path}
        return Reply(body=json.dumps({"id": "a", "state": "completed", "video": video}).encode())

    def put_part(
        self,
        directory: Path,
        data: bytes,
        *,
        validator: str | None = '"one"',
        total: int | None = len(BODY),
        is_complete: bool = False,
    ) -> None:
        """Put a partial file of task `a` into the directory, as a kill leaves it."""
        part = open_part(directory)
        source = source_of(URL(f"{self.url}/v.mp4"))
        part.begin(PartRecord(source, validator, total, is_complete))
        part.write(data)
        part.close()

    @property
    def ranges(self) -> list[str | None]:
        return [request.headers.get("Range") for request in self.seen]


def open_part(directory: Path, name: str = "a.mp4") -> PartialFile:
    """Open and lock a partial file that no one else has locked."""
    part = open_partial_file(directory, name)
    assert part is not None
    return part


def answer(status: int, *, body: bytes = b"", **headers: str) -> Handler:
    """Return a handler that sends this response."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=body, headers=named)

    return handle


def files(directory: Path) -> list[str]:
    """Return the names of the files in a directory."""
    return sorted(path.name for path in directory.iterdir())


def parts(directory: Path) -> list[str]:
    """Return the names of the partial files and their records."""
    return files(directory / PARTS_FOLDER)
