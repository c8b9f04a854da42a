"""The hosts of `python -m tests.bench.hosts`: how each answers, and what becomes of the file.

The error responses are those of tests/downloads/host_samples.py, after the public documentation of
S3, R2, GCS, Azure, CloudFront, OSS, COS, Qiniu, Cloudflare and nginx.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web
from yarl import URL

from luma_async.downloads.host_errors import Meaning
from luma_async.testing import media
from tests.downloads.host_samples import SAMPLES, Sample

SAVED = "right bytes"
LATE = 20.0  # seconds until the file of a task is there
PAGE = 5.0  # seconds until a page with status 200 has passed
BODY = media.video("a")
OTHER = BODY[:32] + BODY[:31:-1]  # another video of the same length
TAG = '"one"'
KEY = {"Authorization": "Bearer sk-fake"}
Answer = Callable[["Host", web.BaseRequest], Awaitable[web.StreamResponse | None]]


@dataclass
class Case:
    """One host: how it answers for the first link, and what becomes of the file.

    An answer of None is the file. `part` is a partial file with its validator that is there before.
    """

    host: str
    says: str
    answer: Answer
    expected: str = SAVED
    asks_relay: int = 0
    part: tuple[bytes, str | None, int | None] | None = None
    body: bytes = BODY
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    link: str = "/v.mp4"
    repeats_link: bool = False


class Host:
    """A host of videos on loopback, of one case."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.url = ""
        self.requests = 0
        self.began = asyncio.get_running_loop().time()

    @property
    def age(self) -> float:
        return asyncio.get_running_loop().time() - self.began

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests += 1
        answered = None
        if request.path == URL(self.case.link).path:
            answered = await self.case.answer(self, request)
        return await self.send_file(request) if answered is None else answered

    async def send_file(
        self, request: web.BaseRequest, cut: int | None = None, *, tag: str | None = TAG,
        **changed: str,
    ) -> web.StreamResponse:  # fmt: skip
        """Send the file, or the rest of it; close the connection after `cut` bytes."""
        body, start = self.case.body, 0
        if request.headers.get("If-Range", tag) == tag:
            start = int(request.headers.get("Range", "bytes=0-")[6:-1])
        headers = {"Content-Type": "video/mp4"} | ({"ETag": tag} if tag else {})
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        headers |= {name.replace("_", "-"): value for name, value in changed.items()}
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        if "Transfer-Encoding" not in headers:
            response.content_length = len(body) - start
        else:
            del response.headers["Transfer-Encoding"]
            response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(body[start:][:cut])
        if cut is not None:
            await asyncio.sleep(0.01)
            assert request.transport
            request.transport.close()
        return response


def response(sample: Sample) -> web.Response:
    headers = {"Content-Type": sample.kind, **sample.headers}
    return web.Response(status=sample.status, body=sample.data, headers=headers)


def plain(status: int, body: bytes = b"", **headers: str) -> Answer:
    """Answer always with this."""

    async def answer(host: Host, request: web.BaseRequest) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=body, headers=named)

    return answer


def at_first(answer: Answer, seconds: float = LATE) -> Answer:
    """Answer with this for some seconds, then with the file."""

    async def late(host: Host, request: web.BaseRequest) -> web.StreamResponse | None:
        return await answer(host, request) if host.age < seconds else None

    return late


def once(answer: Answer) -> Answer:
    """Answer with this to the first request, then with the file."""

    async def first(host: Host, request: web.BaseRequest) -> web.StreamResponse | None:
        return await answer(host, request) if host.requests == 1 else None

    return first


def sent(cut: int | None = None, *, tag: str | None = TAG, **headers: str) -> Answer:
    """Send the file, in this way."""

    async def send(host: Host, request: web.BaseRequest) -> web.StreamResponse:
        return await host.send_file(request, cut, tag=tag, **headers)

    return send


def without_length(cut: int | None = None) -> Answer:
    """Send the file until the connection is closed, after `cut` bytes at the latest."""

    async def send(host: Host, request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport
        head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
        request.transport.write(head + host.case.body[:cut])
        request.transport.close()
        return web.Response()

    return send


async def nothing(host: Host, request: web.BaseRequest) -> None:
    """Answer with the file."""


async def with_key(host: Host, request: web.BaseRequest) -> web.StreamResponse | None:
    """Answer with the file to a request with the key."""
    is_allowed = request.headers.get("Authorization") == KEY["Authorization"]
    return None if is_allowed else web.Response(status=401)


def of_sample(sample: Sample) -> Case:
    """Return the case of an error response: for ever, or for some seconds if it may pass."""
    host, _, says = sample.name.partition(": ")
    code = f"{sample.status}{f' {sample.code}' if sample.code else ''}"
    late = PAGE if sample.status == 200 else LATE

    async def answer(_: Host, request: web.BaseRequest) -> web.StreamResponse:
        return response(sample)

    cases = {
        Meaning.EXPIRED: Case("", "", answer, asks_relay=1),
        Meaning.NOT_YET: Case("", "", at_first(answer, late)),
        Meaning.NEEDS_KEY: Case(
            "", "", answer, "error: pass headers and header_hosts", 1, repeats_link=True
        ),
        Meaning.UNAVAILABLE: Case("", "", once(answer)),
        Meaning.FINAL: Case("", "", answer, "error: ask the relay's operator"),
    }
    case = cases[sample.meaning]
    lasts = f", for {late:g} s" if sample.meaning is Meaning.NOT_YET else ""
    case.host, case.says = host, f"{says or 'an error'}: {code}{lasts}"
    return case


def not_a_video(says: str, body: bytes) -> Case:
    answer = plain(200, body, Content_Type="video/mp4")
    later = "error: try again in some minutes"
    return Case("any host", says, answer, later, asks_relay=1, repeats_link=True)


def wrong_range(says: str, **headers: str) -> Case:
    async def answer(host: Host, request: web.BaseRequest) -> web.StreamResponse | None:
        if "Range" not in request.headers:
            return None
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=206, body=b"x" * 900, headers=named)

    return Case("any host", f"206 {says}", answer, part=(BODY[:500], TAG, len(BODY)))


