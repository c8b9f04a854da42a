"""Download one file over HTTP, resume it after interruptions, and move it to its final name.

Nothing here knows an API key or a relay. A link may be dead (`DeadLink`), or lead to something else
than a video. A transfer that is interrupted (`Interrupted`) is resumed, until MAX_ATTEMPTS attempts
in a row bring no more bytes.
"""

import os
import random
import re
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urljoin

import aiohttp
import anyio
import anyio.to_thread
from msgspec import Struct
from yarl import URL

from luma_async.downloads import links
from luma_async.downloads.partial_file import PartialFile, version_of
from luma_async.downloads.progress import ProgressReporter
from luma_async.errors import DownloadError
from luma_async.protocol.headers import lower_case, retry_after
from luma_async.text import one_line

MAX_ATTEMPTS = 5  # in a row without MIN_PROGRESS
FIRST_RETRY_DELAY, MAX_RETRY_DELAY = 0.5, 60.0  # seconds
MIN_PROGRESS = 2**16  # bytes
CHUNK_SIZE = 2**18  # bytes
MAX_REDIRECTS = 5

_REDIRECT_STATUSES = (301, 302, 303, 307, 308)
_DEAD_STATUSES = (401, 403, 404, 410)
_TRANSIENT_STATUSES = (408, 425, 429)
_NOT_VIDEO_TYPES = ("text/", "application/json", "application/xml")
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-\d+/(\d{1,18}|\*)")


class DeadLink(DownloadError):
    """The link does not lead to a video, or no longer."""


class Interrupted(DownloadError):
    """The transfer was interrupted; it may be resumed."""


class ContentRange(Struct, frozen=True):
    """The bytes in a response: from offset `start` of `total` bytes, in this version of the file.

    `total` is None if the server does not send it.
    """

    start: int
    total: int | None
    version: str


def content_range(response: aiohttp.ClientResponse) -> ContentRange:
    """Return the range of bytes in a response with status 200 or 206.

    If the server sends neither ETag, date nor length, the version is random: unlike any other.
    """
    headers = response.headers
    start, total = 0, response.content_length
    if response.status == 206:
        found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
        if found is None:
            raise DownloadError(
                "a partial response has no valid Content-Range; ask the relay's operator"
            )
        start = int(found[1])
        total = None if found[2] == "*" else int(found[2])
    fields = headers.get("ETag"), headers.get("Last-Modified"), total
    return ContentRange(start, total, version_of(*fields if any(fields) else (os.urandom(8),)))


