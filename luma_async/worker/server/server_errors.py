"""What the server says about a request that has no answer, or a connection that it refuses.

A server that denies a permission does not answer the request: it reports the denial apart, and the
request times out. One that has too many connections reports it before it closes the connection;
nats-py has written to it by then, and loses the report.
"""

import asyncio
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from urllib.parse import urlsplit

from luma_async.errors import QueueError
from luma_async.text import one_line

DENIED = "permissions violation"
DENIED_FOR = 10.0  # seconds for which a denial explains a request without an answer
PROBE_TIMEOUT = 1.0  # seconds
MAX_GREETING = 65_536  # bytes
DEFAULT_PORT = 4222


class Denials:
    """The last permission that the server has denied."""

    def __init__(self, ignored_subject: str) -> None:
        self._ignored = f'"{ignored_subject.lower()}"'
        self._text = ""
        self._denied_at = 0.0

    def record(self, text: str) -> None:
        """Record an error that the server has reported, if it is a denial."""
        if DENIED in text.lower() and self._ignored not in text.lower():
            self._text, self._denied_at = one_line(text.removeprefix("nats: ")), time.monotonic()

    def error(self) -> QueueError | None:
        """Return the error for a request without an answer; None if none was denied lately."""
        if not self._text or time.monotonic() - self._denied_at > DENIED_FOR:
            return None
        return QueueError(f"the NATS server denies it: {self._text}; allow it for this user")


async def refusal(urls: Iterable[str]) -> str:
    """Connect to each server without sending anything; return the error that one reports."""
    for url in urls:
        with suppress(OSError, ValueError, TimeoutError):
            if text := await _reported(url):
                return text
    return ""


async def _reported(url: str) -> str:
    parts = urlsplit(url if "//" in url else f"//{url}")
    async with asyncio.timeout(PROBE_TIMEOUT):
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port or DEFAULT_PORT)
        try:
            greeting = await reader.readline()
            greeting += await reader.read(MAX_GREETING)
        finally:
            writer.close()
    found = re.search(rb"^-ERR '([^'\r\n]{1,200})'", greeting, flags=re.MULTILINE)
    return one_line(found[1].decode(errors="replace")) if found else ""
