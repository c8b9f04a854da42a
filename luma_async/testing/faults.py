"""What a relay in trouble does, and how often: pure, from dice that are an argument.

A fault of the relay is a breakage, which spoils an answer on its way, or one of six more, which
spoil what is answered. The server does the breakages; here they are chosen and made ready.
"""

import gzip
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from http import HTTPStatus
from math import fsum
from typing import cast

import msgspec

from luma_async.testing.types import BREAKAGES, Breakage, Reply
from luma_async.testing.types import Fault as Fault

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
_IN_PARTS = ("truncated", "drip", "wrong_length")
_LEAST_TO_BREAK = 64
_STORM = (408, 500, 502, 503, 504)
_LATE = (1.0, 10.0)
_INFLATED = 16 * 2**20
_JSON = {"Content-Type": "application/json"}
_GZIPPED = {**_JSON, "Content-Encoding": "gzip"}
_THROTTLED = '{"code":"","message":"当前分组上游负载已饱和，请稍后再试","data":null}'.encode()


def check_faults(value: object) -> dict[Fault, float]:
    """Read the probability of each fault, in the order of `FAULTS`; None is none of them.

    TypeError or ValueError for what is no probability, or no fault.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"faults is a {type(value).__name__}: give a dict of fault: probability")
    given = cast("Mapping[object, object]", value)
    for name in given:
        if name not in FAULTS:
            raise ValueError(f"there is no fault {name!r}: say one of {', '.join(FAULTS)}")
    rates: dict[Fault, float] = {
        fault: _probability(fault, given[fault]) for fault in FAULTS if fault in given
    }
    if (total := fsum(rates.values())) > 1:
        raise ValueError(f"the faults add up to {total:g}: give probabilities of 1 in all at most")
    return rates


def _probability(fault: Fault, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"the fault {fault} has {value!r}: give its probability as a number")
    if not 0 <= value <= 1:
        raise ValueError(f"the fault {fault} has {value!r}: give a probability from 0 to 1")
    return float(value)


def choose(rates: Mapping[Fault, float], roll: float) -> Fault | None:
    """Return the fault that a roll of the dice, in [0, 1), means; None for a sound answer."""
    for fault, rate in rates.items():
        if roll < rate:
            return fault
        roll -= rate
    return None


def spoiled(reply: Reply, fault: Fault | None, dice: random.Random) -> Reply:
    """Return what is answered instead of a sound reply.

    `stale` and `strangers` change nothing here: they are about which tasks were told.
    """
    match fault:
        case None | "stale" | "strangers":
            return reply
        case "storm":
            return _stormy(reply, dice)
        case "throttled":
            headers = {**_JSON, "Retry-After": "1"}
            return replace(reply, status=429, body=_THROTTLED, headers=headers)
        case "latency":
            return replace(reply, delay=reply.delay + dice.uniform(*_LATE))
        case "not_json":
            return replace(reply, status=200, body=reply.body[: len(reply.body) // 2])
        case _:
            return broken(reply, fault)


def _stormy(reply: Reply, dice: random.Random) -> Reply:
    status = dice.choice(_STORM)
    if dice.random() < 0.5:
        return replace(reply, status=status, body=_error(status), headers=_JSON)
    return replace(reply, status=status, body=_page(status), headers={"Content-Type": "text/html"})


def _error(status: int) -> bytes:
    said = f"bad response status code {status} (request id: 20241222133840141)"
    error = {"message": said, "type": "new_api_error", "code": "bad_response_status_code"}
    return msgspec.json.encode({"error": error})


def _page(status: int) -> bytes:
    said = f"{status} {HTTPStatus(status).phrase}"
    head, body = f"<head><title>{said}</title></head>", f"<center><h1>{said}</h1></center>"
    return f"<html>\r\n{head}\r\n<body>{body}<hr><center>nginx</center></body></html>".encode()


def broken(reply: Reply, breakage: Breakage | None) -> Reply:
    """Make an answer ready for its breakage; a body too short to be cut has spaces put before."""
    if breakage == "gzip_bomb":
        return replace(reply, status=200, body=_bomb(), headers=_GZIPPED, breakage=breakage)
    body = reply.body.rjust(_LEAST_TO_BREAK) if breakage in _IN_PARTS else reply.body
    return replace(reply, body=body, breakage=breakage)


@cache
def _bomb() -> bytes:
    return gzip.compress(b" " * _INFLATED, mtime=0)


def status_sent(reply: Reply) -> int | None:
    """Return the status that a client may see; None where no status line is sent."""
    return None if reply.breakage in _WITHOUT_STATUS else reply.status


def remembered(ids: Iterable[str], dice: random.Random) -> tuple[str, ...]:
    """Return the ids that a stale relay knows: each with probability one half."""
    return tuple(task_id for task_id in dict.fromkeys(ids) if dice.random() < 0.5)


def among_strangers(rows: Sequence[bytes], stranger: bytes) -> list[bytes]:
    """Put a stranger's row in front of the rows, which are reversed, the first of them twice."""
    return [stranger, *rows[-1:], *reversed(rows)]
