"""Save the videos of completed tasks into a directory, one file per task."""

import asyncio
import os
import random
from collections.abc import Callable, Collection, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Self
from weakref import WeakValueDictionary

import aiohttp
import anyio
from yarl import URL

from luma_async import validation as checks
from luma_async._version import __version__
from luma_async.downloads import links
from luma_async.downloads.host_errors import Meaning
from luma_async.downloads.link_policy import (
    DEFAULT_GRACE,
    MAX_YOUNG_AGE,
    MIN_DEAD_FOR,
    DeadLinks,
    LinkPolicy,
    Step,
)
from luma_async.downloads.partial_file import (
    PartialFile,
    is_saved,
    open_partial_file,
    remove_stale,
)
from luma_async.downloads.progress import DownloadProgress, ProgressReporter
from luma_async.downloads.public_resolver import PublicResolver
from luma_async.downloads.transfer import (
    CHUNK_SIZE,
    LinkError,
    Transfer,
    TransferSettings,
    in_thread,
)
from luma_async.errors import DownloadError
from luma_async.polling.hooks import Hook
from luma_async.scheduling.throttle import ExponentialBackoff
from luma_async.session import LumaSession
from luma_async.structs import Generation
from luma_async.text import format_duration, one_line

MAX_DOWNLOADS = 4
READ_TIMEOUT = 60.0  # seconds without a byte; also for the connection
MAX_BYTES = 2**32  # of one file

_HEADERS = {"Accept-Encoding": "identity", "User-Agent": f"luma-async/{__version__}"}
_LATER = "try again in some minutes"
_LOCK_BACKOFF = ExponentialBackoff(base=0.05, cap=1.0)


