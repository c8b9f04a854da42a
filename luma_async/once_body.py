"""The body of a submission: it is written once, and says so before."""

from collections.abc import Callable

import aiohttp
from aiohttp.abc import AbstractStreamWriter

BODY_CHUNK = 65_536  # bytes


class OnceBody(aiohttp.Payload):
    """The body of a request that is written to a connection once, whatever is tried.

    aiohttp sends the headers together with the first bytes of the body, so nothing was sent if
    `on_write` was not called.
    """

    def __init__(self, content: bytes, on_write: Callable[[], None]) -> None:
        super().__init__(content, content_type="application/json")
        self._size: int | None = len(content)
        self._on_write = on_write
        self._is_spent = False

    def revoke(self) -> None:
        """Prevent that it is written from now on."""
        self._is_spent = True

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the body as text."""
        return bytes(self._value).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the body; raise RuntimeError the second time."""
        if self._is_spent:
            raise RuntimeError("a submission is sent once; remove what sends it again")
        self._is_spent = True
        self._on_write()
        for start in range(0, len(self._value), BODY_CHUNK):
            await writer.write(self._value[start : start + BODY_CHUNK])
