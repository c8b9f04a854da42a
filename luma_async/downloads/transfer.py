"""One file over HTTP: asked for, gone on with where it broke off, put in its place when whole.

Knows no key and no relay. What is behind a link may be dead (`Dead`), may break off (tried again
here, until five tries in a row bring nothing new), or may be something else than a video.
"""

import os
import random
import re
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from socket import AF_INET, AddressFamily
from urllib.parse import urljoin

import aiohttp
import anyio
import anyio.to_thread
from aiohttp.abc import AbstractResolver, ResolveResult
from msgspec import Struct
from yarl import URL

from luma_async.downloads import links
from luma_async.downloads.partial_file import PartialFile, mark_of
from luma_async.errors import DownloadError
from luma_async.protocol.headers import lower_case, retry_after
from luma_async.text import one_line

MAX_ATTEMPTS = 5
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
MIN_PROGRESS = 2**16
CHUNK_SIZE = 2**18
MAX_REDIRECTS = 5

_MOVED = (301, 302, 303, 307, 308)
_DEAD = (401, 403, 404, 410)
_PASSING = (408, 425, 429)
_NO_VIDEO = ("text/", "application/json", "application/xml")
_RANGE = re.compile(r"bytes (\d{1,18})-\d+/(\d{1,18}|\*)")


class DeadLink(DownloadError):
    """The link leads to no video, or none any more."""


class Interrupted(DownloadError):
    """The download broke off; to go on may help."""


class ContentRange(Struct, frozen=True):
    """Which bytes an answer has: from `start`, of `total` where that is told, of version `mark`."""

    start: int
    total: int | None
    mark: str


def content_range(response: aiohttp.ClientResponse) -> ContentRange:
    """Read which bytes a 200 or 206 has.

    A version that the server tells nothing of has a mark that no other one has.
    """
    headers = response.headers
    start, total = 0, response.content_length
    if response.status == 206:
        told = _RANGE.fullmatch(headers.get("Content-Range", ""))
        if told is None:
            raise DownloadError("the answer tells a part and not which; ask the relay's operator")
        start = int(told[1])
        total = None if told[2] == "*" else int(told[2])
    version = headers.get("ETag"), headers.get("Last-Modified"), total
    return ContentRange(start, total, mark_of(*version if any(version) else (os.urandom(8),)))


