"""The two HTTP requests to a relay, over aiohttp."""

import asyncio
from base64 import b64encode
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from math import inf
from typing import Self

import aiohttp
from yarl import URL

from luma_async import validation as checks
from luma_async._version import __version__
from luma_async.errors import (
    LumaError,
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
from luma_async.protocol.requests import HTTPRequest, batch_request, single_request
from luma_async.protocol.responses import Response
from luma_async.text import one_line

KEEPALIVE_TIMEOUT = 70.0  # seconds
MIN_SECRET_LENGTH = 6  # characters
MAX_HEADER_LINE = 65_536  # bytes; aiohttp's own limit is 8,190, and cookies and policies pass it
Observer = Callable[[HTTPRequest, int, Mapping[str, str], bytes], object]
"""Receives each request with the status, the headers and the decoded body of its response."""
_USER_AGENT = f"luma-async/{__version__} aiohttp/{aiohttp.__version__}"


class Transport:
    """Send requests over an aiohttp session: its own, or the caller's.

    Of the caller's session only the connections are used. Each request sets URL, headers, timeout,
    redirects and decompression itself. `request_timeout` is in seconds, inf for none. `max_body`
    is in bytes.
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
        self._secrets = _secrets(api_key, proxy)
        self._ask_for_identity = False
        self.open_ids_like: Callable[[str], Collection[str]] = _none_like
        self.observer: Observer | None = None

    async def __aenter__(self) -> Self:
        if self._http is None:
            self._http = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_TIMEOUT),
                cookie_jar=aiohttp.DummyCookieJar(),
                middlewares=(self._send_once,),
            )
        self._client()
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._http is not None and self._owned:
            await self._http.close()

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

    async def _request(self, request: HTTPRequest) -> Response:
        """Return the decoded response; remove the API key from an error that repeats it."""
        status, headers, body = await self._exchange(request)
        if self.observer is not None:
            self.observer(request, status, headers, body)
        with suppress(LumaError):
            return decode_response(status, headers, body)
        try:
            redacted = self._redact(body.decode("latin-1")).encode("latin-1")
            return decode_response(status, headers, redacted)
        except LumaError as error:
            self._redact_error(error)
            raise

    def _redact_error(self, error: LumaError) -> None:
        error.args = tuple(map(self._redact, error.args))
        for name, value in vars(error).items():
            if isinstance(value, str):
                setattr(error, name, self._redact(value))

    async def _exchange(self, request: HTTPRequest) -> tuple[int, Mapping[str, str], bytes]:
        """Send a request; return status, headers and body of the response.

        The caller's session may raise anything (middlewares, tracing): every exception that is not
        a LumaError becomes a TransportError. It is raised outside of the `except`, because the
        errors of aiohttp carry the headers of the request, and with them the API key. A Retry-After
        is honoured even if the body cannot be read.
        """
        headers: Mapping[str, str] | None = None
        try:
            async with self._client().request(
                request.method,
                URL(self._base_url + request.path, encoded=True),
                data=request.body,
                headers=self._headers(),
                timeout=self._timeout,
                proxy=self._proxy,
                allow_redirects=False,
                raise_for_status=False,
                auto_decompress=False,
                max_line_size=MAX_HEADER_LINE,
                max_field_size=MAX_HEADER_LINE,
            ) as response:
                headers = response.headers
                return response.status, headers, await self._read(response)
        except TimeoutError:
            failure: BaseException = RequestTimeout(f"no answer within {self._request_timeout:g} s")
        except LumaError as error:
            failure = error
        except asyncio.CancelledError as error:
            # The frames of aiohttp hold the headers, and with them the key.
            failure = error.with_traceback(None)
        except Exception as error:
            self._ask_for_identity |= isinstance(error, BadEncoding)
            setup = headers is None and _is_of_setup(error)
            failure = (SetupError if setup else TransportError)(self._describe(error))
        if isinstance(failure, LumaError):
            failure.retry_after = retry_after(lower_case(headers or {}))
        raise failure

    async def _send_once(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Prevent aiohttp from retrying a GET by itself: the throttle would not count it."""
        try:
            return await handler(request)
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
            failure = TransportError(self._describe(error))
        raise failure

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        """Return the decoded body; raise TooLongError if it exceeds `max_body` bytes.

        The limit applies to the encoded bytes, too: a server may send empty blocks for ever, which
        decode to nothing.
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
                    f"the response is longer than {self._max_body} bytes; "
                    "lower Limits.max_batch, or raise Limits.max_body"
                )
        decompressor.finish()
        self._ask_for_identity |= decompressor.is_mislabelled
        return b"".join(parts)

    def _client(self) -> aiohttp.ClientSession:
        if self._http is None or self._http.closed:
            raise SessionClosed(
                "the aiohttp.ClientSession is closed; keep it open as long as the LumaSession"
            )
        return self._http

    def _headers(self) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {self._api_key}",
            "Accept": "application/json",
            "Accept-Encoding": "identity" if self._ask_for_identity else ACCEPT_ENCODING,
            "Content-Type": "application/json",
            "User-Agent": _USER_AGENT,
        }

    def _describe(self, error: Exception) -> str:
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return one_line(self._redact(text))

    def _redact(self, text: str) -> str:
        """Remove all secrets from a text."""
        for secret, name in self._secrets:
            text = text.replace(secret, name)
        return text


def _secrets(api_key: str, proxy: str | None) -> tuple[tuple[str, str], ...]:
    """Return the secrets, each with what replaces it; a word of a few letters is none.

    A proxy's user and password are sent as `user:password` in base64, too.
    """
    secrets: dict[str, str] = {api_key: "[api_key]"} if len(api_key) >= MIN_SECRET_LENGTH else {}
    url = URL(proxy or "")
    if url.raw_user or url.raw_password:
        for user, password in (
            (url.raw_user or "", url.raw_password or ""),
            (url.user or "", url.password or ""),
        ):
            pair = f"{user}:{password}"
            secrets |= dict.fromkeys((pair, b64encode(pair.encode()).decode()), "[proxy login]")
            words = (word for word in (password, user) if len(word) >= MIN_SECRET_LENGTH)
            secrets |= dict.fromkeys(words, "[proxy login]")
    return tuple(sorted(secrets.items(), key=lambda one: -len(one[0])))


def _is_of_setup(error: Exception) -> bool:
    """Whether an error before any response is of the session's set-up, not of the network.

    aiohttp raises ValueError or TypeError for what cannot be sent: an Authorization header beside
    `auth=` or a netrc entry, a bad URL; a middleware of the caller's may raise them, too. Its
    errors of certificates are ValueErrors as well.
    """
    network = isinstance(error, aiohttp.ClientError | OSError)
    return isinstance(error, ValueError | TypeError) and not network


def _none_like(_: str) -> Collection[str]:
    return ()
