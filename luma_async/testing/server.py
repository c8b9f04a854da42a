"""The HTTP server of a FakeRelay: it calls a handler for each request and sends its `Reply`.

Only this module needs aiohttp.web.
"""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import cast

from aiohttp import hdrs, web

from luma_async.testing.types import IncomingRequest, Reply

Handler = Callable[[IncomingRequest], Awaitable[Reply]]

_KEEPALIVE_TIMEOUT = 1e8  # seconds
_SHUTDOWN_TIMEOUT = 0.01  # seconds
_DRIP_INTERVAL = 5.0  # seconds
_TLS_ALERT = b"\x15\x03\x03\x00\x02\x02\x46\r\n\r\n"
_NO_LINGER = struct.pack("ii", 1, 0)


class _VerbatimStream(web.StreamResponse):
    """A response without a default Content-Type."""

    async def _prepare_headers(self) -> None:
        has_content_type = hdrs.CONTENT_TYPE in self.headers
        await super()._prepare_headers()
        if not has_content_type:
            self.headers.popall(hdrs.CONTENT_TYPE, None)


class _VerbatimResponse(_VerbatimStream, web.Response):
    """A response with its whole body, without a default Content-Type."""


class Server:
    """A web server on one address that calls `handler` for each request.

    The path of a request is as sent, still percent-encoded, without the query. If the client
    disconnects, its handler is cancelled. After a breakage the handler waits for that, so that
    aiohttp sends nothing more. Idle connections are never closed.
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        server = web.Server(
            self._handle,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=_KEEPALIVE_TIMEOUT,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_TIMEOUT)

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port; raise OSError if the address is in use."""
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        return port or int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Stop listening, cancel all handlers, and close all connections."""
        await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0]
        body = await request.read()
        reply = await self._handler(IncomingRequest(request.method, path, request.headers, body))
        if reply.breakage in (None, "gzip_bomb"):
            return _VerbatimResponse(body=reply.body, status=reply.status, headers=reply.headers)
        with suppress(ConnectionError):
            await _break(request, reply)
        until_disconnected: asyncio.Future[web.StreamResponse] = (
            asyncio.get_running_loop().create_future()
        )
        return await until_disconnected


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
            transport.write(_TLS_ALERT)
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
    """Send the headers, with this Content-Length, and a part of the body."""
    response = _VerbatimStream(status=reply.status, headers=reply.headers)
    response.content_length = length
    await response.prepare(request)
    await response.write(part)
    return response


async def _drip(request: web.BaseRequest, reply: Reply) -> None:
    response = await _send(request, reply, len(reply.body), reply.body[:1])
    for index in range(1, len(reply.body)):
        await asyncio.sleep(_DRIP_INTERVAL)
        await response.write(reply.body[index : index + 1])
