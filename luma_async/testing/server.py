"""The HTTP edge of the fake relay: bytes in, `Reply` out; the only file that needs aiohttp.web."""

from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web

from luma_async.testing.script import Reply

Answer = Callable[[str, str, str, bytes], Awaitable[Reply]]

_A_LONG_TIME = 1e8
_AT_ONCE = 0.01


class _Verbatim(web.Response):
    """A response that names no Content-Type of its own."""

    async def _prepare_headers(self) -> None:
        named = hdrs.CONTENT_TYPE in self.headers
        await super()._prepare_headers()
        if not named:
            self.headers.popall(hdrs.CONTENT_TYPE, None)


class Server:
    """A web server on one address that asks `answer(method, path, authorization, body)`.

    The path is as it was sent, percent signs and all, without the query. A handler whose client
    has left is cancelled. Kept connections are never closed for being idle.
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
        return int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Stop listening, cancel what is under way, close every connection."""
        await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0]
        authorization = request.headers.get(hdrs.AUTHORIZATION, "")
        reply = await self._answer(request.method, path, authorization, await request.read())
        return _Verbatim(body=reply.body, status=reply.status, headers=reply.headers)
