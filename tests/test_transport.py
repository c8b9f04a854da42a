"""The transport with a real server on loopback, in real time: what a mock cannot show."""

import asyncio
import gzip
import struct
import zlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from luma_async import (
    DecodeError,
    Limits,
    LumaSession,
    NoSuchRouteError,
    RateLimitedError,
    RequestTimeout,
    TransportError,
)
from luma_async.protocol.submissions import Submission
from luma_async.testing import FakeRelay
from luma_async.transport import Transport

BASE = "https://relay.example"
PENDING = b'{"id":"a","state":"pending"}'
DONE = b'{"id":"a","state":"completed","video":{"url":"https://cdn.example/a.mp4"}}'
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def transport(
    url: str,
    http: aiohttp.ClientSession | None = None,
    timeout: float = 5.0,
    max_body: int = Limits().max_body,
) -> Transport:
    return Transport(
        url, "sk-test", http=http, request_timeout=timeout, max_body=max_body, proxy=None
    )


async def test_a_request_is_sent_as_documented(
    serve: Callable[[Handler], Awaitable[str]],
) -> None:
    seen: list[tuple[str, str, dict[str, str], bytes]] = []

    async def handler(request: web.BaseRequest) -> web.Response:
        seen.append((request.method, request.raw_path, dict(request.headers), await request.read()))
        return web.Response(body=b"[]")

    async with transport(f"{await serve(handler)}/pro") as relay:
        await relay.get("a/b ü?")
        await relay.get_many(["a", "b"])
        await relay.get("..")
    (get, get_path, headers, nothing), (post, post_path, other, body), (_, dots, *_) = seen
    assert dots == "/pro/luma/generations/%2E%2E"
    assert (get, get_path, nothing) == ("GET", "/pro/luma/generations/a%2Fb%20%C3%BC%3F", b"")
    assert (post, post_path, body) == ("POST", "/pro/luma/tasks", b'{"ids":["a","b"]}')
    for sent in (headers, other):
        assert sent["Authorization"] == "Bearer sk-test"
        assert sent["Accept"] == sent["Content-Type"] == "application/json"
        assert sent["Accept-Encoding"] == "gzip, deflate"
        assert sent["User-Agent"].startswith("luma-async/")
        assert "Cookie" not in sent


@pytest.mark.parametrize("name", ["get", "submit"])
async def test_requests_of_one_session_do_not_wait_for_each_other(
    serve: Callable[[Handler], Awaitable[str]], name: str
) -> None:
    arrived, all_arrived = asyncio.Semaphore(0), asyncio.Event()
    connections: set[object] = set()

    async def handler(request: web.BaseRequest) -> web.Response:
        connections.add(request.transport)
        arrived.release()
        await all_arrived.wait()
        return web.Response(body=DONE)

    async with transport(await serve(handler)) as relay:

        async def send() -> None:
            if name == "get":
                await relay.get("a")
            else:
                await relay.submit(Submission(user_prompt="a cat"), lambda: None)

        async with asyncio.timeout(10), asyncio.TaskGroup() as sending:
            for _ in range(3):
                sending.create_task(send())
            for _ in range(3):
                await arrived.acquire()
            all_arrived.set()
        assert len(connections) == 3
        await send()
        assert len(connections) == (3 if name == "get" else 4), "a submission has a new one"


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    ("request_timeout", "submit_timeout", "totals"),
    [(7.0, 9.0, [7.0, 9.0]), (inf, inf, [None] * 2)],
)
async def test_each_request_has_its_timeout_and_none_if_it_is_infinite(
    mocked: Any, request_timeout: float, submit_timeout: float, totals: list[float | None]
) -> None:
    mocked.get(f"{BASE}/luma/generations/a", body=DONE)
    mocked.post(f"{BASE}/luma/generations", body=PENDING)
    async with LumaSession(
        BASE, api_key="k", request_timeout=request_timeout, submit_timeout=submit_timeout
    ) as luma:
        await luma.get("a")
        await luma.create("a cat")
    timeouts = [call.kwargs["timeout"] for (call,) in mocked.requests.values()]
    assert [one.total for one in timeouts] == totals
    assert all(one.ceil_threshold == inf for one in timeouts), "it is not rounded to a second"


async def test_an_empty_body_is_a_decode_error(serve: Callable[[Handler], Awaitable[str]]) -> None:
    async def handler(request: web.BaseRequest) -> web.Response:
        return web.Response()

    async with transport(await serve(handler)) as relay:
        with pytest.raises(DecodeError, match="empty body"):
            await relay.get("a")


async def test_a_redirect_is_not_followed_and_its_target_is_in_the_error(
    serve: Callable[[Handler], Awaitable[str]],
) -> None:
    paths: list[str] = []

    async def handler(request: web.BaseRequest) -> web.Response:
        paths.append(request.path)
        raise web.HTTPFound("https://elsewhere.example/luma")

    async with transport(await serve(handler)) as relay:
        with pytest.raises(NoSuchRouteError, match="https://elsewhere.example/luma"):
            await relay.get_many(["a", "b"])
    assert paths == ["/luma/tasks"]


async def test_a_relay_that_does_not_respond_is_a_request_timeout(
    serve: Callable[[Handler], Awaitable[str]],
) -> None:
    async def handler(request: web.BaseRequest) -> web.Response:
        await asyncio.sleep(60.0)
        return web.Response()

    async with transport(await serve(handler), timeout=0.05) as relay:
        with pytest.raises(RequestTimeout, match=r"no answer within 0\.05 s"):
            await relay.get("a")