class PublicResolver(AbstractResolver):
    """Looks names up, and knows public addresses alone but for those of `allowed` hosts."""

    def __init__(self, allowed: Collection[str]) -> None:
        self._allowed = allowed
        self._resolver = aiohttp.DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: AddressFamily = AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host; DownloadError where none is public."""
        found = await self._resolver.resolve(host, port, family)
        if host.lower() in self._allowed:
            return found
        if not (public := [one for one in found if links.is_public(one["host"])]):
            raise links.private_host_error(host)
        return public

    async def close(self) -> None:
        """Close the resolver."""
        await self._resolver.close()


class Transfer:
    """Fetches what is behind one link into a file of a directory."""

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
    ) -> None:
        self._http = http
        self._url = links.check_link(link, allowed)
        self._directory = directory
        self._name = name
        self._allowed = allowed
        self._max_bytes = max_bytes
        self._proxy = proxy
        self._size = 0

    async def run(self) -> Path:
        """Fetch it, however often that breaks off, as long as there is progress."""
        tries, most = 0, 0
        while True:
            try:
                return await self._once()
            except Interrupted as broken:
                tries = 0 if self._size >= most + MIN_PROGRESS else tries + 1
                most = max(most, self._size)
                if tries == MAX_ATTEMPTS:
                    raise DownloadError(f"{broken}; try again, it goes on from there") from None
                await anyio.sleep(_retry_delay(tries, broken.retry_after))

    async def _once(self) -> Path:
        part = PartialFile.left(self._directory, self._name)
        try:
            wanted = {"Range": f"bytes={part.size}-"} if part and part.size else {}
            async with self._answered(wanted) as response:
                self._check(response, part)
                span = content_range(response)
                part = self._fitting(part, span)
                await self._fill(part, response, span.total)
            return await anyio.to_thread.run_sync(part.finish)
        finally:
            if part is not None:
                self._size = part.size
                part.close()

    @asynccontextmanager
    async def _answered(
        self, headers: dict[str, str]
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """Ask, and follow where that leads; each step is checked as the link was."""
        url = self._url
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._asked(url, headers)
            try:
                if response.status not in _MOVED:
                    yield response
                    return
                url = self._next(url, response.headers.get("Location", ""))
            finally:
                response.close()
        raise DownloadError(f"{self} leads on and on; ask the relay's operator")

    def _next(self, url: URL, location: str) -> URL:
        try:
            link = urljoin(str(url), location)
        except ValueError:
            raise DownloadError(
                f"{self} leads to what is no URL; ask the relay's operator"
            ) from None
        return links.check_link(link, self._allowed)

    async def _asked(self, url: URL, headers: dict[str, str]) -> aiohttp.ClientResponse:
        try:
            return await self._http.get(
                url, headers=headers, allow_redirects=False, proxy=self._proxy
            )
        except ValueError:  # aiohttp's, or of a host that no name server can be asked about
            raise DownloadError("the link is no URL; ask the relay's operator") from None
        except (aiohttp.ClientError, OSError) as error:
            raise self._broken(error) from None

    def _check(self, response: aiohttp.ClientResponse, part: PartialFile | None) -> None:
        """Raise what an answer means that is no video."""
        status, kind = response.status, response.content_type
        if status in _DEAD:
            raise DeadLink(f"{self} is dead (status {status})")
        if status in _PASSING or status >= 500 or (status == 416 and part):
            if status == 416 and part:
                part.discard()
            broken = Interrupted(f"{self} cannot be had now (status {status})")
            broken.retry_after = retry_after(lower_case(response.headers))
            raise broken
        if status not in (200, 206):
            raise DownloadError(
                f"{self} is answered with status {status}; ask the relay's operator"
            )
        if kind.startswith(_NO_VIDEO):
            raise DeadLink(f"{self} is no video ({one_line(kind)})")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise DownloadError(f"{self} comes compressed; ask the relay's operator")

    def _fitting(self, part: PartialFile | None, span: ContentRange) -> PartialFile:
        """Return the part that an answer goes on with: the one that is there, or a new one."""
        if span.total is not None and span.total > self._max_bytes:
            raise self._too_long()
        if part is not None and span.mark == part.mark and span.start in (0, part.size):
            if span.start == 0:
                part.empty()
            return part
        if part is not None:
            part.discard()
        if span.start:
            raise Interrupted(f"{self} has changed meanwhile")
        new = PartialFile(self._directory, self._name, span.mark)
        new.empty()
        return new

    async def _fill(
        self, part: PartialFile, response: aiohttp.ClientResponse, total: int | None
    ) -> None:
        while chunk := await self._read(response):
            if part.size + len(chunk) > self._max_bytes:
                part.discard()
                raise self._too_long()
            await anyio.to_thread.run_sync(part.write, chunk)
        if total is not None and part.size < total:
            raise Interrupted(f"{self} broke off")
        if part.size == 0 or (total is not None and part.size > total):
            part.discard()
            raise DeadLink(f"{self} is empty or of another length than told")

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        try:
            return await response.content.read(CHUNK_SIZE)
        except (aiohttp.ClientError, OSError) as error:
            raise self._broken(error) from None

    def _broken(self, error: Exception) -> Interrupted:
        return Interrupted(f"{self} broke off ({type(error).__name__})")

    def _too_long(self) -> DownloadError:
        return DownloadError(f"{self} is longer than {self._max_bytes} bytes; raise max_bytes")

    def __str__(self) -> str:
        return links.without_query(self._url)


def _retry_delay(tries: int, asked: float | None) -> float:
    """Return the seconds before the next try: a random part of half a second, ever doubled."""
    own: float = random.random() * FIRST_PAUSE * 2**tries  # noqa: S311
    return min(max(own, asked or 0.0), LONGEST_PAUSE)
