"""Content-Encoding: what is decoded, what is refused, and how much work a body can cause.

The hostile bodies come from a real server on loopback. Decoders are counted, not seconds: a body of
many empty members makes a decoder for each, and that is what stopped the event loop.
"""

import asyncio
import gzip
import importlib
import random
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from itertools import count
from typing import Any, NamedTuple

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luma_async import DecodeError, Limits, TransportError
from luma_async.protocol.decompression import MAX_MEMBERS, BadEncoding, Decompressor
from luma_async.transport import Transport

DONE = b'{"id":"a","state":"completed","video":{"url":"https://cdn.example/a.mp4"}}'
LIMIT = 2**20
PIECE = 2000  # bytes in a chunk of HTTP: below the 1024 members of a call that aiohttp allows


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


PACKED: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-Gzip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "deflate without its header": ("deflate", raw_deflate),
    "identity": ("identity", bytes),
    "unknown": ("utf-8", bytes),
    "none": ("", bytes),
}


def decoded(encoding: str, body: bytes, size: int = PIECE, limit: int = LIMIT) -> bytes:
    decompressor = Decompressor(encoding)
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    found = b"".join([decompressor.decompress(piece, limit) for piece in pieces])
    decompressor.finish()
    return found


@pytest.mark.parametrize("name", PACKED)
@given(rest=st.binary(max_size=200), size=st.integers(min_value=1, max_value=300))
def test_a_body_is_decoded_in_pieces_of_any_size(name: str, rest: bytes, size: int) -> None:
    encoding, pack = PACKED[name]
    body = b"[" + rest
    assert decoded(encoding, pack(body), size) == body


@pytest.mark.parametrize("declared", ["", "identity", "gzip", "deflate", "br", "zstd", "utf-8"])
@pytest.mark.parametrize("plain", [b'[{"id": "a"}]', b'{"id": "a"}'])
def test_the_first_byte_counts_more_than_the_header(declared: str, plain: bytes) -> None:
    assert decoded(declared, plain) == plain
    assert decoded(declared, gzip.compress(plain)) == plain


@pytest.mark.parametrize(
    ("declared", "body", "mislabelled"),
    [
        ("gzip", b"[]", True),
        ("deflate", b"{}", True),
        ("br", b"[]", True),
        ("", gzip.compress(b"[]", mtime=0), True),
        ("deflate", gzip.compress(b"[]", mtime=0), True),
        ("gzip", gzip.compress(b"[]", mtime=0), False),
        ("x-gzip", gzip.compress(b"[]", mtime=0), False),
        ("deflate", zlib.compress(b"[]"), False),
        ("deflate", raw_deflate(b"[]"), False),
        ("", b"[]", False),
    ],
)
def test_a_header_that_does_not_fit_is_noticed(
    declared: str, body: bytes, mislabelled: bool
) -> None:
    decompressor = Decompressor(declared)
    decompressor.decompress(body, LIMIT)
    assert decompressor.is_mislabelled is mislabelled


@pytest.mark.parametrize("size", [1, 7, PIECE])
@pytest.mark.parametrize("name", ["gzip", "deflate"])
def test_a_few_members_are_one_body_and_more_are_refused(name: str, size: int) -> None:
    encoding, pack = PACKED[name]
    assert decoded(encoding, pack(b"ab") * MAX_MEMBERS, size) == b"ab" * MAX_MEMBERS
    with pytest.raises(BadEncoding, match=f"^cannot decode {name}: more than 16 members$"):
        decoded(encoding, pack(b"ab") * (MAX_MEMBERS + 1), size)


@pytest.mark.parametrize("name", ["gzip", "deflate", "deflate without its header"])
def test_no_more_is_decoded_than_the_limit(name: str) -> None:
    encoding, pack = PACKED[name]
    body = pack(b" " * 5000) * 2
    assert Decompressor(encoding).decompress(body, 7000) == b" " * 7000
    uneven = pack(b" " * 1000) + pack(b" " * 5000) + pack(b" " * 3000)
    assert Decompressor(encoding).decompress(uneven, 7000) == b" " * 7000


@pytest.mark.parametrize("name", ["gzip", "deflate"])
def test_a_body_that_is_cut_short_or_of_another_kind_is_refused(name: str) -> None:
    encoding, pack = PACKED[name]
    with pytest.raises(BadEncoding, match=f"^cannot decode {name}: the body is cut short$"):
        decoded(encoding, pack(DONE)[:-1])
    with pytest.raises(BadEncoding, match="^cannot decode gzip: Error -3 while decompressing"):
        decoded(encoding, b"\x1f\x8f is not the beginning of a member")


@pytest.mark.parametrize("name", ["gzip", "x-gzip", "deflate", "deflate without its header"])
def test_a_body_may_repeat_what_was_sent_32_kib_before(name: str) -> None:
    encoding, pack = PACKED[name]
    body = b"[" + random.Random(1).randbytes(2**15 - 300)
    assert decoded(encoding, pack(body * 2)) == body * 2


def test_all_members_of_a_body_are_of_one_kind() -> None:
    with pytest.raises(BadEncoding, match="^cannot decode gzip: Error -3 while decompressing"):
        decoded("gzip", gzip.compress(b"[") + zlib.compress(b"]"))


