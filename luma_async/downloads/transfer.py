"""Download one file over HTTP, resume it after interruptions, and move it to its final name.

A link may fail (`LinkError`): what that means is decided by host_errors. A transfer that is
interrupted (`Interrupted`) is resumed, until MAX_ATTEMPTS attempts in a row bring no more bytes.
Nothing here knows an API key or a relay.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar, TypeVarTuple
from urllib.parse import urljoin

import aiohttp
import anyio
from msgspec import Struct
from yarl import URL

from luma_async.downloads import links, resuming
from luma_async.downloads.file_types import SAMPLE_SIZE, identify, is_cut_short
from luma_async.downloads.host_errors import MAX_ERROR_BODY, HostError, Meaning, read_error
from luma_async.downloads.partial_file import PartialFile
from luma_async.downloads.progress import ProgressReporter
from luma_async.downloads.resuming import Received
from luma_async.errors import DownloadError
from luma_async.protocol.headers import lower_case, retry_after
from luma_async.scheduling.throttle import ExponentialBackoff
from luma_async.text import one_line

MAX_ATTEMPTS = 5  # in a row without MIN_PROGRESS
FIRST_RETRY_DELAY, MAX_RETRY_DELAY = 0.5, 60.0  # seconds
MIN_PROGRESS = 2**16  # bytes
CHUNK_SIZE = 2**18  # bytes
MAX_REDIRECTS = 5
ERROR_BODY_TIMEOUT = 5.0  # seconds

_REDIRECT_STATUSES = (301, 302, 303, 307, 308)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class LinkError(DownloadError):
    """The link does not lead to a video, for the moment or for ever; `error` says what it means."""

    def __init__(self, fact: str, error: HostError) -> None:
        super().__init__(fact)
        self.error = error


class Interrupted(DownloadError):
    """The transfer was interrupted; it may be resumed."""


class TransferSettings(Struct, frozen=True):
    """What all transfers of a downloader share."""

    http: aiohttp.ClientSession
    allowed: frozenset[str]
    headers: links.LinkHeaders
    max_bytes: int
    proxy: str | None


async def in_thread(function: Callable[[*Ts], T], *args: *Ts) -> T:
    """Run a function that blocks on the disk."""
    return await asyncio.get_running_loop().run_in_executor(None, function, *args)


class Transfer:
    """The download of one link to a partial file."""

    def __init__(
        self,
        settings: TransferSettings,
        link: str,
        part: PartialFile,
        progress: ProgressReporter,
    ) -> None:
        self._settings = settings
        self._url = links.check_link(link, settings.allowed)
        self._source = resuming.source_of(self._url)
        self._suffix = links.suffix_of(link)
        self._part = part
        self._progress = progress

    async def run(self) -> Path:
        """Download the file, and return its path; resume as long as there is progress."""
        attempts, best_size = 0, 0
        while not self._part.is_whole:
            try:
                await self._attempt()
                break
            except Interrupted as error:
                size = self._part.size
                attempts = 0 if size >= best_size + MIN_PROGRESS else attempts + 1
                best_size = max(best_size, size)
                if attempts == MAX_ATTEMPTS:
                    raise DownloadError(f"{error}; try again later to resume it") from None
                await anyio.sleep(retry_delay(attempts, error.retry_after))
        self._progress.update(self._part.size, self._part.size)
        return await in_thread(self._part.finish)

    async def _attempt(self) -> None:
        part = self._part
        headers = resuming.range_headers(part.record, part.size, self._source)
        async with self._get(headers) as response:
            fields = lower_case(response.headers)
            if response.status == 416 and headers:
                if not resuming.confirms_size(fields, part.size, part.record):
                    await self._set_aside()
                return
            await self._check_status(response)
            received = await self._place(response, fields, part.size if headers else 0)
            start = b""
            if received.start == 0:
                start = await self._read_start(response)
                await in_thread(part.begin, received.record)
            elif received.record != part.record:
                await in_thread(part.update, received.record)
            await self._fill(response, received, start)

    async def _place(
        self, response: aiohttp.ClientResponse, fields: Mapping[str, str], start: int
    ) -> Received:
        """Return where the bytes of a response belong."""
        if response.status == 200:
            received = resuming.whole_response(fields, response.content_length, self._source)
        else:
            partial = resuming.partial_response(fields, start, self._part.record, self._source)
            if partial is None and start:
                await self._set_aside()
            if partial is None:
                raise DownloadError(
                    f"{self}: a partial response has no valid Content-Range; "
                    "ask the relay's operator"
                )
            received = partial
        total = received.record.total
        if total is not None and total > self._settings.max_bytes:
            await in_thread(self._part.discard)
            raise self._too_large()
        return received

    async def _set_aside(self) -> None:
        """Remove the bytes that cannot be continued; the next request is for the whole file."""
        await in_thread(self._part.begin, None)
        raise Interrupted(f"{self} cannot be continued where it was interrupted")

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
        return links.check_link(link, self._settings.allowed)

    async def _request(self, url: URL, headers: dict[str, str]) -> aiohttp.ClientResponse:
        """Send one request.

        The error is raised outside of the `except`: those of aiohttp contain the request's headers.
        """
        try:
            return await self._settings.http.get(
                url,
                headers=headers | self._settings.headers.for_request(url, self._url),
                allow_redirects=False,
                proxy=self._settings.proxy,
            )
        except ValueError:  # from aiohttp, or from the resolver for a host that is not a name
            failure: DownloadError = links.invalid_link_error()
        except (aiohttp.ClientError, OSError) as error:
            failure = self._interruption(error)
        raise failure

    async def _check_status(self, response: aiohttp.ClientResponse) -> None:
        """Raise an error if the response is not one with the bytes of a file."""
        if response.status not in (200, 206):
            error = await self._read_error(response, b"")
            if error.meaning is Meaning.UNAVAILABLE:
                interruption = Interrupted(f"{self} is not available now ({error})")
                interruption.retry_after = retry_after(lower_case(response.headers))
                raise interruption
            if error.meaning is Meaning.FINAL:
                raise DownloadError(f"{self} was answered with {error}; ask the relay's operator")
            raise LinkError(f"{self} fails with {error}", error)
        encodings = ",".join(response.headers.getall("Content-Encoding", ()))
        if encoding := resuming.encoding_of(encodings):
            raise DownloadError(
                f"{self} is sent with a Content-Encoding ({encoding}); ask the relay's operator"
            )

    async def _read_error(self, response: aiohttp.ClientResponse, body: bytes) -> HostError:
        """Return what an error means; `body` is what was read of it.

        An expired link behind a redirect is tried again: the next redirect may lead to a new one.
        """
        with suppress(aiohttp.ClientError, OSError), anyio.move_on_after(ERROR_BODY_TIMEOUT):
            while len(body) < MAX_ERROR_BODY and (chunk := await response.content.read(CHUNK_SIZE)):
                body += chunk
        fields, query = lower_case(response.headers), response.url.raw_query_string
        error = read_error(response.status, fields, body[:MAX_ERROR_BODY], query, datetime.now(UTC))
        error = self._settings.headers.without_secrets(error)
        asked = self._url.with_fragment(None).with_user(None)  # as aiohttp keeps it
        if error.meaning is Meaning.EXPIRED and response.url != asked:
            return HostError(Meaning.NOT_YET, error.status, error.code)
        return error

    async def _read_start(self, response: aiohttp.ClientResponse) -> bytes:
        """Return the first bytes of a file; raise LinkError if they are not those of a video.

        Nothing is written before: a page in place of a video does not replace a partial file.
        """
        start = b""
        while len(start) < SAMPLE_SIZE and (chunk := await self._read(response)):
            start += chunk
        if not start:
            raise self._wrong_length(response)
        kind = identify(start, response.content_type, self._suffix)
        if kind.is_video:
            return start
        error = await self._read_error(response, start)
        raise LinkError(f"{self} is not a video but {one_line(kind.name)} ({error})", error)

    async def _fill(
        self, response: aiohttp.ClientResponse, received: Received, start: bytes
    ) -> None:
        """Write the bytes of a response, of which `start` was read, to the partial file."""
        part, total = self._part, received.record.total
        self._progress.update(part.size, total)
        while chunk := start or await self._read(response):
            start = b""
            end = received.end if received.end is not None else self._settings.max_bytes
            if part.size + len(chunk) > end:
                await in_thread(part.discard)
                raise self._too_large() if received.end is None else self._wrong_length(response)
            await in_thread(part.write, chunk)
            self._progress.update(part.size, total)
        is_chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
        if total is not None:
            is_cut = part.size < total
        else:
            is_cut = not is_chunked and await in_thread(is_cut_short, part.read, part.size)
        if is_cut:
            raise Interrupted(f"{self} was cut short")

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        try:
            return await response.content.read(CHUNK_SIZE)
        except (aiohttp.ClientError, OSError) as error:
            failure = self._interruption(error)
        raise failure

    def _interruption(self, error: Exception) -> Interrupted:
        return Interrupted(f"{self} was interrupted ({type(error).__name__})")

    def _too_large(self) -> DownloadError:
        limit = self._settings.max_bytes
        return DownloadError(f"{self} is larger than {limit} bytes; raise max_bytes")

    def _wrong_length(self, response: aiohttp.ClientResponse) -> LinkError:
        error = HostError(Meaning.NOT_YET, response.status)
        return LinkError(f"{self} is empty, or longer than the server announced", error)

    def __str__(self) -> str:
        return links.without_query(self._url)


def retry_delay(attempts: int, server_delay: float | None) -> float:
    """Return the seconds before the next attempt.

    They are random, grow with the attempts, and are at least `server_delay`, but never more than
    MAX_RETRY_DELAY.
    """
    backoff = ExponentialBackoff(FIRST_RETRY_DELAY, MAX_RETRY_DELAY)
    delay = backoff.delay(attempts + 1, random.random())  # noqa: S311
    return min(max(delay, server_delay or 0.0), MAX_RETRY_DELAY)
