"""A captured file: one JSON object in each line; the first one names the format."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from luma_async._version import __version__
from luma_async.recording.shapes import Rows

FORMAT = 1


class Head(Struct, frozen=True, kw_only=True):
    """The first line."""

    luma_async_capture: int
    version: str = ""


class Captured(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One captured response, redacted.

    `call` is "get" or "tasks". `asked` is the number of ids in the request, `ids` are those of them
    that the body names, or the first one. `rows` says which rows came.
    """

    call: Literal["get", "tasks"]
    status: int
    headers: dict[str, str]
    body: str
    asked: int = 1
    ids: list[str] = []
    rows: Rows = Rows(0, "unknown")


_head = msgspec.json.Decoder(Head)
_captured = msgspec.json.Decoder(Captured)


def head_line() -> bytes:
    """Return the first line of a file."""
    return msgspec.json.encode({"luma_async_capture": FORMAT, "version": __version__}) + b"\n"


def line(captured: Captured) -> bytes:
    """Return a response as a line."""
    return msgspec.json.encode(captured) + b"\n"


def read_capture(path: str | Path) -> list[Captured]:
    """Read a captured file; OSError if it cannot be read, ValueError if it is none.

    A last line that is cut short is left out.
    """
    lines = Path(path).read_bytes().split(b"\n")
    try:
        head = _head.decode(lines[0])
    except (msgspec.DecodeError, UnicodeDecodeError):
        head = Head(luma_async_capture=0)
    if head.luma_async_capture != FORMAT or not lines[0].startswith(b"{"):
        raise ValueError(f"{path} is no captured file; give one that luma-async capture wrote")
    return list(_responses(path, lines[1:]))


def _responses(path: str | Path, lines: list[bytes]) -> Iterator[Captured]:
    for number, text in enumerate(lines, 2):
        if not text:
            continue
        try:
            yield _captured.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError):
            if number <= len(lines):
                fact = f"line {number} of {path} is no captured response"
                raise ValueError(f"{fact}; capture it again") from None