def test_raw_deflate_is_recognized_by_its_first_byte() -> None:
    stored_with_padding = b"\x09\x02\x00\xfd\xff[]"
    assert decoded("deflate", stored_with_padding) == b"[]"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_an_empty_body_needs_no_member(encoding: str) -> None:
    assert decoded(encoding, b"") == b""


class Hostile(NamedTuple):
    """A body of many empty members, and what aiohttp would decode it with."""

    encoding: str
    member: bytes
    module: str
    decoder: str
    most: int
    remedy: str = ""


ZSTD = "aiohttp.compression_utils"
INSTALL_BROTLI, INSTALL_ZSTD = "pip install Brotli", "pip install backports.zstd"
HOSTILE = {
    "gzip members": Hostile("gzip", gzip.compress(b"", mtime=0), "zlib", "decompressobj", 16),
    "zlib streams": Hostile("deflate", zlib.compress(b""), "zlib", "decompressobj", 16),
    "raw deflate": Hostile("deflate", raw_deflate(b""), "zlib", "decompressobj", 16),
    "zstd frames": Hostile(
        "zstd", b"\x28\xb5\x2f\xfd\x20\x00\x01\x00\x00", ZSTD, "ZstdDecompressor", 0, INSTALL_ZSTD
    ),
    "zstd skippable frames": Hostile(
        "zstd", b"\x50\x2a\x4d\x18\x00\x00\x00\x00", ZSTD, "ZstdDecompressor", 0, INSTALL_ZSTD
    ),
    "br metadata blocks": Hostile("br", b"\x06", "brotli", "Decompressor", 0, INSTALL_BROTLI),
}
Send = Callable[[str, AsyncIterator[bytes]], Awaitable[str]]


async def pieces(member: bytes, members: int) -> AsyncIterator[bytes]:
    body = member * members
    for at in range(0, len(body), PIECE):
        yield body[at : at + PIECE]


@pytest.fixture
async def send() -> AsyncIterator[Send]:
    """Yield what starts a server that answers one request with such a body, and returns its URL."""
    servers: list[asyncio.Server] = []

    async def start(encoding: str, body: AsyncIterator[bytes]) -> str:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError):
                await reader.readuntil(b"\r\n\r\n")
                head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\n"
                writer.write(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
                async for piece in body:
                    writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    await writer.drain()
                writer.write(b"0\r\n\r\n")
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        servers.append(server)
        host, port = server.sockets[0].getsockname()[:2]
        return f"http://{host}:{port}"

    yield start
    for server in servers:
        server.close()
        await server.wait_closed()


def transport(url: str, http: aiohttp.ClientSession | None = None) -> Transport:
    limit = Limits().max_body
    return Transport(url, "sk-test", http=http, request_timeout=30.0, max_body=limit, proxy=None)


@pytest.mark.parametrize("members", [20_000, 40_000])
@pytest.mark.parametrize("own", [True, False], ids=["own session", "the caller's session"])
@pytest.mark.parametrize("name", HOSTILE)
async def test_empty_members_cost_few_decoders_however_many_they_are(
    name: str, own: bool, members: int, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = HOSTILE[name]
    try:
        module: Any = importlib.import_module(hostile.module)
        original = getattr(module, hostile.decoder)
    except (ModuleNotFoundError, AttributeError):
        pytest.skip(f"{hostile.encoding}: {hostile.remedy}")
    made = count()

    def counted(*arguments: Any, **options: Any) -> Any:
        next(made)
        return original(*arguments, **options)

    monkeypatch.setattr(module, hostile.decoder, counted)
    url = await send(hostile.encoding, pieces(hostile.member, members))
    async with aiohttp.ClientSession() as http:
        async with transport(url, None if own else http) as relay:
            with pytest.raises(TransportError, match="more than 16 members|and only gzip, deflate"):
                await relay.get("a")
    assert next(made) == hostile.most


async def test_empty_blocks_without_end_are_not_read_beyond_the_cap(send: Send) -> None:
    """They decode to nothing: only the bytes that came can be counted."""
    sent = 0

    async def blocks() -> AsyncIterator[bytes]:
        nonlocal sent
        yield zlib.compress(b"")[:2]
        while True:
            sent += 20_000
            yield b"\0\0\0\xff\xff" * 4000

    async with transport(await send("deflate", blocks())) as relay:
        with pytest.raises(DecodeError, match="longer than 8388608 bytes"):
            await relay.get("a")
    assert sent < 4 * Limits().max_body


@pytest.mark.parametrize("encoding", ["br", "zstd"])
async def test_an_encoding_that_was_not_accepted_is_named_with_a_remedy(
    encoding: str, send: Send
) -> None:
    async with transport(await send(encoding, pieces(b"any", 1))) as relay:
        with pytest.raises(
            TransportError, match="check the proxy in front of the relay$"
        ) as caught:
            await relay.get_many(["a", "b"])
    assert f"compressed with {encoding}" in str(caught.value)
    assert caught.value.__context__ is None, "another error may carry the key"
