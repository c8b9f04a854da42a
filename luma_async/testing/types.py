"""Tasks, replies and requests of a FakeRelay, as frozen records; checks of its arguments."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Literal, NamedTuple, get_args

from luma_async import validation as checks

TaskEnd = Literal["completed", "failed", "never"]
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
Loss = Literal[
    "lost_before",
    "lost_after",
    "cut_after",
    "silent_after",
    "gateway_timeout_after",
    "insert_failed_after",
]
Refusal = Literal["saturated", "no_channel", "quota", "moderated", "double_document"]
SubmitFault = Literal[Loss, Refusal]
SubmitShape = Literal["task", "array", "task_id", "data", "data_text"]

BREAKAGES: tuple[Breakage, ...] = get_args(Breakage)

_PATH_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")


@dataclass(frozen=True, slots=True)
class Task:
    """One task of a `FakeRelay`, with its script.

    `number` is its position in the order of submission, from 1: the integer id of its table row.
    The task is pending from `submitted_at`, processing from `processing_at`, and completed or
    failed, as `ends` says, from `ends_at`; None is never. The relay does not know the task before
    `visible_at`. A completed task has its link `link_after` seconds after `ends_at`.

    These times are in seconds of the relay's event loop; `created` is the time of submission in
    unix seconds.
    """

    id: str
    number: int
    created: float
    submitted_at: float
    visible_at: float
    processing_at: float
    ends_at: float | None
    ends: TaskEnd
    link_after: float
    failure_reason: str
    prompt: str
    aspect_ratio: str

    def stage(self, now: float) -> Stage:
        """Return the state at `now`; "without link" is completed, but still without its link."""
        if self.ends_at is None or now < self.ends_at:
            return "pending" if now < self.processing_at else "processing"
        if self.ends == "failed":
            return "failed"
        return "completed" if now >= self.ends_at + self.link_after else "without link"

    def unix(self, at: float | None) -> float:
        """Convert a time of the loop to unix seconds; None to 0, as relays do for "not yet"."""
        return 0.0 if at is None else self.created + at - self.submitted_at


def _json_headers() -> Mapping[str, str]:
    return {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Reply:
    """A scripted response, which a `FakeRelay` sends unchanged.

    `status`, `body` and `headers` are sent as given, `delay` seconds after the request.
    Content-Length, Date and Server are added; no Content-Type is added.

    `breakage` damages the response: "reset" resets the connection instead; "half_closed" closes the
    relay's side of it without a byte; "truncated" closes it after half of the body; "drip" sends
    one byte of the body every 5 seconds; "black_hole" never sends anything; "garbage" sends bytes
    that are not HTTP; "wrong_length" sends a Content-Length of half the body; "gzip_bomb" sends a
    200 with 16 KiB that decompress to 16 MiB of spaces. A body of less than 64 bytes that is to be
    truncated, dripped or sent with a wrong length is filled up with leading spaces.

    Raises ValueError or TypeError for values that HTTP cannot send.
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
            raise ValueError(f"breakage is {self.breakage!r}: give None or one of {known}")


class IncomingRequest(NamedTuple):
    """One HTTP request; `path` is as sent, without the query."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that a `FakeRelay` received: a record of its log.

    `at` is the time of arrival in seconds of the relay's event loop. `path` is as sent, without the
    query. `ids` are the task ids in the request, in its order and with its duplicates, empty if
    they cannot be decoded; for a submission, the id of the task to extend, then the new id.
    `status` is the status of the response, or None: before the response, if the client
    disconnected, or if no status line was sent. `fault` is the fault that was chosen at random, or
    the breakage of a scripted reply, or None; it is set at the arrival. `submit_fault` is the fault
    of a submission, or None.
    """

    at: float
    method: str
    path: str
    ids: tuple[str, ...]
    status: int | None = None
    fault: Fault | None = None
    submit_fault: SubmitFault | None = None


def busiest_second(log: Sequence[Asked]) -> int:
    """Return the largest number of requests within one second, its end excluded."""
    most = first = 0
    for last, record in enumerate(log):
        while record.at - log[first].at >= 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most


def _check_header(name: object, value: object) -> None:
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError(f"header {name!r} is {value!r}: give both as text")
    if not name.isascii() or not name.isprintable() or not name or set(value) & set("\r\n\0"):
        raise ValueError(f"header {name!r} is {value!r}: give a name in ASCII and one line")


def seconds(name: str, value: object) -> float:
    """Read a finite length of time, in seconds; TypeError or ValueError if it is none."""
    number = checks.not_negative(name, value)
    if number == inf:
        raise ValueError(f"{name} is infinite; give seconds")
    return number


def check_key(api_key: object) -> str:
    """Return an API key; raise ValueError, without the key, if it is not valid in a header."""
    key = checks.text("api_key", api_key)
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("api_key is empty or has invalid characters: give plain ASCII, no spaces")
    return key


def check_port(port: object) -> int:
    """Read a TCP port; ValueError if it is none."""
    if type(port) is not int or not 0 <= port <= 65535:
        raise ValueError(f"port is {port!r}: give an integer from 0 (a free one) to 65535")
    return port


def check_prefix(prefix: object) -> str:
    """Return the path before `/luma`, which may be empty; raise ValueError if it is invalid."""
    path = checks.text("path_prefix", prefix)
    if path and not _PATH_PREFIX.fullmatch(path):
        raise ValueError(f"path_prefix is {path!r}: give plain segments such as /pro")
    return path
