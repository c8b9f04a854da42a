"""The two HTTP calls, over aiohttp."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import inf
from typing import Self

import aiohttp
from yarl import URL

from luma_async import validation as checks
from luma_async._version import __version__
from luma_async.errors import LumaError, RequestTimeout, SessionClosed, TooLongError, TransportError
from luma_async.protocol.decompression import ACCEPT_ENCODING, Decompressor
from luma_async.protocol.headers import lower_case, retry_after
from luma_async.protocol.requests import HTTPRequest, batch_request, single_request
from luma_async.protocol.responses import Response, decode_response
from luma_async.text import one_line

KEEPALIVE = 70.0
SHORTEST_SECRET = 6
_USER_AGENT = f"luma-async/{__version__} aiohttp/{aiohttp.__version__}"


class Transport:
    """Send requests over an aiohttp session: its own, or one that the caller keeps.

    Of a caller's session only the connections are used: URL, headers, timeout, redirects, the
    decompression and the reading of the body are all said in each request.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        http: aiohttp.ClientSession | None,
        request_timeout: float,
        max_body: int,
        proxy: str | None,
    ) -> None:
        self._base_url = base_url
        self._api_key = api_key
        kinds = (aiohttp.ClientSession, type(None))
        self._http = checks.instance("http", http, kinds, "an aiohttp.ClientSession")
        self._owned = http is None
        self._proxy = proxy
        total = None if request_timeout == inf else request_timeout
        self._timeout = aiohttp.ClientTimeout(total=total, ceil_threshold=inf)
        self._request_timeout = request_timeout
        self._max_body = max_body

    async def __aenter__(self) -> Self:
        if self._http is None:
            self._http = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE),
                cookie_jar=aiohttp.DummyCookieJar(),
                middlewares=(self._once,),
            )
        self._open()
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._http is not None and self._owned:
            await self._http.close()

    async def get(self, task_id: str) -> Response:
        """Get one task by the single GET."""
        return (await self._ask(single_request(task_id))).for_task(task_id)

    async def get_many(self, ids: Sequence[str]) -> Response:
        """Get many tasks by the batch POST."""
        return (await self._ask(batch_request(ids))).for_tasks(ids)

    async def _ask(self, request: HTTPRequest) -> Response:
        """Return the decoded response; the key is removed from an error that repeats it."""
        status, headers, body = await self._exchange(request)
        with suppress(LumaError):
            return decode_response(status, headers, body)
        try:
            struck = self._redacted(body.decode("latin-1")).encode("latin-1")
            return decode_response(status, headers, struck)
        except LumaError as error:
            self._strike(error)
            raise

    def _strike(self, error: LumaError) -> None:
        error.args = tuple(map(self._redacted, error.args))
        for name, value in vars(error).items():
            if isinstance(value, str):
                setattr(error, name, self._redacted(value))

    async def _exchange(self, request: HTTPRequest) -> tuple[int, Mapping[str, str], bytes]:
        """Return the whole answer.

        A caller's session may raise anything (middlewares, tracing); whatever is no answer is a
        TransportError. It is made outside the `except`: aiohttp's own errors carry the headers of
        the request, and with them the key. A Retry-After is heard even where the body is spoiled.
        """
        headers: Mapping[str, str] = {}
        try:
            async with self._open().request(
                request.method,
                URL(self._base_url + request.path, encoded=True),
                data=request.body,
                headers=self._headers(),
                timeout=self._timeout,
                proxy=self._proxy,
                allow_redirects=False,
                raise_for_status=False,
                auto_decompress=False,
            ) as response:
                headers = response.headers
                return response.status, headers, await self._read(response)
        except TimeoutError:
            failure: LumaError = RequestTimeout(f"no answer within {self._request_timeout:g} s")
        except LumaError as error:
            failure = error
        except Exception as error:
            failure = TransportError(self._told(error))
        failure.retry_after = retry_after(lower_case(headers))
        raise failure

    async def _once(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Keep aiohttp from sending a GET again by itself, past the throttle."""
        try:
            return await handler(request)
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
            failure = TransportError(self._told(error))
        raise failure

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        """Return the decoded body; TooLongError where it exceeds `max_body`, encoded or decoded.

        Encoded bytes count too: a server may send empty blocks for ever, which decode to nothing.
        """
        decompressor = Decompressor(response.headers.get("Content-Encoding", ""))
        parts: list[bytes] = []
        encoded = decoded = 0
        async for chunk in response.content.iter_any():
            encoded += len(chunk)
            parts.append(decompressor.decompress(chunk, self._max_body + 1 - decoded))
            decoded += len(parts[-1])
            if max(encoded, decoded) > self._max_body:
                raise TooLongError(
                    f"the answer is longer than {self._max_body} bytes; "
                    "lower Limits.max_batch, or raise Limits.max_body"
                )
        decompressor.finish()
        return b"".join(parts)

    def _open(self) -> aiohttp.ClientSession:
        if self._http is None or self._http.closed:
            raise SessionClosed("the aiohttp.ClientSession is closed; keep it open as long as luma")
        return self._http

    def _headers(self) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {self._api_key}",
            "Accept": "application/json",
            "Accept-Encoding": ACCEPT_ENCODING,
            "Content-Type": "application/json",
            "User-Agent": _USER_AGENT,
        }

    def _told(self, error: Exception) -> str:
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return one_line(self._redacted(text))

    def _redacted(self, text: str) -> str:
        """Remove the key from the text of an error; a word of a few letters is no secret."""
        if len(self._api_key) < SHORTEST_SECRET:
            return text
        return text.replace(self._api_key, "[api_key]")
