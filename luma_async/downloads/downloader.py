"""Videos to files: what relays link to, saved beside each other under the names of their tasks."""

import os
from collections.abc import Collection
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
from luma_async.downloads.transfer import CHUNK_SIZE, DeadLink, PublicResolver, Transfer
from luma_async.errors import DownloadError
from luma_async.session import LumaSession
from luma_async.structs import Generation
from luma_async.text import one_line

MAX_DOWNLOADS = 4
READ_TIMEOUT = 60.0
MAX_BYTES = 2**32

_HEADERS = {"Accept-Encoding": "identity", "User-Agent": f"luma-async/{__version__}"}


class Downloader:
    """Saves videos into a directory, `at_once` of them at a time; an async context manager.

    The links are followed by a client of its own, which knows no key and keeps no cookies; a link
    into a private address range is refused unless its host is in `allow_hosts`. `luma` is asked
    once for a fresh link where one has died. `max_bytes` bounds one file. Through a `proxy` it is
    the proxy that looks names up, and has to refuse what is private. The directory is made where it
    is not there; OSError where that cannot be.
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
    ) -> None:
        self._directory = Path(directory)
        kinds = (LumaSession, type(None))
        self._luma = checks.instance("luma", luma, kinds, "the LumaSession that knows the tasks")
        self._slots = anyio.Semaphore(checks.whole("at_once", at_once))
        if isinstance(allow_hosts, str):
            raise TypeError("allow_hosts is of type str; give a list of hosts")
        self._allowed = frozenset(host.lower() for host in allow_hosts)
        self._max_bytes = checks.whole("max_bytes", max_bytes)
        self._proxy = None if proxy is None else checks.http_url("proxy", proxy, plain=False)
        self._http: aiohttp.ClientSession | None = None
        self._names: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()

    async def __aenter__(self) -> Self:
        if self._http is not None:
            raise RuntimeError("the downloader is already entered; make another one")
        await anyio.to_thread.run_sync(_create, self._directory)
        proxy = URL(self._proxy or "").host
        resolver = PublicResolver({*self._allowed, *([proxy.lower()] if proxy else [])})
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, resolver=resolver),
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
        """Save the video of a completed task; returns where: DIRECTORY/ID.mp4, or its own suffix.

        One that is there is not fetched again; a part that was left is gone on with. Raises
        DownloadError where the video cannot be had, what `luma.get` raises where the relay tells no
        fresh link, OSError where the disk does not take it.
        """
        checks.instance("generation", generation, Generation, "a Generation")
        async with self._slots:
            try:
                return await self._save(generation)
            except DeadLink as dead:
                fresh = await self._ask_again(generation, dead)
            try:
                return await self._save(fresh)
            except DeadLink as dead:
                raise DownloadError(f"{dead}, as the link before; submit the task anew") from None

    async def _save(self, generation: Generation) -> Path:
        if self._http is None:
            raise RuntimeError("the downloader is not entered; use `async with Downloader(…)`")
        if (link := generation.url) is None:
            what = f"{one_line(generation.id)} has no link ({generation.state})"
            raise DownloadError(f"{what}; download what is completed")
        name = links.file_name(generation.id, link)
        async with self._names.setdefault(name, anyio.Lock()):
            return await self._fetch(self._http, link, name)

    async def _fetch(self, http: aiohttp.ClientSession, link: str, name: str) -> Path:
        path = self._directory / name
        if await anyio.to_thread.run_sync(path.is_file):
            return path
        fetch = Transfer(
            http,
            link,
            self._directory,
            name,
            allowed=self._allowed,
            max_bytes=self._max_bytes,
            proxy=self._proxy,
        )
        return await fetch.run()

    async def _ask_again(self, generation: Generation, dead: DeadLink) -> Generation:
        """Ask the relay for another link."""
        if self._luma is None:
            raise DownloadError(f"{dead}; give luma, which asks for a fresh link")
        fresh = await self._luma.get(generation.id)
        if fresh.url in (None, generation.url):
            raise DownloadError(f"{dead}, and the relay knows no other; submit the task anew")
        return fresh

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
    """Save the video of one completed task into a directory, and return where.

    As `Downloader`, which is what to use for many, has it.
    """
    downloader = Downloader(
        directory, luma=luma, allow_hosts=allow_hosts, max_bytes=max_bytes, proxy=proxy
    )
    async with downloader:
        return await downloader.download(generation)


def _create(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
