"""The files behind the links of a FakeRelay: a video and an image for each task.

They are made from the id of the task: each task has its own bytes, which are the same in each run.
"""

import re
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote

from luma_async.testing.types import Reply

Kind = Literal["mp4", "svg"]

_CLIP = Path(__file__).with_name("clip.mp4")
_CONTENT_TYPES: dict[Kind, str] = {"mp4": "video/mp4", "svg": "image/svg+xml"}
_ROUTE = re.compile(r"/media/([^/]+)\.(mp4|svg)")
_SINGLE_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII | re.IGNORECASE)
_WIDTH, _HEIGHT = 1360, 752  # pixels


def media_url(base: str, task_id: str, kind: Kind = "mp4") -> str:
    """Return the URL of a file of a task, at the relay with this base URL."""
    return f"{base}/media/{quote(task_id, safe='')}.{kind}"


def parse_route(route: str) -> tuple[str, Kind] | None:
    """Return the task id and the kind of file for a path below the base URL; None for others."""
    found = _ROUTE.fullmatch(route)
    if found is None:
        return None
    return unquote(found[1]), "mp4" if found[2] == "mp4" else "svg"


def video(task_id: str) -> bytes:
    """Return five seconds of H.264 in MP4; a box that players skip is different for each task."""
    digest = sha256(task_id.encode(errors="surrogatepass")).digest()
    return _clip() + (8 + len(digest)).to_bytes(4) + b"free" + digest


@cache
def _clip() -> bytes:
    return _CLIP.read_bytes()


def picture(task_id: str) -> bytes:
    """Return an SVG image of one colour; the id is not in it."""
    digest = sha256(task_id.encode(errors="surrogatepass")).hexdigest()
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}">'
        f'<rect width="100%" height="100%" fill="#{digest[:6]}"/></svg>'
    ).encode()


def media_reply(task_id: str, kind: Kind, method: str, headers: Mapping[str, str]) -> Reply:
    """Return the reply to a GET or HEAD of a file, by the headers of the request (RFC 9110).

    A request for one range gets that range; a request for several ranges gets the whole file. The
    ETag depends on the bytes of the file.
    """
    body = video(task_id) if kind == "mp4" else picture(task_id)
    etag = f'"{sha256(body).hexdigest()[:32]}"'
    fields = {"Content-Type": _CONTENT_TYPES[kind], "ETag": etag, "Accept-Ranges": "bytes"}
    if headers.get("If-None-Match", "") in (etag, "*"):
        return Reply(304, headers=fields)
    wanted = parse_range(headers.get("Range", ""), len(body)) if method == "GET" else None
    if wanted is None or headers.get("If-Range", etag) != etag:
        return Reply(200, body, fields)
    if not wanted:
        return Reply(416, headers={"Content-Range": f"bytes */{len(body)}"})
    content_range = f"bytes {wanted.start}-{wanted.stop - 1}/{len(body)}"
    return Reply(206, body[wanted.start : wanted.stop], fields | {"Content-Range": content_range})


def parse_range(header: str, size: int) -> range | None:
    """Return the bytes that a Range header requests of a file of `size` bytes.

    The range is empty if the requested bytes do not exist. None is the whole file: the header is
    empty, or it is ignored because it is invalid or requests several ranges.
    """
    found = _SINGLE_RANGE.fullmatch(header)
    if found is None or not any(found.groups()):
        return None
    first, last = found.groups()
    if not first:
        return range(max(0, size - int(last)), size)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(size, int(last) + 1) if last else size)
