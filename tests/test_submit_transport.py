"""One submission over real sockets: when its first byte is written, and that it is sent once."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing, suppress

import aiohttp
import pytest

from luma_async import (
    BadRequestError,
    NoSuchRouteError,
    RequestTimeout,
    SubmitUnknown,
    TransportError,
)
from luma_async.protocol.submissions import Submission
from luma_async.session import LumaSession
from luma_async.transport import Transport

TASK = b'{"id":"a","state":"pending"}'
CAT = Submission(user_prompt="a cat")


class RawServer:
    """Records each request, head and body; answers with `response`, or closes without one."""

    def __init__(self, response: bytes | None, *, answers: int = 99) -> None:
        self.requests: list[tuple[bytes, bytes]] = []
        self._serving: list[asyncio.Task[None]] = []
        self.connections = 0
        self.url = ""
        self._response = response
        self._answers = answers

    @asynccontextmanager
    async def listening(self) -> AsyncGenerator["RawServer", None]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()[:2]
        self.url = f"http://{host}:{port}"
        async with server:
            yield self
        for serving in self._serving:
            serving.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        serving = asyncio.current_task()
        assert serving
        self._serving.append(serving)
        with closing(writer), suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                self.requests.append((head, await reader.readexactly(length)))
                if self._response is None or len(self.requests) > self._answers:
                    break
                writer.write(self._response)


def response(status: str, body: bytes = TASK, headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def transport(url: str, http: aiohttp.ClientSession | None = None) -> Transport:
    return Transport(
        url,
        "sk-test",
        http=http,
        request_timeout=5.0,
        submit_timeout=5.0,
        max_body=2**20,
        proxy=None,
    )


async def test_a_submission_is_sent_as_documented() -> None:
    writes: list[int] = []
    async with RawServer(response("201 Created")).listening() as server:
        async with transport(f"{server.url}/pro") as relay:
            submitted = await relay.submit(CAT, lambda: writes.append(len(server.requests)))
    assert submitted.generation.id == "a"
    ((head, body),) = server.requests
    assert head.startswith(b"POST /pro/luma/generations HTTP/1.1\r\n")
    for line in (b"Authorization: Bearer sk-test", b"Content-Type: application/json"):
        assert line in head
    assert json.loads(body) == {"user_prompt": "a cat"}
    assert writes == [0], "reported once, before the relay had anything"


async def test_a_large_image_is_sent_whole() -> None:
    image = f"data:image/png;base64,{'A' * 700_000}"
    async with RawServer(response("200 OK")).listening() as server:
        async with transport(server.url) as relay:
            await relay.submit(Submission(user_prompt="a cat", image_url=image), lambda: None)
    assert json.loads(server.requests[0][1])["image_url"] == image


async def test_a_refusal_that_repeats_the_link_of_an_image_shows_no_signature() -> None:
    link = "https://cdn.example/cat.png?sig=s3cret"
    refusal = {"code": "invalid_image", "message": f"cannot fetch {link}", "data": None}
    answer = response("400 Bad Request", json.dumps(refusal).encode())
    async with RawServer(answer).listening() as server, transport(server.url) as relay:
        with pytest.raises(BadRequestError, match=r"cannot fetch https://cdn\.example/") as caught:
            await relay.submit(Submission(user_prompt="a cat", image_url=link), lambda: None)
    assert "s3cret" not in str(caught.value) + repr(vars(caught.value))


async def test_without_a_connection_nothing_is_reported_as_written() -> None:
    writes: list[int] = []
    async with transport("http://127.0.0.1:1") as relay:
        with pytest.raises(TransportError, match="Cannot connect"):
            await relay.submit(CAT, lambda: writes.append(1))
    assert not writes


async def test_a_connection_that_is_never_accepted_is_not_a_written_request() -> None:
    writes: list[int] = []

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    relay = Transport(
        f"https://127.0.0.1:{port}",
        "sk-test",
        http=None,
        request_timeout=5.0,
        submit_timeout=0.1,
        max_body=2**20,
        proxy=None,
    )
    async with server, relay:
        with pytest.raises(RequestTimeout):
            await relay.submit(CAT, lambda: writes.append(1))
    assert not writes


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
async def test_a_redirect_of_a_submission_is_not_followed(status: str) -> None:
    moved = response(status, b"", "Location: /elsewhere\r\n")
    async with RawServer(moved).listening() as server:
        async with LumaSession(server.url, api_key="k") as luma:
            with pytest.raises(NoSuchRouteError, match="redirect"):
                await luma.create("a cat")
    assert len(server.requests) == 1


async def test_each_submission_has_a_connection_that_was_not_used_before() -> None:
    async with RawServer(response("200 OK")).listening() as server:
        async with LumaSession(server.url, api_key="k") as luma:
            await luma.create("a cat")
            await luma.create("a dog")
    assert (server.connections, len(server.requests)) == (2, 2)
    assert all(b"Connection: close" in head for head, _ in server.requests)


async def test_a_kept_connection_of_the_callers_that_breaks_is_unknown() -> None:
    async with RawServer(response("200 OK"), answers=1).listening() as server:
        async with (
            aiohttp.ClientSession() as http,
            LumaSession(server.url, api_key="k", http=http) as luma,
        ):
            await luma.create("a cat")
            with pytest.raises(SubmitUnknown):
                await luma.create("a dog")
    assert (server.connections, len(server.requests)) == (1, 2)


async def test_a_middleware_that_sends_again_does_not_submit_twice() -> None:
    async def insistent(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        with suppress(aiohttp.ClientError):
            await handler(request)
        return await handler(request)

    async with RawServer(None).listening() as server:
        async with (
            aiohttp.ClientSession(middlewares=[insistent]) as http,
            LumaSession(server.url, api_key="k", http=http) as luma,
        ):
            with pytest.raises(SubmitUnknown):
                await luma.create("a cat")
    assert len(server.requests) == 1


async def test_a_middleware_that_sends_later_does_not_send_a_cancelled_submission() -> None:
    waits, cancelled = asyncio.Event(), asyncio.Event()
    left: list[asyncio.Task[aiohttp.ClientResponse]] = []

    async def patient(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        async def later() -> aiohttp.ClientResponse:
            await cancelled.wait()
            return await handler(request)

        left.append(asyncio.create_task(later()))
        waits.set()
        return await asyncio.shield(left[0])

    async with RawServer(response("200 OK")).listening() as server:
        async with (
            aiohttp.ClientSession(middlewares=[patient]) as http,
            LumaSession(server.url, api_key="k", http=http) as luma,
        ):
            task = asyncio.create_task(luma.create("a cat"))
            await waits.wait()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            cancelled.set()
            with pytest.raises(aiohttp.ClientError):
                await left[0]
    assert server.requests == []


async def test_a_cancelled_submission_is_not_written_later() -> None:
    async with RawServer(response("200 OK")).listening() as server:
        async with transport(server.url) as relay:
            for turns in range(12):
                written = asyncio.Event()
                task = asyncio.create_task(relay.submit(CAT, written.set))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
                before = len(server.requests)
                await asyncio.sleep(0.01)
                assert written.is_set() or len(server.requests) == before


async def test_a_middleware_that_replaces_the_body_does_not_submit_twice() -> None:
    async def signing(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        await request.update_body(b'{"user_prompt":"a cat","signature":"x"}')
        with suppress(aiohttp.ClientError):
            answer = await handler(request)
            if answer.status < 500:
                return answer
        return await handler(request)

    async with RawServer(response("500 Error")).listening() as server:
        async with (
            aiohttp.ClientSession(middlewares=[signing]) as http,
            LumaSession(server.url, api_key="k", http=http) as luma,
        ):
            with pytest.raises(SubmitUnknown):
                await luma.create("a cat")
    assert len(server.requests) == 1
