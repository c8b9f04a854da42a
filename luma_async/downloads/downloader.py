"""Save the videos of completed tasks into a directory, one file per task."""

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Self
from weakref import WeakValueDictionary

import aiohttp
import anyio
import anyio.to_thread
from yarl import URL

from luma_async import validation as checks
from luma_async._version import __version__
from luma_async.downloads import links
from luma_async.downloads.partial_file import remove_stale
from luma_async.downloads.progress import DownloadProgress, ProgressReporter
from luma_async.downloads.public_resolver import PublicResolver
from luma_async.downloads.transfer import CHUNK_SIZE, DeadLink, Transfer
from luma_async.errors import DownloadError
from luma_async.polling.hooks import Hook
from luma_async.session import LumaSession
from luma_async.structs import Generation
from luma_async.text import one_line

MAX_DOWNLOADS = 4
READ_TIMEOUT = 60.0  # seconds without a byte; also for the connection
MAX_BYTES = 2**32  # of one file

_HEADERS = {"Accept-Encoding": "identity", "User-Agent": f"luma-async/{__version__}"}


class Downloader:
    """Saves the videos of completed tasks into a directory; an async context manager.

    At most `at_once` downloads run at the same time. `directory` is created if it does not exist.
    `luma` is the session that is asked once for a new link if a link is dead; without it a dead
    link is an error. `max_bytes` limits the size of one file.

    The downloader uses an HTTP client of its own, which sends no API key and no cookies. It refuses
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
        on_progress: Callable[[DownloadProgress], object] | None = None,
    ) -> None:
        self._directory = Path(directory)
        kinds = (LumaSession, type(None))
        self._luma = checks.instance("luma", luma, kinds, "the LumaSession of the tasks")
        self._semaphore = anyio.Semaphore(checks.whole("at_once", at_once))
        if isinstance(allow_hosts, str):
            raise TypeError("allow_hosts is of type str; give a list of hosts")
        self._allowed = frozenset(allow_hosts)
        self._max_bytes = checks.whole("max_bytes", max_bytes)
        self._proxy = None if proxy is None else checks.http_url("proxy", proxy, plain=False)
        hook = checks.hook("on_progress", on_progress)
        self._on_progress = None if hook is None else Hook[DownloadProgress]("on_progress", hook)
        self._http: aiohttp.ClientSession | None = None
        self._locks: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()

    async def __aenter__(self) -> Self:
        if self._http is not None:
            raise RuntimeError("the downloader is already entered; make another one")
        await anyio.to_thread.run_sync(_create, self._directory)
        proxy_host = URL(self._proxy or "").host
        allowed = {*self._allowed, *([proxy_host] if proxy_host else [])}
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, resolver=PublicResolver(allowed)),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=READ_TIMEOUT, sock_read=READ_TIMEOUT
            ),
            headers=_HEADERS,
            read_bufsize=CHUNK_SIZE,
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._http is not None:
            with anyio.CancelScope(shield=True):
                await self._http.close()
            remove_stale(self._directory)

    async def download(self, generation: Generation) -> Path:
        """Save the video of a completed task, and return the path of the file.

        The path is DIRECTORY/ID.mp4, or with the suffix of the link; unusual characters of the id
        are percent-encoded. A file that exists is not downloaded again; a partial download is
        continued.

        Raises DownloadError if the video cannot be downloaded, an error of `luma.get` if the relay
        is asked for a new link and fails, and OSError if the file cannot be written.
        """
        checks.instance("generation", generation, Generation, "a Generation")
        async with self._semaphore:
            try:
                return await self._save(generation)
            except DeadLink as error:
                updated = await self._get_new_link(generation, error)
            try:
                return await self._save(updated)
            except DeadLink as error:
                raise DownloadError(
                    f"{error}, and it is the second dead link; submit the task again"
                ) from None

    async def _save(self, generation: Generation) -> Path:
        if self._http is None:
            raise RuntimeError("the downloader is not entered; use `async with Downloader(…)`")
        if (link := generation.url) is None:
            fact = f"{one_line(generation.id)} has no link ({generation.state})"
            raise DownloadError(f"{fact}; download completed tasks only")
        name = links.file_name(generation.id, link)
        async with self._locks.setdefault(name, anyio.Lock()):
            progress = ProgressReporter(generation.id, self._on_progress)
            return await self._fetch(self._http, link, name, progress)

    async def _fetch(
        self, http: aiohttp.ClientSession, link: str, name: str, progress: ProgressReporter
    ) -> Path:
        path = self._directory / name
        if await anyio.to_thread.run_sync(path.is_file):
            progress.finish(path, path.stat().st_size)
            return path
        transfer = Transfer(
            http,
            link,
            self._directory,
            name,
            allowed=self._allowed,
            max_bytes=self._max_bytes,
            proxy=self._proxy,
            progress=progress,
        )
        saved = None
        try:
            saved = await transfer.run()
            return saved
        finally:
            progress.finish(saved)

    async def _get_new_link(self, generation: Generation, error: DeadLink) -> Generation:
        """Return the task with another link than the dead one, from the relay."""
        if self._luma is None:
            raise DownloadError(f"{error}; pass luma, so that the relay is asked for a new link")
        updated = await self._luma.get(generation.id)
        if updated.url in (None, generation.url):
            raise DownloadError(f"{error}, and the relay has no other link; submit the task again")
        return updated

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
) -> Path:
    """Save the video of one completed task into a directory, and return the path of the file.

    The arguments and the errors are those of `Downloader` and its `download`. For many tasks use
    one `Downloader`.
    """
    downloader = Downloader(
        directory, luma=luma, allow_hosts=allow_hosts, max_bytes=max_bytes, proxy=proxy
    )
    async with downloader:
        return await downloader.download(generation)


def _create(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