async def test_a_relay_that_sends_byte_by_byte_is_a_request_timeout(
    serve: Callable[[Handler], Awaitable[str]],
) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.01)

    async with transport(await serve(handler), timeout=0.1) as relay:
        with pytest.raises(RequestTimeout):
            await relay.get("a")


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("identity", bytes)],
)
async def test_a_body_above_max_body_is_not_read_compressed_or_not(
    serve: Callable[[Handler], Awaitable[str]], encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    limit = Limits().max_body
    whole, over = (DONE + b" " * (size - len(DONE)) for size in (limit, limit + 1))
    bodies = iter([whole, over])

    async def handler(request: web.BaseRequest) -> web.Response:
        return web.Response(body=pack(next(bodies)), headers={"Content-Encoding": encoding})

    async with transport(await serve(handler)) as relay:
        assert list((await relay.get("a")).states) == ["a"]
        with pytest.raises(DecodeError, match=r"longer than 8388608 bytes; .* Limits\.max_body$"):
            await relay.get("a")


async def test_max_body_of_the_limits_is_used(serve: Callable[[Handler], Awaitable[str]]) -> None:
    async def handler(request: web.BaseRequest) -> web.Response:
        return web.Response(body=DONE)

    url = await serve(handler)
    async with LumaSession(url, api_key="sk-test", limits=Limits(max_body=len(DONE))) as luma:
        assert (await luma.get("a")).is_done
    limits = Limits(max_body=len(DONE) - 1, max_rate=100.0)
    async with LumaSession(url, api_key="sk-test", limits=limits, request_timeout=1.0) as luma:
        with pytest.raises(DecodeError, match=f"longer than {len(DONE) - 1} bytes"):
            await luma.get("a")


async def test_compressed_responses_are_decoded_in_a_session_without_auto_decompress(
    serve: Callable[[Handler], Awaitable[str]],
) -> None:
    async def handler(request: web.BaseRequest) -> web.Response:
        response = web.Response(body=DONE)
        response.enable_compression(web.ContentCoding.gzip)
        return response

    url = await serve(handler)
    async with (
        aiohttp.ClientSession(auto_decompress=False) as http,
        transport(url, http) as relay,
    ):
        assert list((await relay.get("a")).states) == ["a"]


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8bno",
    ],
    ids=["closed", "no HTTP", "cut", "bad chunk", "bad gzip"],
)
async def test_an_incomplete_response_is_a_transport_error(response: bytes) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response)
        writer.close()

    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    async with server, transport(f"http://{host}:{port}") as relay:
        with pytest.raises(TransportError) as caught:
            await relay.get_many(["a", "b"])
    assert caught.value.__context__ is None, "the error of aiohttp carries the API key"


@pytest.mark.parametrize("is_reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("own", [True, False], ids=["own session", "session of the caller"])
async def test_aiohttp_does_not_retry_a_get_on_a_dead_connection(own: bool, is_reset: bool) -> None:
    seen: list[bytes] = []
    passed: list[str] = []

    async def count(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        passed.append(request.method)
        return await handler(request)

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                seen.append(await reader.readuntil(b"\r\n\r\n"))
                if len(seen) == 2:
                    break
                answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b"
                writer.write(answer % (len(DONE), DONE))
        if is_reset:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, linger)
        writer.close()

    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    url = f"http://{host}:{port}"
    async with server, aiohttp.ClientSession(middlewares=[count]) as http:
        async with transport(url, None if own else http) as relay:
            await relay.get("a")
            expected = "ClientOSError|ClientConnectionReset" if is_reset else "ServerDisconnected"
            with pytest.raises(TransportError, match=expected) as caught:
                await relay.get("a")
            assert len(seen) == 2
            assert caught.value.__context__ is None, "the error of aiohttp carries the API key"
            assert (await relay.get("a")).states
    assert passed == ([] if own else ["GET"] * 3), "the middlewares of the caller are kept"


async def test_a_refused_connection_is_a_transport_error() -> None:
    async with transport("http://127.0.0.1:1") as relay:
        with pytest.raises(TransportError, match="Cannot connect"):
            await relay.get("a")


async def test_any_exception_of_a_middleware_is_a_transport_error(relay: FakeRelay) -> None:
    async def broken(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        raise ZeroDivisionError("broken middleware")

    async with aiohttp.ClientSession(middlewares=[broken]) as http:
        async with transport(relay.url, http) as one:
            with pytest.raises(TransportError, match="ZeroDivisionError: broken middleware"):
                await one.get("a")


async def test_a_proxy_receives_the_url_of_the_relay(
    serve: Callable[[Handler], Awaitable[str]],
) -> None:
    paths: list[str] = []

    async def handler(request: web.BaseRequest) -> web.Response:
        paths.append(request.raw_path)
        return web.Response(body=DONE)

    proxy = await serve(handler)
    base = "http://relay.example"
    async with LumaSession(base, api_key="sk-test", proxy=proxy) as luma:
        assert (await luma.get("a")).is_done
    assert paths == ["http://relay.example/luma/generations/a"]


async def test_an_error_status_has_its_error_class_and_retry_after(
    serve: Callable[[Handler], Awaitable[str]],
) -> None:
    async def handler(request: web.BaseRequest) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": "3"})

    async with transport(await serve(handler)) as relay:
        with pytest.raises(RateLimitedError) as caught:
            await relay.get("a")
    assert caught.value.retry_after == 3.0
