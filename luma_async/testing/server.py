"""The HTTP edge of the fake relay: bytes in, `Reply` out; the only file that needs aiohttp.web."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import cast

from aiohttp import hdrs, web

from luma_async.testing.types import IncomingRequest, Reply

Answer = Callable[[IncomingRequest], Awaitable[Reply]]

_A_LONG_TIME = 1e8
_AT_ONCE = 0.01
_DRIP = 5.0
_A_TLS_ALERT = b"\x15\x03\x03\x00\x02\x02\x46\r\n\r\n"
_NO_LINGER = struct.pack("ii", 1, 0)


class _Verbatim(web.StreamResponse):
    """A response that names no Content-Type of its own."""

    async def _prepare_headers(self) -> None:
        named = hdrs.CONTENT_TYPE in self.headers
        await super()._prepare_headers()
        if not named:
            self.headers.popall(hdrs.CONTENT_TYPE, None)


class _Whole(_Verbatim, web.Response):
    """A verbatim response with its body."""


class Server:
    """A web server on one address that asks `answer(incoming)`.

    The path is as it was sent, percent signs and all, without the query. A handler whose client
    has left is cancelled; one that has broken its answer waits for that, and aiohttp then sends
    nothing of its own. Kept connections are never closed for being idle.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        server = web.Server(
            self._handle,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=_A_LONG_TIME,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=_AT_ONCE)

    async def start(self, host: str, port: int) -> int:
        """Listen, and tell the port; OSError if the address is taken."""
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        return port or int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Stop listening, cancel what is under way, close every connection."""
        await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0]
        body = await request.read()
        reply = await self._answer(IncomingRequest(request.method, path, request.headers, body))
        if reply.breakage in (None, "gzip_bomb"):
            return _Whole(body=reply.body, status=reply.status, headers=reply.headers)
        with suppress(ConnectionError):
            await _break(request, reply)
        until_it_has_left: asyncio.Future[web.StreamResponse] = (
            asyncio.get_running_loop().create_future()
        )
        return await until_it_has_left


async def _break(request: web.BaseRequest, reply: Reply) -> None:
    transport = cast("asyncio.Transport", request.transport)
    half = len(reply.body) // 2
    match reply.breakage:
        case "reset":
            connection = transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            transport.abort()
        case "half_closed":
            transport.write_eof()
        case "garbage":
            transport.write(_A_TLS_ALERT)
            transport.close()
        case "truncated":
            await _send(request, reply, len(reply.body), reply.body[:half])
            transport.close()
        case "wrong_length":
            await _send(request, reply, half, reply.body[:half])
            transport.write(reply.body[half:])
            transport.close()
        case "drip":
            await _drip(request, reply)
            transport.close()
        case _:
            pass


async def _send(
    request: web.BaseRequest, reply: Reply, length: int, part: bytes
) -> web.StreamResponse:
    """Send the headers, with the Content-Length that is given, and a part of the body."""
    response = _Verbatim(status=reply.status, headers=reply.headers)
    response.content_length = length
    await response.prepare(request)
    await response.write(part)
    return response


async def _drip(request: web.BaseRequest, reply: Reply) -> None:
    response = await _send(request, reply, len(reply.body), reply.body[:1])
    for place in range(1, len(reply.body)):
        await asyncio.sleep(_DRIP)
        await response.write(reply.body[place : place + 1])
