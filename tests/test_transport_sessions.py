"""What the requests of a transport share: timeouts, connections, middlewares, encodings."""

import asyncio
import gzip
import json
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from luma_async import (
    BadRequestError,
    DecodeError,
    NoSuchRouteError,
    NotFoundError,
    SessionClosed,
    TransportError,
)
from luma_async.protocol.decompression import Decompressor
from luma_async.protocol.submissions import Submission
from luma_async.testing import FakeRelay
from luma_async.transport import Transport

BASE = "https://relay.example"
DONE = b'{"id":"a","state":"completed","video":{"url":"https://cdn.example/a.mp4"}}'
PENDING = b'{"id":"a","state":"pending"}'
CAT = Submission(user_prompt="a cat")
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], Awaitable[str]]


def transport(
    url: str,
    http: aiohttp.ClientSession | None = None,
    key: str = "sk-test",
    max_body: int = 2**20,
) -> Transport:
    return Transport(url, key, http=http, request_timeout=5.0, max_body=max_body, proxy=None)


async def test_the_session_of_the_caller_stays_open_and_a_closed_one_is_named(
    relay: FakeRelay,
) -> None:
    relay.add("a")
    async with aiohttp.ClientSession() as http:
        async with transport(relay.url, http, relay.api_key) as one:
            await one.get_many(["a"])
        assert not http.closed
        async with transport(relay.url, http, relay.api_key) as one:
            await http.close()
            with pytest.raises(SessionClosed, match="keep it open as long as the LumaSession"):
                await one.get("a")
    unopened = transport(relay.url)
    with pytest.raises(SessionClosed):
        await unopened.get("a")
    with pytest.raises(SessionClosed):
        await transport(relay.url, http, relay.api_key).__aenter__()


async def test_each_request_passes_the_middlewares_of_the_caller(relay: FakeRelay) -> None:
    relay.add("a")
    passed: list[str] = []

    async def count(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        passed.append(f"{request.method} {request.url.path}")
        return await handler(request)

    async with aiohttp.ClientSession(middlewares=[count]) as http:
        async with transport(relay.url, http, relay.api_key) as one:
            await one.get("a")
            await one.get_many(["a"])
            await one.submit(CAT, lambda: None)
    assert passed == [
        "GET /luma/generations/a", "POST /luma/tasks", "POST /luma/generations",
    ]  # fmt: skip


BAD_ENCODINGS = {
    "an encoding that was not accepted": ("br", b"\x0b\x02\x80[]\x03"),
    "gzip that is cut short": ("gzip", gzip.compress(DONE)[:-9]),
    "a plain body that is called gzip": ("gzip", DONE),
    "gzip that is called plain": ("identity", gzip.compress(DONE)),
}


@pytest.mark.parametrize(("encoding", "body"), BAD_ENCODINGS.values(), ids=BAD_ENCODINGS)
async def test_after_a_wrong_content_encoding_no_encoding_is_accepted(
    serve: Serve, encoding: str, body: bytes
) -> None:
    accepted: list[str | None] = []

    async def cut(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = 100
        await response.prepare(request)
        await response.write(b"{")
        assert request.transport
        request.transport.close()
        return response

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        accepted.append(request.headers.get("Accept-Encoding"))
        if len(accepted) == 2:
            return await cut(request)
        if len(accepted) == 3:
            return web.Response(body=body, headers={"Content-Encoding": encoding})
        return web.Response(body=gzip.compress(DONE), headers={"Content-Encoding": "gzip"})

    async with transport(await serve(handler)) as relay:
        for _ in range(5):
            try:
                assert (await relay.get("a")).states
            except TransportError:
                assert len(accepted) in (2, 3), "a connection that breaks is no wrong encoding"
    assert accepted == ["gzip, deflate"] * 3 + ["identity"] * 2


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
async def test_no_more_than_a_byte_above_max_body_is_decoded(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes]
) -> None:
    """However the bytes arrive: here the third chunk decodes to too much."""
    decoded: list[int] = []
    is_decoded = asyncio.Semaphore(0)
    real = Decompressor.decompress

    def counted(self: Decompressor, data: bytes, limit: int) -> bytes:
        part = real(self, data, limit)
        decoded.append(len(part))
        is_decoded.release()
        return part

    monkeypatch.setattr(Decompressor, "decompress", counted)

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        kind = "gzip" if pack is gzip.compress else "deflate"
        response = web.StreamResponse(headers={"Content-Encoding": kind})
        await response.prepare(request)
        for size in (10, 600, 100_000):
            await response.write(pack(b"[" + b" " * (size - 1)))
            await is_decoded.acquire()
        return response

    async with transport(await serve(handler), max_body=1000) as relay:
        with pytest.raises(DecodeError, match="longer than 1000 bytes"):
            await relay.get("a")
    assert sum(decoded) == 1001


@pytest.mark.virtual_time
async def test_a_submission_that_a_mock_answers_counts_as_sent(mocked: Any) -> None:
    mocked.post(f"{BASE}/luma/generations", body=PENDING)
    writes: list[int] = []
    async with transport(BASE) as relay:
        await relay.submit(CAT, lambda: writes.append(1))
    assert writes == [1]


@pytest.mark.parametrize(
    ("message", "about_task"), [("no task abc", True), ("no task abd", False), ("page", False)]
)
async def test_only_a_404_that_names_the_task_is_about_it(
    serve: Serve, message: str, about_task: bool
) -> None:
    async def handler(request: web.BaseRequest) -> web.Response:
        if message == "page":
            return web.Response(status=404, text="abc is not here")
        return web.json_response({"error": {"message": message}}, status=404)

    async with transport(await serve(handler)) as relay:
        with pytest.raises(NotFoundError) as caught:
            await relay.get("abc")
    assert caught.value.about_task is about_task


async def test_a_header_line_of_64_kib_is_accepted() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        policy = b"X: " + b"a" * (2**16 - 1)
        length = b"Content-Length: %d" % len(DONE)
        writer.write(b"HTTP/1.1 200 OK\r\n%b\r\n%b\r\n\r\n%b" % (policy, length, DONE))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, transport(f"http://127.0.0.1:{port}") as relay:
        assert (await relay.get("a")).states


async def test_an_error_without_words_is_its_class(relay: FakeRelay) -> None:
    async def broken(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        raise ZeroDivisionError

    async with aiohttp.ClientSession(middlewares=[broken]) as http:
        async with transport(relay.url, http) as one:
            with pytest.raises(TransportError, match="^ZeroDivisionError$"):
                await one.get("a")


async def test_a_remedy_for_the_base_url_is_not_put_into_the_words_of_a_relay(serve: Serve) -> None:
    """It is meant for a route that does not exist."""
    words = "check the path of the base URL"
    statuses = [400, 404]

    async def handler(request: web.BaseRequest) -> web.Response:
        body = json.dumps({"error": {"message": words}}) if len(statuses) == 2 else "<html>"
        kind = "application/json" if len(statuses) == 2 else "text/html"
        return web.Response(status=statuses.pop(0), text=body, content_type=kind)

    url = await serve(handler)
    async with transport(url) as relay:
        with pytest.raises(BadRequestError) as caught:
            await relay.get_many(["a", "b"])
        assert url not in str(caught.value)
        assert words in str(caught.value)
        with pytest.raises(NoSuchRouteError, match=url):
            await relay.get_many(["a", "b"])