class Downloader:
    """Saves the videos of completed tasks into a directory; an async context manager.

    At most `at_once` downloads run at the same time. `directory` is created if it does not exist.
    `luma` is the session that is asked for a new link if a link fails; without it that is an error.
    `max_bytes` limits the size of one file.

    A link that fails with 403 or 404 is tried again with growing delays for `link_grace` seconds,
    by default those of `luma`, else 60: the file may come late. One that leads to something else
    than a video is tried again for 10 seconds. Then `luma` is asked for a new link, once; at once
    if the host says that the link has expired.

    The downloader uses an HTTP client of its own, which sends no API key and no cookies. `headers`
    are sent to the hosts in `header_hosts` if a link leads there, never to the target of a redirect
    to another host: give them for a relay whose links want its key. The downloader refuses
    a link to a private address unless the host is in `allow_hosts`. `proxy` is the URL of an HTTP
    proxy; then the proxy resolves the names of the hosts, and must refuse private addresses itself.

    `on_progress` is called with a DownloadProgress when a transfer starts, then at most ten times
    a second, and when it ends. It is a plain function, called in the event loop; it must not block.
    If it raises an exception, that is logged once and then ignored.

    Raises ValueError or TypeError for invalid arguments; entering it raises OSError if the
    directory cannot be created.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        luma: LumaSession | None = None,
        at_once: int = MAX_DOWNLOADS,
        allow_hosts: Collection[str] = (),
        max_bytes: int = MAX_BYTES,
        proxy: str | None = None,
        headers: Mapping[str, str] | None = None,
        header_hosts: Collection[str] = (),
        link_grace: float | None = None,
        on_progress: Callable[[DownloadProgress], object] | None = None,
    ) -> None:
        self._directory = Path(directory)
        kinds = (LumaSession, type(None))
        self._luma = checks.instance("luma", luma, kinds, "the LumaSession of the tasks")
        self._semaphore = anyio.Semaphore(checks.whole("at_once", at_once))
        self._allowed = frozenset(checks.hosts("allow_hosts", allow_hosts))
        self._max_bytes = checks.whole("max_bytes", max_bytes)
        self._proxy = None if proxy is None else checks.http_url("proxy", proxy, plain=False)
        self._headers = links.LinkHeaders(
            checks.headers("headers", headers, reserved=links.RESERVED_HEADERS),
            checks.hosts("header_hosts", header_hosts),
        )
        if link_grace is None:
            self._link_grace = DEFAULT_GRACE if luma is None else luma.link_grace
        else:
            self._link_grace = checks.not_negative("link_grace", link_grace)
        hook = checks.hook("on_progress", on_progress)
        self._on_progress = None if hook is None else Hook[DownloadProgress]("on_progress", hook)
        self._settings: TransferSettings | None = None
        self._connections = AsyncExitStack()
        self._dead = DeadLinks()
        self._locks: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()

    async def __aenter__(self) -> Self:
        if self._settings is not None:
            raise RuntimeError("the downloader is already entered; make another one")
        await in_thread(_create, self._directory)
        proxy_host = URL(self._proxy or "").host
        allowed = {*self._allowed, *([proxy_host] if proxy_host else [])}
        resolver = PublicResolver(allowed)
        self._connections.push_async_callback(resolver.close)  # aiohttp does not close it
        http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, resolver=resolver),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(
                total=None,
                connect=READ_TIMEOUT,
                sock_connect=READ_TIMEOUT,
                sock_read=READ_TIMEOUT,
            ),
            headers=_HEADERS,
            read_bufsize=CHUNK_SIZE,
        )
        await self._connections.enter_async_context(http)
        self._settings = TransferSettings(
            http, self._allowed, self._headers, self._max_bytes, self._proxy
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        with anyio.CancelScope(shield=True):
            await self._connections.aclose()
        remove_stale(self._directory)

    async def download(self, generation: Generation) -> Path:
        """Save the video of a completed task, and return the path of the file.

        The path is DIRECTORY/ID.mp4, or with the suffix of the link; unusual characters of the id
        are percent-encoded. A file that exists is not downloaded again; a partial download is
        continued if the host proves that the file is still the same. While another download, also
        of another process, writes the same file, this one waits.

        Raises DownloadError if the video cannot be downloaded, an error of `luma.get` if the relay
        is asked for a new link and fails, and OSError if the file cannot be written.
        """
        checks.instance("generation", generation, Generation, "a Generation")
        policy = LinkPolicy(self._grace_of(generation))
        while True:
            try:
                async with self._semaphore:
                    return await self._save(generation)
            except LinkError as failure:
                now, roll = asyncio.get_running_loop().time(), random.random()  # noqa: S311
                self._dead.record(generation.url or "", now)
                step, delay = policy.next_step(failure.error, now, roll)
                error = failure
            if step is Step.FAIL:
                raise _final_error(error, f"{error}, and so does the new link of the relay")
            if step is Step.ASK_RELAY:
                generation = await self._get_new_link(generation, error)
            else:
                await anyio.sleep(delay)

    def _grace_of(self, generation: Generation) -> float:
        """Return for how many seconds a link of a task is tried again; 0 for an old task."""
        created_at = generation.created_at
        if created_at is not None:
            age = datetime.now(UTC) - created_at
            if age.total_seconds() > MAX_YOUNG_AGE:
                return 0.0
        return self._link_grace

    async def _save(self, generation: Generation) -> Path:
        if self._settings is None:
            raise RuntimeError("the downloader is not entered; use `async with Downloader(…)`")
        if (link := generation.url) is None:
            fact = f"{one_line(generation.id)} has no link ({generation.state})"
            raise DownloadError(f"{fact}; download completed tasks only")
        path = self._directory / links.file_name(generation.id, link)
        progress = ProgressReporter(generation.id, self._on_progress)
        async with self._locks.setdefault(path.name, anyio.Lock()):
            part = await self._open(path)
            if part is None:
                progress.finish(path, await in_thread(_size_of, path))
                return path
            saved: Path | None = None
            try:
                saved = path = await Transfer(self._settings, link, part, progress).run()
            finally:
                part.close()
                progress.finish(saved)
            self._dead.forget(link)
            return path

    async def _open(self, path: Path) -> PartialFile | None:
        """Return the partial file of a path, locked; None if the file itself is there by then."""
        failures = 0
        while not await in_thread(is_saved, path):
            part = open_partial_file(self._directory, path.name)
            if part is not None:
                return part
            failures += 1
            roll = (1.0 + random.random()) / 2  # noqa: S311
            await anyio.sleep(_LOCK_BACKOFF.delay(failures, roll))
        return None

    async def _get_new_link(self, generation: Generation, error: LinkError) -> Generation:
        """Return the task with another link than the one that failed, from the relay."""
        if self._luma is None:
            fact = str(error)
            raise _final_error(error, fact, "pass luma, so that the relay is asked for a new link")
        updated = await self._luma.get(generation.id)
        if updated.url is None:
            raise _final_error(error, f"{error}, and the relay has no link now")
        if updated.url != generation.url:
            return updated
        dead_for = self._dead.dead_for(updated.url, asyncio.get_running_loop().time())
        since = f", for {format_duration(dead_for)}" if dead_for >= 1.0 else ""
        fact = f"{error}{since}, and the relay has no other link"
        is_lost = dead_for >= MIN_DEAD_FOR
        raise _final_error(error, fact, "submit the task again" if is_lost else _LATER)

    def __repr__(self) -> str:
        return f"<Downloader {os.fspath(self._directory)!r}>"


async def download(
    generation: Generation,
    directory: str | os.PathLike[str],
    *,
    luma: LumaSession | None = None,
    allow_hosts: Collection[str] = (),
    max_bytes: int = MAX_BYTES,
    proxy: str | None = None,
    headers: Mapping[str, str] | None = None,
    header_hosts: Collection[str] = (),
    link_grace: float | None = None,
) -> Path:
    """Save the video of one completed task into a directory, and return the path of the file.

    The arguments and the errors are those of `Downloader` and its `download`. For many tasks use
    one `Downloader`.
    """
    downloader = Downloader(
        directory,
        luma=luma,
        allow_hosts=allow_hosts,
        max_bytes=max_bytes,
        proxy=proxy,
        headers=headers,
        header_hosts=header_hosts,
        link_grace=link_grace,
    )
    async with downloader:
        return await downloader.download(generation)


def _create(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)


def _size_of(path: Path) -> int | None:
    """Return the size of a saved file; None if its reader has moved it away by now."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def _final_error(error: LinkError, fact: str, remedy: str = _LATER) -> DownloadError:
    """Return the error of a link that is given up."""
    if error.error.meaning is Meaning.NEEDS_KEY:
        return DownloadError(f"{error}: the link wants a key; pass headers and header_hosts")
    return DownloadError(f"{fact}; {remedy}")
