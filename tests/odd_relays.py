"""Relays that are odd rather than broken: what they answer instead of what a FakeRelay would.

An oddity is a function of the call ("get" or "tasks"), the ids that were asked about and the sound
reply; it returns the reply that is sent. `ODDITIES` has one for each kind that was seen or is
likely, `storm` lets one last for some seconds only.
"""

import json
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from msgspec import Struct

from luma_async.testing import FakeRelay, Reply
from luma_async.testing.types import IncomingRequest

Answer = Callable[["OddRelay", str, tuple[str, ...], Reply], Reply]


class Oddity(Struct, frozen=True):
    """One way to be odd. `until`: it lasts from second 10 until then; None: for ever."""

    name: str
    answer: Answer
    until: float | None = None


class OddRelay(FakeRelay):
    """A FakeRelay with an oddity."""

    def __init__(self, oddity: Oddity | None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.oddity = oddity
        self.dice = random.Random(7)

    def parse(self, request: IncomingRequest) -> tuple[str | None, tuple[str, ...] | None]:
        """Return the endpoint of a request, and the ids in it."""
        return self._responder._parse(request)  # pyright: ignore[reportPrivateUsage]

    async def _handle(self, request: IncomingRequest) -> Reply:
        call, ids = self.parse(request)
        reply = await super()._handle(request)
        if self.oddity is None or call not in ("get", "tasks") or ids is None:
            return reply
        now = self._now()
        if self.oddity.until is not None and not 10.0 <= now < self.oddity.until:
            return reply
        with suppress(ValueError):  # a fault has spoiled the body already
            return self.oddity.answer(self, call, ids, reply)
        return reply


def body(reply: Reply, plain: object, status: int = 200) -> Reply:
    return replace(reply, status=status, body=json.dumps(plain).encode())


def rows_of(reply: Reply) -> list[dict[str, Any]]:
    plain: Any = json.loads(reply.body or b"null")
    return plain if isinstance(plain, list) else []  # pyright: ignore[reportUnknownVariableType]


def on_batch(change: Callable[[list[dict[str, Any]]], object]) -> Answer:
    """Return an oddity of the batch call: another body, made of its rows."""

    def answer(_: OddRelay, call: str, __: tuple[str, ...], reply: Reply) -> Reply:
        return body(reply, change(rows_of(reply))) if call == "tasks" else reply

    return answer


def on_rows(change: Callable[[dict[str, Any]], object]) -> Answer:
    """Return an oddity of each row, of both calls."""

    def answer(_: OddRelay, call: str, __: tuple[str, ...], reply: Reply) -> Reply:
        if reply.status != 200:
            return reply
        if call == "tasks":
            return body(reply, [change(row) for row in rows_of(reply)])
        return body(reply, change(json.loads(reply.body or b"{}")))

    return answer


def always(status: int, plain: object, *, call: str | None = None) -> Answer:
    """Return an oddity that answers all requests, or all of one call, by the same body."""

    def answer(_: OddRelay, asked: str, __: tuple[str, ...], reply: Reply) -> Reply:
        raw = plain if isinstance(plain, bytes) else json.dumps(plain).encode()
        return replace(reply, status=status, body=raw) if call in (None, asked) else reply

    return answer


def storm(name: str, answer: Answer, until: float = 130.0) -> Oddity:
    return Oddity(name, answer, until)


def _is_done(row: dict[str, Any]) -> bool:
    return row.get("state") in ("completed", "failed")


def _stranger(number: int) -> dict[str, Any]:
    return {
        "id": f"stranger-{number}",
        "state": "completed",
        "video": {"url": "https://cdn.example/stranger.mp4"},
    }


def _page(rows: list[dict[str, Any]], size: int) -> dict[str, Any]:
    return {"data": rows[:size], "total": len(rows), "page": 1, "page_size": size}


def _get_other(row: object) -> Answer:
    """Return an oddity: each fifth GET is answered by another task's row."""

    def answer(relay: OddRelay, call: str, _: tuple[str, ...], reply: Reply) -> Reply:
        return body(reply, row) if call == "get" and relay.dice.random() < 0.2 else reply

    return answer


def _forbidden(bad: str, status: int) -> Answer:
    def answer(_: OddRelay, __: str, ids: tuple[str, ...], reply: Reply) -> Reply:
        return body(reply, {"message": "no access"}, status) if bad in ids else reply

    return answer


def capped(cap: int) -> Oddity:
    return Oddity(f"a batch has {cap} rows at most", on_batch(lambda rows: rows[:cap]))


def nested(depth: int) -> Callable[[dict[str, Any]], object]:
    def change(row: dict[str, Any]) -> object:
        inner: object = {**{k: v for k, v in row.items() if k != "state"}, "status": row["state"]}
        for _ in range(depth):
            inner = {"code": 0, "message": "ok", "data": inner}
        return inner

    return change


def kling(row: dict[str, Any]) -> object:
    words = {"completed": "succeed", "failed": "failed", "pending": "submitted"}
    task: dict[str, Any] = {
        "task_id": row["id"],
        "task_status": words.get(row["state"], "processing"),
        "task_status_msg": row.get("failure_reason") or "",
        "created_at": 1_766_000_000_000,
    }
    if row["state"] == "completed":
        task["task_result"] = {"videos": [{"id": "v", "url": row["video"]["url"]}]}
    return {"code": 0, "message": "SUCCEED", "request_id": "r", "data": task}


def renamed(row: dict[str, Any]) -> object:
    return {**row, "id": row["id"].upper()}


def in_other_words(row: dict[str, Any]) -> object:
    words = {"completed": "Finished ", "failed": "REJECTED", "pending": "in-queue"}
    return {**row, "state": words.get(row["state"], "In Progress")}


def envelope_with_status(rows: list[dict[str, Any]]) -> object:
    return {"id": "req-1", "status": "success", "data": rows}


HICCUPS: dict[str, object] = {
    "[]": [],
    "null": None,
    "an empty envelope": {"code": "success", "data": []},
    "a null envelope": {"code": 0, "message": "success", "data": None},
}
ERRORS_UNDER_200: tuple[dict[str, Any], ...] = (
    {"status": "error", "message": "upstream timeout", "data": None},
    {"msg": "系统繁忙", "data": None},
    {"status": 500, "message": "Internal Server Error", "data": None},
    {"errors": [{"message": "timeout"}], "data": None},
    {"code": 200, "message": "upstream timeout", "data": None},
    {"code": "success", "message": "", "data": [], "warning": "replica lag"},
    {"success": False, "data": []},
)
REFUSALS: tuple[tuple[int, object], ...] = (
    (400, {"error": {"message": "get_channel_failed: upstream busy"}}),
    (404, {"detail": "Not Found"}),
    (404, b"404 page not found\n"),
    (413, {"error": "x"}),
    (422, {"message": "unprocessable"}),
    (400, {"message": "no available channel for model luma"}),
)


def oddities() -> Iterator[Oddity]:
    """Yield one oddity for each kind."""
    for cap in (10, 50):
        yield capped(cap)
    yield Oddity("a batch is a page of 20 rows", on_batch(lambda rows: _page(rows, 20)))
    yield Oddity(
        "a batch has finished tasks alone", on_batch(lambda rows: list(filter(_is_done, rows)))
    )
    yield Oddity(
        "a batch has strangers alone", on_batch(lambda _: [_stranger(n) for n in range(20)])
    )
    for name, plain in HICCUPS.items():
        yield storm(f"35 s of {name} from batches", always(200, plain, call="tasks"), 45.0)
        yield storm(f"35 s of {name}", always(200, plain), 45.0)
    for plain in ERRORS_UNDER_200:
        yield storm(f"120 s of 200 {json.dumps(plain)}", always(200, plain))
    for status, plain in REFUSALS:
        yield storm(f"120 s of {status} {plain!r}", always(status, plain))
    for status in (400, 404, 405, 410, 413, 414, 422, 431, 501):
        yield storm(f"120 s of a bare {status}", always(status, b""))
    other = _stranger(1)
    yield Oddity("a GET answers another's row", _get_other({"data": other}))
    yield Oddity(
        "a GET answers a page of others", _get_other({"data": [other], "total": 200, "page": 1})
    )
    row = {"task_id": "stranger-2", "status": "SUCCESS", "data": other}
    yield Oddity("a GET answers a row of the table of another", _get_other({"data": [row]}))
    yield Oddity("ids in upper case", on_rows(renamed))
    yield Oddity("states in other words", on_rows(in_other_words))
    yield Oddity("three envelopes, status for state", on_rows(nested(3)))
    yield Oddity("Kling's envelope", on_rows(kling))
    yield Oddity("an envelope with an id and a status", on_batch(envelope_with_status))
    for status in (401, 403):
        yield Oddity(f"{status} for one id", _forbidden("bad", status))


ODDITIES = {oddity.name: oddity for oddity in oddities()}
