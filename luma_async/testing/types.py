"""What a relay is told to play, and what it was asked: frozen records."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

Ends = Literal["completed", "failed", "never"]
Stage = Literal["pending", "processing", "without link", "completed", "failed"]
Breakage = Literal[
    "reset",
    "half_closed",
    "truncated",
    "drip",
    "black_hole",
    "garbage",
    "wrong_length",
    "gzip_bomb",
]
Fault = Literal[Breakage, "storm", "throttled", "latency", "not_json", "stale", "strangers"]

BREAKAGES: tuple[Breakage, ...] = get_args(Breakage)

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")


@dataclass(frozen=True, slots=True)
class Task:
    """One task of a `FakeRelay` and its whole fate; times are seconds of the relay's event loop.

    `number` is its place in the order of submission (the integer id in the relay's own table). It
    is `pending` from `submitted_at`, `processing` from `processing_at`, and ends at `ends_at`
    (None: never). The relay knows it from `visible_at` on. A completed task has its link
    `link_after` seconds after its end. `created` is unix seconds.
    """

    id: str
    number: int
    created: float
    submitted_at: float
    visible_at: float
    processing_at: float
    ends_at: float | None
    ends: Ends
    link_after: float
    failure_reason: str
    prompt: str
    aspect_ratio: str

    def stage(self, now: float) -> Stage:
        """Tell what the task looks like at `now`: its state, or "without link" once completed."""
        if self.ends_at is None or now < self.ends_at:
            return "pending" if now < self.processing_at else "processing"
        if self.ends == "failed":
            return "failed"
        return "completed" if now >= self.ends_at + self.link_after else "without link"

    def unix(self, at: float | None) -> float:
        """Turn a time of the loop into unix seconds; 0, the relays' word for "not yet", if None."""
        return 0.0 if at is None else self.created + at - self.submitted_at


def _json_headers() -> Mapping[str, str]:
    return {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, verbatim: status, body and headers as they go out, `delay` seconds from now.

    Without a Content-Type in `headers` none is sent. Content-Length, Date and Server are added.
    `breakage` is how the answer is broken on its way: "reset" resets the connection instead,
    "half_closed" ends the relay's side of it without a byte, "truncated" closes it after half of
    the body, "drip" sends a byte of the body every 5 seconds, "black_hole" sends nothing ever,
    "garbage" sends what is not HTTP, "wrong_length" says a Content-Length of half the body, and
    "gzip_bomb" is a 200 with 16 KiB that inflate to 16 MiB of spaces instead of the body. Where a
    body is broken, one shorter than 64 bytes is sent with spaces before it.
    ValueError or TypeError for what HTTP cannot say.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=_json_headers)
    delay: float = 0.0
    breakage: Breakage | None = None

    def __post_init__(self) -> None:
        if type(self.status) is not int or not 200 <= self.status <= 599:
            raise ValueError(f"status is {self.status!r}: give an integer from 200 to 599")
        if not isinstance(self.body, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"body is a {type(self.body).__name__}: encode it to bytes")
        for name, value in self.headers.items():
            _check_header(name, value)
        seconds("delay", self.delay)
        if self.breakage is not None and self.breakage not in BREAKAGES:
            known = ", ".join(BREAKAGES)
            raise ValueError(f"breakage is {self.breakage!r}: say None or one of {known}")


class IncomingRequest(NamedTuple):
    """One request as it comes from the server; the path is as sent, without the query."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it arrived: `at` in seconds of the relay's loop, `path` as sent.

    `ids` are the task ids it asked about, in its own order and with its duplicates, empty if they
    could not be read; of a submission, the id that it was given. `status` is what it was answered;
    None while it was not, if the client left before, or if no status line was sent. `fault` is what
    the relay's dice or the scripted reply's breakage did to it, known from its arrival on.
    """

    at: float
    method: str
    path: str
    ids: tuple[str, ...]
    status: int | None = None
    fault: Fault | None = None


def _check_header(name: object, value: object) -> None:
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError(f"header {name!r} is {value!r}: give both as text")
    if not name.isascii() or not name.isprintable() or not name or set(value) & set("\r\n\0"):
        raise ValueError(f"header {name!r} is {value!r}: leave out what ends a header line")


def seconds(name: str, value: object) -> float:
    """Read a length of time, in seconds; TypeError or ValueError if it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is {value!r}: give it as a number of seconds")
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} is {value!r}: give it as finite seconds, 0 or more")
    return float(value)


def text(name: str, value: object) -> str:
    """Read a text; TypeError if it is none."""
    if not isinstance(value, str):
        raise TypeError(f"{name} is a {type(value).__name__}: give it as text")
    return value


def check_key(api_key: object) -> str:
    """Read an API key; ValueError, which never repeats it, if no header can carry it."""
    if not isinstance(api_key, str):
        raise TypeError(f"api_key is a {type(api_key).__name__}: give it as text")
    if not api_key or not api_key.isascii() or not api_key.isprintable() or " " in api_key:
        raise ValueError("api_key is empty or has signs no key has: give plain ASCII, no spaces")
    return api_key


def check_port(port: object) -> int:
    """Read a TCP port; ValueError if it is none."""
    if type(port) is not int or not 0 <= port <= 65535:
        raise ValueError(f"port is {port!r}: give an integer from 0 (a free one) to 65535")
    return port


def check_prefix(prefix: object) -> str:
    """Read the path before `/luma`; ValueError if it is not empty and no plain path either."""
    if not isinstance(prefix, str):
        raise TypeError(f"path_prefix is a {type(prefix).__name__}: give it as text")
    if prefix and not _PREFIX.fullmatch(prefix):
        raise ValueError(f"path_prefix is {prefix!r}: give plain segments such as /pro")
    return prefix
