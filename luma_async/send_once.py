"""Requests that are sent once: the body of a submission, and a GET that aiohttp would repeat.

aiohttp sends the headers together with the first bytes of the body. So while `on_write` of a body
was not called, the relay has received nothing.
"""

from collections.abc import Callable
from typing import Any, Self

import aiohttp
from aiohttp.abc import AbstractStreamWriter

from luma_async.errors import LumaError, SessionClosed, SetupError, TransportError

BODY_CHUNK = 65_536  # bytes


class OnceBody(bytes):
    """The body of a request that is written to a connection once, whatever is tried.

    `is_prepared`: aiohttp has made a request of it. Under a mock of aiohttp it has not, and it is
    not known when anything is written.
    """

    def __new__(cls, content: bytes, on_write: Callable[[], None]) -> Self:
        """Make a body that calls `on_write` before its first byte is written."""
        body = super().__new__(cls, content)
        body.is_prepared = False
        body._is_spent = False
        body._on_write = on_write
        return body

    is_prepared: bool
    _is_spent: bool
    _on_write: Callable[[], None]

    def begin_write(self) -> None:
        """Record that it is written from now on; raise RuntimeError the second time."""
        if self._is_spent:
            raise RuntimeError("a submission is sent once; remove what sends it again")
        self.record_sent()

    def record_sent(self) -> None:
        """Record that it was sent, if that is not recorded yet."""
        if not self._is_spent:
            self._is_spent = True
            self._on_write()

    def revoke(self) -> None:
        """Prevent that it is written from now on."""
        self._is_spent = True


@aiohttp.payload_type(OnceBody)
class OncePayload(aiohttp.Payload):
    """What aiohttp makes of a OnceBody."""

    _autoclose = True  # it is in memory: a middleware may replace it without a warning

    def __init__(self, body: OnceBody, **_: Any) -> None:
        super().__init__(body, content_type="application/json")
        self._size: int | None = len(body)
        self._body = body
        body.is_prepared = True

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the body as text."""
        return bytes(self._body).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the body; raise RuntimeError the second time."""
        self._body.begin_write()
        for start in range(0, len(self._body), BODY_CHUNK):
            await writer.write(self._body[start : start + BODY_CHUNK])


def once_under_middlewares(body: OnceBody) -> aiohttp.ClientMiddlewareType:
    """Return the innermost middleware of a submission: another one may have replaced its body.

    What is sent in its place counts as the submission itself: it is recorded before a connection is
    made, and the second time raises RuntimeError.
    """

    async def middleware(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if not isinstance(request.body, OncePayload):
            body.begin_write()
        return await handler(request)

    return middleware


def send_once(describe: Callable[[Exception], str]) -> aiohttp.ClientMiddlewareType:
    """Return a middleware under which aiohttp sends a request only once.

    A function and not a method: mocks copy the arguments of a request, with all they refer to.
    """

    async def middleware(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        try:
            return await handler(request)
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
            failure = TransportError(describe(error))
        raise failure

    return middleware


def is_before_sending(error: LumaError) -> bool:
    """Whether an error proves by itself that nothing was sent."""
    is_unconnected = isinstance(error, TransportError) and error.never_connected
    return is_unconnected or isinstance(error, SetupError | SessionClosed)


def is_of_setup(error: Exception) -> bool:
    """Whether an error before any response is of the session's set-up, not of the network.

    aiohttp raises ValueError or TypeError for what cannot be sent: an Authorization header beside
    `auth=` or a netrc entry, a bad URL; a middleware of the caller's may raise them, too. Its
    errors of certificates are ValueErrors as well.
    """
    network = isinstance(error, aiohttp.ClientError | OSError)
    return isinstance(error, ValueError | TypeError) and not network
