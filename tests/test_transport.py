"""HTTP as it is: a real server on loopback, in real time, for what a mock cannot show."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

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
from luma_async.testing import FakeRelay
from luma_async.transport import Transport

DONE = b'{"id":"a","state":"completed","video":{"url":"https://cdn.example/a.mp4"}}'
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Handler], Awaitable[str]]]:
    """Yield what starts a server on loopback and returns its URL."""
    runners: list[web.ServerRunner] = []

    async def start(handler: Handler) -> str:
        runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        return f"http://{host}:{port}"

    yield start
    for runner in runners:
        await runner.cleanup()


def transport(
    url: str,
    http: aiohttp.ClientSession | None = None,
    timeout: float = 5.0,
    max_body: int = Limits().max_body,
) -> Transport:
    return Transport(
        url, "sk-test", http=http, request_timeout=timeout, max_body=max_body, proxy=None
    )


async def test_a_request_says_what_the_documents_ask_for(
    serve: Callable[[Handler], Awaitable[str]],
) -> None:
    seen: list[tuple[str, str, dict[str, str], bytes]] = []

    async def handler(request: web.BaseRequest) -> web.Response:
        seen.append((request.method, request.raw_path, dict(request.headers), await request.read()))
        return web.Response(body=b"[]")

    async with transport(f"{await serve(handler)}/pro") as relay:
        await relay.get("a/b ü?")
        await relay.get_many(["a", "b"])
    (get, get_path, headers, nothing), (post, post_path, other, body) = seen
    assert (get, get_path, nothing) == ("GET", "/pro/luma/generations/a%2Fb%20%C3%BC%3F", b"")
    assert (post, post_path, body) == ("POST", "/pro/luma/tasks", b'{"ids":["a","b"]}')
    for said in (headers, other):
        assert said["Authorization"] == "Bearer sk-test"
        assert said["Accept"] == said["Content-Type"] == "application/json"
        assert said["Accept-Encoding"] == "gzip, deflate"
        assert said["User-Agent"].startswith("luma-async/")
        assert "Cookie" not in said


async def test_an_empty_answer_is_no_crash(serve: Callable[[Handler], Awaitable[str]]) -> None:
    async def handler(request: web.BaseRequest) -> web.Response:
        return web.Response()

    async with transport(await serve(handler)) as relay:
        with pytest.raises(DecodeError, match="empty body"):
            await relay.get("a")


async def test_a_redirect_is_not_followed_and_named(
    serve: Callable[[Handler], Awaitable[str]],
) -> None:
    asked: list[str] = []

    async def handler(request: web.BaseRequest) -> web.Response:
        asked.append(request.path)
        raise web.HTTPFound("https://elsewhere.example/luma")

    async with transport(await serve(handler)) as relay:
        with pytest.raises(NoSuchRouteError, match="https://elsewhere.example/luma"):
            await relay.get_many(["a", "b"])
    assert asked == ["/luma/tasks"]


async def test_a_relay_that_does_not_answer_is_a_request_timeout(
    serve: Callable[[Handler], Awaitable[str]],
) -> None:
    async def handler(request: web.BaseRequest) -> web.Response:
        await asyncio.sleep(60.0)
        return web.Response()

    async with transport(await serve(handler), timeout=0.05) as relay:
        with pytest.raises(RequestTimeout, match=r"no answer within 0\.05 s"):
            await relay.get("a")


async def test_a_relay_that_drips_is_a_request_timeout(
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
async def test_a_body_above_the_cap_is_not_read_compressed_or_not(
    serve: Callable[[Handler], Awaitable[str]], encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    longest = Limits().max_body
    whole, over = (DONE + b" " * (size - len(DONE)) for size in (longest, longest + 1))
    bodies = iter([whole, over])

    async def handler(request: web.BaseRequest) -> web.Response:
        return web.Response(body=pack(next(bodies)), headers={"Content-Encoding": encoding})

    async with transport(await serve(handler)) as relay:
        assert list((await relay.get("a")).states) == ["a"]
        with pytest.raises(DecodeError, match=r"longer than 8388608 bytes; .* Limits\.max_body$"):
            await relay.get("a")


async def test_the_cap_is_the_users_to_set(serve: Callable[[Handler], Awaitable[str]]) -> None:
    async def handler(request: web.BaseRequest) -> web.Response:
        return web.Response(body=DONE)

    url = await serve(handler)
    async with LumaSession(url, api_key="sk-test", limits=Limits(max_body=len(DONE))) as luma:
        assert (await luma.get("a")).is_done
    limits = Limits(max_body=len(DONE) - 1, max_rate=100.0)
    async with LumaSession(url, api_key="sk-test", limits=limits, request_timeout=1.0) as luma:
        with pytest.raises(DecodeError, match=f"longer than {len(DONE) - 1} bytes"):
            await luma.get("a")


async def test_a_callers_session_that_decompresses_nothing_reads_compressed_answers(
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
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8bno",
    ],
    ids=["closed", "no HTTP", "cut", "bad chunk", "bad gzip"],
)
async def test_what_is_no_whole_answer_is_a_transport_error(answer: bytes) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    async with server, transport(f"http://{host}:{port}") as relay:
        with pytest.raises(TransportError) as caught:
            await relay.get_many(["a", "b"])
    assert caught.value.__context__ is None, "aiohttp's own error carries the key"


async def test_a_get_that_a_dead_connection_swallowed_is_not_sent_again_unseen() -> None:
    seen: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                seen.append(await reader.readuntil(b"\r\n\r\n"))
                if len(seen) == 2:
                    break
                answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b"
                writer.write(answer % (len(DONE), DONE))
        writer.close()

    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    async with server, transport(f"http://{host}:{port}") as relay:
        await relay.get("a")
        with pytest.raises(TransportError, match="ServerDisconnected") as caught:
            await relay.get("a")
        assert len(seen) == 2
        assert caught.value.__context__ is None, "aiohttp's own error carries the key"
        assert (await relay.get("a")).states


async def test_nobody_there_is_a_transport_error() -> None:
    async with transport("http://127.0.0.1:1") as relay:
        with pytest.raises(TransportError, match="Cannot connect"):
            await relay.get("a")


async def test_whatever_a_callers_middleware_raises_is_a_transport_error(relay: FakeRelay) -> None:
    async def broken(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        raise ZeroDivisionError("broken middleware")

    async with aiohttp.ClientSession(middlewares=[broken]) as http:
        async with transport(relay.url, http) as one:
            with pytest.raises(TransportError, match="ZeroDivisionError: broken middleware"):
                await one.get("a")


async def test_a_proxy_is_asked_in_the_relays_name(
    serve: Callable[[Handler], Awaitable[str]],
) -> None:
    asked: list[str] = []

    async def handler(request: web.BaseRequest) -> web.Response:
        asked.append(request.raw_path)
        return web.Response(body=DONE)

    proxy = await serve(handler)
    base = "http://relay.example"
    async with LumaSession(base, api_key="sk-test", proxy=proxy) as luma:
        assert (await luma.get("a")).is_done
    assert asked == ["http://relay.example/luma/generations/a"]


async def test_a_status_is_read_from_the_answer_and_not_from_an_exception(
    serve: Callable[[Handler], Awaitable[str]],
) -> None:
    async def handler(request: web.BaseRequest) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": "3"})

    async with transport(await serve(handler)) as relay:
        with pytest.raises(RateLimitedError) as caught:
            await relay.get("a")
    assert caught.value.retry_after == 3.0
