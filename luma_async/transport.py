"""The HTTP requests to a relay, over aiohttp."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from math import inf
from typing import Self, TypeVar

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from luma_async import validation as checks
from luma_async._version import __version__
from luma_async.errors import (
    LumaError,
    NoSuchRouteError,
    NotFoundError,
    RequestTimeout,
    SessionClosed,
    SetupError,
    TooLongError,
    TransportError,
)
from luma_async.protocol.decoding import decode_response
from luma_async.protocol.decompression import ACCEPT_ENCODING, BadEncoding, Decompressor
from luma_async.protocol.headers import lower_case, retry_after
from luma_async.protocol.requests import (
    HTTPRequest,
    Observer,
    batch_request,
    name_base_url,
    single_request,
)
from luma_async.protocol.responses import Response
from luma_async.protocol.submissions import Submission, Submitted, decode_submission
from luma_async.redaction import Redactor, redact_error
from luma_async.resolver import new_resolver
from luma_async.send_once import (
    OnceBody,
    is_before_sending,
    is_of_setup,
    once_under_middlewares,
    send_once,
)
from luma_async.text import one_line, without_secrets

KEEPALIVE_TIMEOUT = 70.0  # seconds
MAX_HEADER_LINE = 65_536  # bytes; aiohttp's own limit is 8,190, and cookies and policies pass it
_USER_AGENT = f"luma-async/{__version__} aiohttp/{aiohttp.__version__}"

A = TypeVar("A")


class Transport:
    """Send requests over an aiohttp session: its own, or the caller's.

    Of the caller's session only the connections are used. Each request sets URL, headers, timeout,
    redirects and decompression itself. Without one, each submission has a connection of its own: if
    a kept connection turned out to be closed, its outcome would be unknown.

    `request_timeout`, and `submit_timeout` of a submission, are in seconds, inf for none.
    `max_body` is in bytes.
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
        submit_timeout: float = 120.0,
    ) -> None:
        self._base_url = base_url
        kinds = (aiohttp.ClientSession, type(None))
        self._http = checks.instance("http", http, kinds, "an aiohttp.ClientSession")
        self._owned = http is None
        self._submit_http = self._http
        self._own_connections = AsyncExitStack()
        self._proxy = proxy
        self._request_timeout = request_timeout
        self._submit_timeout = submit_timeout
        self._timeouts = {
            seconds: aiohttp.ClientTimeout(
                total=None if seconds == inf else seconds, ceil_threshold=inf
            )
            for seconds in (request_timeout, submit_timeout)
        }
        self._max_body = max_body
        self._redact = Redactor(api_key, proxy).redact
        self._headers = CIMultiDict(
            {
                "Authorization": f"Bearer {api_key}",
                "Accept": "application/json",
                "Accept-Encoding": ACCEPT_ENCODING,
                "Content-Type": "application/json",
                "User-Agent": _USER_AGENT,
            }
        )
        self._send_once = send_once(self._describe)
        self.open_ids_like: Callable[[str], Collection[str]] = lambda _: ()
        self.observer: Observer | None = None

    async def __aenter__(self) -> Self:
        if self._owned:
            resolver = new_resolver()
            self._own_connections.push_async_callback(resolver.close)  # aiohttp does not close it
            self._http = await self._new_http(
                aiohttp.TCPConnector(
                    limit=0, keepalive_timeout=KEEPALIVE_TIMEOUT, resolver=resolver
                )
            )
            self._submit_http = await self._new_http(
                aiohttp.TCPConnector(limit=0, force_close=True, resolver=resolver)
            )
        _opened(self._http)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._own_connections.aclose()

    async def _new_http(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        http = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        return await self._own_connections.enter_async_context(http)

    async def get(self, task_id: str) -> Response:
        """Request one task with the single GET."""
        try:
            response = await self._request(single_request(task_id))
        except NotFoundError as error:
            error.about_task |= error.in_json and task_id in error.message
            raise
        return response.for_task(task_id, self.open_ids_like)

    async def get_many(self, ids: Sequence[str]) -> Response:
        """Request several tasks with the batch POST."""
        return (await self._request(batch_request(ids))).for_tasks(ids, self.open_ids_like)

    async def submit(self, submission: Submission, on_write: Callable[[], None]) -> Submitted:
        """Submit a task, at most once; call `on_write` before the first byte is written.

        If `on_write` was not called, the relay received nothing.
        """
        request = submission.request
        body = OnceBody(request.body or b"", on_write)
        try:
            exchanged = await self._exchange(self._submit_http, request, self._submit_timeout, body)
            body.record_sent()
            return self._decode(decode_submission, *exchanged)
        except LumaError as error:
            if not body.is_prepared and not is_before_sending(error):
                body.record_sent()
            redact_error(error, without_secrets)
            raise
        finally:
            body.revoke()

    async def _request(self, request: HTTPRequest) -> Response:
        exchanged = await self._exchange(self._http, request, self._request_timeout, request.body)
        if self.observer is not None:
            self.observer(request, *exchanged)
        return self._decode(decode_response, *exchanged)

    def _decode(
        self,
        decode: Callable[[int, Mapping[str, str], bytes], A],
        status: int,
        headers: Mapping[str, str],
        body: bytes,
    ) -> A:
        """Return the decoded response; remove the API key from an error that repeats it."""
        with suppress(LumaError):
            return decode(status, headers, body)
        try:
            redacted = self._redact(body.decode("latin-1")).encode("latin-1")
            return decode(status, headers, redacted)
        except LumaError as error:
            if isinstance(error, NoSuchRouteError):
                name_base_url(error, self._base_url)
            redact_error(error, self._redact)
            raise

    async def _exchange(
        self,
        http: aiohttp.ClientSession | None,
        request: HTTPRequest,
        timeout: float,
        body: bytes | None,
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Send a request; return status, headers and body of the response.

        The caller's session may raise anything (middlewares, tracing): every exception that is not
        a LumaError becomes a TransportError. It is raised outside of the `except`, because the
        errors of aiohttp carry the headers of the request, and with them the API key. A Retry-After
        is honoured even if the body cannot be read.
        """
        headers: Mapping[str, str] | None = None
        try:
            async with self._start(_opened(http), request, timeout, body) as response:
                headers = response.headers
                return response.status, headers, await self._read(response)
        except TimeoutError:
            failure: BaseException = RequestTimeout(f"no answer within {timeout:g} s")
        except LumaError as error:
            failure = error
        except asyncio.CancelledError as error:
            # The frames of aiohttp hold the headers, and with them the key.
            failure = error.with_traceback(None)
        except Exception as error:
            if isinstance(error, BadEncoding):
                self._ask_for_identity()
            setup = headers is None and is_of_setup(error)
            failure = (SetupError if setup else TransportError)(self._describe(error))
            failure.never_connected = isinstance(error, aiohttp.ClientConnectorError)
        if isinstance(failure, LumaError):
            failure.retry_after = retry_after(lower_case(headers or {}))
        raise failure

    def _start(
        self,
        http: aiohttp.ClientSession,
        request: HTTPRequest,
        timeout: float,
        body: bytes | None,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return http.request(
            request.method,
            URL(self._base_url + request.path, encoded=True),
            data=body,
            headers=self._headers,
            timeout=self._timeouts[timeout],
            middlewares=self._middlewares(http, body),
            proxy=self._proxy,
            allow_redirects=False,
            raise_for_status=False,
            auto_decompress=False,
            max_line_size=MAX_HEADER_LINE,
            max_field_size=MAX_HEADER_LINE,
        )

    def _middlewares(
        self, http: aiohttp.ClientSession, body: bytes | None
    ) -> tuple[aiohttp.ClientMiddlewareType, ...] | None:
        """Return the middlewares of a request: those of the session, which ours replaces, first.

        aiohttp sends a GET a second time by itself if a kept connection was closed; the throttle
        would not count it. It never does so with a POST.
        """
        of_session = getattr(http, "_middlewares", ())
        if body is None:
            return (*of_session, self._send_once)
        if of_session and isinstance(body, OnceBody):
            return (*of_session, once_under_middlewares(body))
        return None

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        """Return the decoded body; raise TooLongError if it exceeds `max_body` bytes.

        The limit applies to the encoded bytes, too: a server may send empty blocks for ever, which
        decode to nothing.
        """
        decompressor = Decompressor(response.headers.get("Content-Encoding", ""))
        parts: list[bytes] = []
        encoded = decoded = 0
        while chunk := await response.content.readany():
            encoded += len(chunk)
            parts.append(decompressor.decompress(chunk, self._max_body + 1 - decoded))
            decoded += len(parts[-1])
            if max(encoded, decoded) > self._max_body:
                raise TooLongError(
                    f"the response is longer than {self._max_body} bytes; "
                    "lower Limits.max_batch, or raise Limits.max_body"
                )
        decompressor.finish()
        if decompressor.is_mislabelled:
            self._ask_for_identity()
        return b"".join(parts)

    def _ask_for_identity(self) -> None:
        self._headers["Accept-Encoding"] = "identity"

    def _describe(self, error: Exception) -> str:
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return one_line(self._redact(text))


def _opened(http: aiohttp.ClientSession | None) -> aiohttp.ClientSession:
    if http is None or http.closed:
        raise SessionClosed(
            "the aiohttp.ClientSession is closed; keep it open as long as the LumaSession"
        )
    return http