LENGTH = len(BODY)
REST = f"bytes 500-{LENGTH - 1}/{LENGTH}"
ANY = (
    Case("any host", "the file", nothing),
    Case("any host", "404, for ever; the relay has a new link", plain(404), asks_relay=1),
    Case(
        "any host", "404, for ever; the relay repeats the link", plain(404),
        "error: try again in some minutes", 1, repeats_link=True,
    ),
    Case("any host", "a redirect to the file", once(plain(302, Location="/other.mp4"))),
    Case(
        "any host", "a redirect to 169.254.169.254", plain(302, Location="http://169.254.169.254/"),
        "error: if that is intended, name the host in allow_hosts",
    ),
    Case("a relay", "the file, to requests with its key", with_key, headers=KEY),
    *(
        Case("any host", f"the file as {kind}", sent(Content_Type=kind))
        for kind in ("text/plain", "application/octet-stream", "binary/octet-stream", "text/html")
    ),
    not_a_video("JSON as video/mp4", b'{"error": "busy"}'),
    not_a_video("problem+json as video/mp4", b'{"type": "about:blank", "status": 503}'),
    not_a_video("a page as video/mp4", b"<!DOCTYPE html><html></html>"),
    not_a_video("PNG as video/mp4", b"\x89PNG\r\n\x1a\n" + bytes(900)),
    not_a_video("nothing as video/mp4", b""),
    Case(
        "any host", f"a page with status 200, for {PAGE:g} s",
        at_first(plain(200, b"<html>"), PAGE),
    ),
    *(
        Case("any host", f"the file with Content-Encoding: {name or 'a blank'}",
             sent(Content_Encoding=name))
        for name in ("aws-chunked", "UTF-8", "Identity", "")
    ),
    Case(
        "any host", "the file with Content-Encoding: gzip", sent(Content_Encoding="gzip"),
        "error: ask the relay's operator",
    ),
    Case("any host", "the file in chunks, without its length", sent(Transfer_Encoding="chunked")),
    Case("any host", "the file until the connection is closed", without_length()),
    Case("any host", "the same, cut", once(without_length(5000))),
    Case("any host", "the file, cut; ETag", once(sent(1000))),
    Case("any host", "the file, cut; no ETag, no date", once(sent(1000, tag=None))),
    Case("any host", "the file, cut; a weak ETag", once(sent(1000, tag='W/"one"'))),
    Case(
        "any host", "another file of equal length than the partial file; no ETag, no date",
        sent(tag=None), part=(BODY[:500], None, LENGTH), body=OTHER,
    ),
    Case(
        "any host", "another file of equal length than the partial file; ETag", nothing,
        part=(BODY[:500], '"zero"', LENGTH), body=OTHER,
    ),
    wrong_range("without Content-Range"),
    wrong_range("with another range", Content_Range=f"bytes 600-{LENGTH - 1}/{LENGTH}"),
    wrong_range("from the start", Content_Range=f"bytes 0-{LENGTH - 1}/{LENGTH}"),
    wrong_range("of another version", Content_Range=REST, ETag='"two"'),
    wrong_range("multipart/byteranges", Content_Type="multipart/byteranges; boundary=x"),
    Case(
        "any host", "416 to the rest of a partial file", once(plain(416)),
        part=(BODY[:500], TAG, LENGTH),
    ),
    Case(
        "any host", "nothing: the partial file is complete", plain(500), part=(BODY, None, LENGTH)
    ),
    Case(
        "any host", "429 with Retry-After, once", once(plain(429, Retry_After="3")),
    ),
    Case(
        "CloudFront", "expired link, by its query: 403 AccessDenied",
        plain(403, b"<Error><Code>AccessDenied</Code></Error>"), asks_relay=1,
        link="/v.mp4?Expires=1700000000&Signature=x&Key-Pair-Id=K",
    ),
    Case(
        "an address", "a link to 127.0.0.1, not allowed", nothing,
        "error: if its address 127.0.0.1 is intended, name the host in allow_hosts",
        link="http://127.1/v.mp4",
    ),
)  # fmt: skip
CASES = (*ANY, *map(of_sample, SAMPLES))
