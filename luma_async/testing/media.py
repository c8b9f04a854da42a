"""The files that a relay's links lead to: a clip and a picture for each id, and parts of them.

All is made from the id, so that each task has bytes of its own, and the same ones in each run.
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
_TYPES: dict[Kind, str] = {"mp4": "video/mp4", "svg": "image/svg+xml"}
_ROUTE = re.compile(r"/media/([^/]+)\.(mp4|svg)")
_ONE_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII | re.IGNORECASE)
_WIDTH, _HEIGHT = 1360, 752


def link(base: str, task_id: str, kind: Kind = "mp4") -> str:
    """Build the URL of a task's file at the relay with this base URL."""
    return f"{base}/media/{quote(task_id, safe='')}.{kind}"


def named(route: str) -> tuple[str, Kind] | None:
    """Tell whose file a path below the base URL names, and which; None where it names none."""
    found = _ROUTE.fullmatch(route)
    if found is None:
        return None
    return unquote(found[1]), "mp4" if found[2] == "mp4" else "svg"


def video(task_id: str) -> bytes:
    """Return five seconds of H.264 in MP4; a box that players skip sets each task's apart."""
    mark = sha256(task_id.encode(errors="surrogatepass")).digest()
    return _clip() + (8 + len(mark)).to_bytes(4) + b"free" + mark


@cache
def _clip() -> bytes:
    return _CLIP.read_bytes()


def picture(task_id: str) -> bytes:
    """Draw a sun over three ridges, as SVG; what the id says is nowhere in it."""
    dice = sha256(task_id.encode(errors="surrogatepass")).digest()
    hue = dice[0] * 360 // 256
    glow = (hue + 30 + dice[1] % 60) % 360
    sun = f'<circle cx="{200 + dice[2] * 4}" cy="{150 + dice[3]}" r="{50 + dice[4] % 60}"'
    ridges = "".join(_ridge(hue, place, *dice[5 + 3 * place : 8 + 3 * place]) for place in range(3))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
        f' width="{_WIDTH}" height="{_HEIGHT}" preserveAspectRatio="xMidYMid slice">'
        '<linearGradient id="sky" x1="0" y1="0" x2="0" y2="1">'
        f'<stop stop-color="hsl({hue},60%,28%)"/>'
        f'<stop offset=".9" stop-color="hsl({glow},85%,74%)"/></linearGradient>'
        f'<path fill="url(#sky)" d="M0 0H{_WIDTH}V{_HEIGHT}H0Z"/>'
        f'{sun} fill="hsl({glow},95%,90%)"/>{ridges}</svg>'
    ).encode()


def _ridge(hue: int, place: int, left: int, middle: int, right: int) -> str:
    top = 420 + 100 * place
    heights = [top - each // 2 for each in (left, middle, right)]
    return (
        f'<path fill="hsl({hue},45%,{30 - 9 * place}%)" d="M0 {heights[0]}'
        f"C340 {heights[1] - 60} 480 {heights[1] + 120} 760 {heights[1]}"
        f'S1180 {heights[2] - 80} {_WIDTH} {heights[2]}V{_HEIGHT}H0Z"/>'
    )


def reply(task_id: str, kind: Kind, method: str, headers: Mapping[str, str]) -> Reply:
    """Answer a GET or HEAD of a task's file, as the request's headers want it (RFC 9110).

    One range is served; of several at once, the whole file is. An ETag is of the file's bytes.
    """
    body = video(task_id) if kind == "mp4" else picture(task_id)
    etag = f'"{sha256(body).hexdigest()[:32]}"'
    told = {"Content-Type": _TYPES[kind], "ETag": etag, "Accept-Ranges": "bytes"}
    if headers.get("If-None-Match", "") in (etag, "*"):
        return Reply(304, headers=told)
    wanted = part(headers.get("Range", ""), len(body)) if method == "GET" else None
    if wanted is None or headers.get("If-Range", etag) != etag:
        return Reply(200, body, told)
    if not wanted:
        return Reply(416, headers={"Content-Range": f"bytes */{len(body)}"})
    place = f"bytes {wanted.start}-{wanted.stop - 1}/{len(body)}"
    return Reply(206, body[wanted.start : wanted.stop], told | {"Content-Range": place})


def part(header: str, size: int) -> range | None:
    """Read a Range header: the bytes it wants, none where it wants what is not there.

    None: all of them, as there is no such header, or it is not to be understood.
    """
    found = _ONE_RANGE.fullmatch(header)
    if found is None or not any(found.groups()):
        return None
    first, last = found.groups()
    if not first:
        return range(max(0, size - int(last)), size)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(size, int(last) + 1) if last else size)