class Transfer:
    """The download of one link to a file of a directory."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        link: str,
        directory: Path,
        name: str,
        *,
        allowed: Collection[str],
        max_bytes: int,
        proxy: str | None,
        progress: ProgressReporter,
    ) -> None:
        self._http = http
        self._url = links.check_link(link, allowed)
        self._directory = directory
        self._name = name
        self._allowed = allowed
        self._max_bytes = max_bytes
        self._proxy = proxy
        self._progress = progress
        self._size = 0

    async def run(self) -> Path:
        """Download the file, and return its path; resume as long as there is progress."""
        attempts, best_size = 0, 0
        while True:
            try:
                return await self._attempt()
            except Interrupted as error:
                attempts = 0 if self._size >= best_size + MIN_PROGRESS else attempts + 1
                best_size = max(best_size, self._size)
                if attempts == MAX_ATTEMPTS:
                    raise DownloadError(f"{error}; try again later to resume it") from None
                await anyio.sleep(_retry_delay(attempts, error.retry_after))

    async def _attempt(self) -> Path:
        part = PartialFile.open_existing(self._directory, self._name)
        try:
            headers = {"Range": f"bytes={part.size}-"} if part and part.size else {}
            async with self._get(headers) as response:
                self._check(response, part)
                received = content_range(response)
                part = self._part_for(received, part)
                await self._fill(part, response, received.total)
            return await anyio.to_thread.run_sync(part.finish)
        finally:
            if part is not None:
                self._size = part.size
                part.close()

    @asynccontextmanager
    async def _get(self, headers: dict[str, str]) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """Send the request and follow redirects; each target is checked like the link."""
        url = self._url
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._request(url, headers)
            try:
                if response.status not in _REDIRECT_STATUSES:
                    yield response
                    return
                url = self._redirect_target(url, response.headers.get("Location", ""))
            finally:
                response.close()
        raise DownloadError(
            f"{self} redirects more than {MAX_REDIRECTS} times; ask the relay's operator"
        )

    def _redirect_target(self, url: URL, location: str) -> URL:
        try:
            link = urljoin(str(url), location)
        except ValueError:
            raise DownloadError(
                f"{self} redirects to an invalid URL; ask the relay's operator"
            ) from None
        return links.check_link(link, self._allowed)

    async def _request(self, url: URL, headers: dict[str, str]) -> aiohttp.ClientResponse:
        try:
            return await self._http.get(
                url, headers=headers, allow_redirects=False, proxy=self._proxy
            )
        except ValueError:  # from aiohttp, or from the resolver for a host that is not a name
            raise DownloadError("the link is not a valid URL; ask the relay's operator") from None
        except (aiohttp.ClientError, OSError) as error:
            raise self._interruption(error) from None

    def _check(self, response: aiohttp.ClientResponse, part: PartialFile | None) -> None:
        """Raise an error if the response is not a video."""
        status, kind = response.status, response.content_type
        if status in _DEAD_STATUSES:
            raise DeadLink(f"{self} is dead (status {status})")
        if status in _TRANSIENT_STATUSES or status >= 500 or (status == 416 and part):
            if status == 416 and part:
                part.discard()
            error = Interrupted(f"{self} is not available now (status {status})")
            error.retry_after = retry_after(lower_case(response.headers))
            raise error
        if status not in (200, 206):
            raise DownloadError(
                f"{self} was answered with status {status}; ask the relay's operator"
            )
        if kind.startswith(_NOT_VIDEO_TYPES):
            raise DeadLink(f"{self} is not a video but {one_line(kind)}")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise DownloadError(f"{self} is sent with a Content-Encoding; ask the relay's operator")

    def _part_for(self, received: ContentRange, part: PartialFile | None) -> PartialFile:
        """Return the partial file to which the received bytes belong: the open one, or a new one.

        Raises Interrupted if the bytes are from the middle of another version of the file.
        """
        if received.total is not None and received.total > self._max_bytes:
            raise self._too_large()
        if part and received.version == part.version and received.start in (0, part.size):
            if received.start == 0:
                part.truncate()
            return part
        if part is not None:
            part.discard()
        if received.start:
            raise Interrupted(f"{self} has changed on the server")
        new = PartialFile(self._directory, self._name, received.version)
        new.truncate()
        return new

    async def _fill(
        self, part: PartialFile, response: aiohttp.ClientResponse, total: int | None
    ) -> None:
        self._progress.update(part.size, total)
        while chunk := await self._read(response):
            if part.size + len(chunk) > self._max_bytes:
                part.discard()
                raise self._too_large()
            await anyio.to_thread.run_sync(part.write, chunk)
            self._progress.update(part.size, total)
        if total is not None and part.size < total:
            raise Interrupted(f"{self} was cut short")
        if part.size == 0 or (total is not None and part.size > total):
            part.discard()
            raise DeadLink(f"{self} is empty, or longer than the server announced")

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        try:
            return await response.content.read(CHUNK_SIZE)
        except (aiohttp.ClientError, OSError) as error:
            raise self._interruption(error) from None

    def _interruption(self, error: Exception) -> Interrupted:
        return Interrupted(f"{self} was interrupted ({type(error).__name__})")

    def _too_large(self) -> DownloadError:
        return DownloadError(f"{self} is larger than {self._max_bytes} bytes; raise max_bytes")

    def __str__(self) -> str:
        return links.without_query(self._url)


def _retry_delay(attempts: int, server_delay: float | None) -> float:
    """Return the seconds before the next attempt.

    They are a random share of FIRST_RETRY_DELAY, doubled with each attempt, and at least
    `server_delay`, but never more than MAX_RETRY_DELAY.
    """
    backoff: float = random.random() * FIRST_RETRY_DELAY * 2**attempts  # noqa: S311
    return min(max(backoff, server_delay or 0.0), MAX_RETRY_DELAY)
