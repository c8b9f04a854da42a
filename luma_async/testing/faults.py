"""The faults of a FakeRelay: which one a request meets, and what it does to the reply.

Pure: the random generator is an argument. A fault is either a breakage, which damages the response
on its way, or one of six others, which change its content. The server carries out the breakages;
this module chooses them and prepares the reply.
"""

import gzip
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from http import HTTPStatus
from math import fsum
from typing import TypeVar, cast

import msgspec

from luma_async.testing.types import BREAKAGES, Breakage, Reply
from luma_async.testing.types import Fault as Fault

F = TypeVar("F", bound=str)

FAULTS: tuple[Fault, ...] = (
    *BREAKAGES,
    "storm",
    "throttled",
    "latency",
    "not_json",
    "stale",
    "strangers",
)

_WITHOUT_STATUS = ("reset", "half_closed", "black_hole", "garbage")
_CUTS_BODY = ("truncated", "drip", "wrong_length")
_MIN_CUT_BODY = 64  # bytes
_STORM_STATUSES = (408, 500, 502, 503, 504)
_LATENCY_RANGE = (1.0, 10.0)  # seconds
_BOMB_SIZE = 16 * 2**20  # bytes, decompressed
_JSON = {"Content-Type": "application/json"}
_GZIPPED = {**_JSON, "Content-Encoding": "gzip"}
_THROTTLED_BODY = '{"code":"","message":"当前分组上游负载已饱和，请稍后再试","data":null}'.encode()


def check_faults(value: object) -> dict[Fault, float]:
    """Return the probability of each fault, in the order of `FAULTS`; None is no faults.

    Raises TypeError or ValueError for an unknown fault or an invalid probability.
    """
    return check_probabilities("faults", value, FAULTS)


def check_probabilities(name: str, value: object, known: Sequence[F]) -> dict[F, float]:
    """Return the probability of each fault that is given, in the order of the known ones."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} is a {type(value).__name__}: give a dict of fault: probability")
    given = cast("Mapping[object, object]", value)
    for fault in given:
        if fault not in known:
            raise ValueError(f"there is no fault {fault!r}: give one of {', '.join(known)}")
    rates = {fault: _probability(fault, given[fault]) for fault in known if fault in given}
    if (total := fsum(rates.values())) > 1:
        raise ValueError(
            f"the faults add up to {total:g}: give probabilities with a sum of at most 1"
        )
    return rates


def _probability(fault: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"the fault {fault} has {value!r}: give its probability as a number")
    if not 0 <= value <= 1:
        raise ValueError(f"the fault {fault} has {value!r}: give a probability from 0 to 1")
    return float(value)


def choose_fault(rates: Mapping[F, float], number: float) -> F | None:
    """Return the fault for a random number in [0, 1), or None."""
    for fault, rate in rates.items():
        if number < rate:
            return fault
        number -= rate
    return None


def apply_fault(reply: Reply, fault: Fault | None, rng: random.Random) -> Reply:
    """Return the reply with a fault.

    "stale" and "strangers" change nothing here: they change which tasks are in the reply.
    """
    match fault:
        case None | "stale" | "strangers":
            return reply
        case "storm":
            return _storm_reply(reply, rng)
        case "throttled":
            headers = {**_JSON, "Retry-After": "1"}
            return replace(reply, status=429, body=_THROTTLED_BODY, headers=headers)
        case "latency":
            return replace(reply, delay=reply.delay + rng.uniform(*_LATENCY_RANGE))
        case "not_json":
            return replace(reply, status=200, body=reply.body[: len(reply.body) // 2])
        case _:
            return prepare_breakage(reply, fault)


def _storm_reply(reply: Reply, rng: random.Random) -> Reply:
    status = rng.choice(_STORM_STATUSES)
    if rng.random() < 0.5:
        return replace(reply, status=status, body=_error(status), headers=_JSON)
    return replace(
        reply, status=status, body=error_page(status), headers={"Content-Type": "text/html"}
    )


def _error(status: int) -> bytes:
    message = f"bad response status code {status} (request id: 20241222133840141)"
    error = {"message": message, "type": "new_api_error", "code": "bad_response_status_code"}
    return msgspec.json.encode({"error": error})


def error_page(status: int) -> bytes:
    """Return the web page that a proxy sends for a status."""
    title = f"{status} {HTTPStatus(status).phrase}"
    head, body = f"<head><title>{title}</title></head>", f"<center><h1>{title}</h1></center>"
    return f"<html>\r\n{head}\r\n<body>{body}<hr><center>nginx</center></body></html>".encode()


def prepare_breakage(reply: Reply, breakage: Breakage | None) -> Reply:
    """Return the reply with a breakage.

    A body that is too short to be cut is filled up with leading spaces.
    """
    if breakage == "gzip_bomb":
        return replace(reply, status=200, body=_bomb(), headers=_GZIPPED, breakage=breakage)
    body = reply.body.rjust(_MIN_CUT_BODY) if breakage in _CUTS_BODY else reply.body
    return replace(reply, body=body, breakage=breakage)


@cache
def _bomb() -> bytes:
    return gzip.compress(b" " * _BOMB_SIZE, mtime=0)


def sent_status(reply: Reply) -> int | None:
    """Return the status that the client receives; None if no status line is sent."""
    return None if reply.breakage in _WITHOUT_STATUS else reply.status


def stale_ids(ids: Iterable[str], rng: random.Random) -> tuple[str, ...]:
    """Return the ids that a stale relay knows: each with a probability of one half."""
    return tuple(task_id for task_id in dict.fromkeys(ids) if rng.random() < 0.5)


def with_strangers(rows: Sequence[bytes], stranger: bytes) -> list[bytes]:
    """Return the stranger's row, then the rows in reverse order, the first of them twice."""
    return [stranger, *rows[-1:], *reversed(rows)]
