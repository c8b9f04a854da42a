"""Bytes to values: the request of each call, and what any answer to it means.

An answer is read twice at most. Every poll needs an id and a state of each row, and `Answer.states`
is that, decoded without touching the rest. The whole Generation of a row is built by
`Answer.generation` when somebody wants to read it, which is when the state has changed.

Relays of this family put the same task into two envelopes: bare, or as rows of their own table,
whose `task_id` is the task, whose `status` is the state and whose `data` is Luma's object. They say
errors under any status, 200 included, so what an answer is gets decided by what it holds.

Reading is strict first, because that is fast, and lenient where it fails: a field of the wrong type
costs that field, a row that is none costs that row, and text that is not quite JSON (a byte order
mark, half a surrogate pair, bytes that are not UTF-8, infinity) is cleaned and read again.
"""

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from math import isfinite
from typing import Any, TypeVar, get_args
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import FieldInfo, asdict, fields, replace

from luma_async.errors import DecodeError
from luma_async.structs import Body, Generation, State
from luma_async.verdicts import refusal, senseless

logger = logging.getLogger("luma_async")

S = TypeVar("S", bound=Struct)

STATES: dict[str, State] = {
    word: state
    for state, words in {
        State.PENDING: "pending queued submitted not_start",
        State.PROCESSING: "processing in_progress dreaming running unknown",
        State.COMPLETED: "completed success succeeded",
        State.FAILED: "failed failure error canceled cancelled expired",
    }.items()
    for word in words.split()
}


class HTTPRequest(Struct, frozen=True):
    """One request to a relay; `path` follows the base URL and is percent-encoded."""

    method: str
    path: str
    body: bytes | None = None


def single(task_id: str) -> HTTPRequest:
    """Return the request that asks about one task."""
    segment = quote(task_id, safe="")
    if not segment.strip("."):
        segment = segment.replace(".", "%2E")
    return HTTPRequest("GET", f"/luma/generations/{segment}")


def batch(ids: Sequence[str]) -> HTTPRequest:
    """Return the request that asks about many tasks at once."""
    return HTTPRequest("POST", "/luma/tasks", msgspec.json.encode({"ids": ids}))


class _Row(Struct):
    """What a poll reads of one task, in either envelope."""

    id: str | int | None = None
    state: str | None = None
    task_id: str | None = None
    status: str | None = None

    def name(self) -> str | None:
        return self.task_id or (self.id if isinstance(self.id, str) else None)

    def wrapped(self) -> bool:
        return bool(self.task_id or self.status)


class _Object(_Row):
    """An answer that is an object: one task, an envelope, or an error."""

    code: str | int | None = None
    success: bool | None = None
    error: Raw = Raw(b"null")
    data: Raw = Raw(b"")


class _TableRow(Struct):
    """What a row of the relay's own table tells beside Luma's object."""

    data: Raw = Raw(b"null")
    fail_reason: str | None = None
    result_url: str | None = None


_LEAST_FINISHED = (State.PENDING, State.PROCESSING, State.COMPLETED, State.FAILED)
_answers = msgspec.json.Decoder(list[_Row] | _Object | None)


class Answer:
    """What one answer says: the state of each task that it names, the whole task on demand.

    `text` is the JSON of the rows: an array, or one object where not `many`. `items` says that the
    rows may be the videos of one task rather than tasks.
    """

    def __init__(
        self,
        rows: Sequence[_Row] = (),
        text: bytes = b"",
        *,
        many: bool = True,
        items: bool = False,
    ) -> None:
        self._rows = rows
        self._text = text
        self._many = many
        self._items = items
        self.states: dict[str, State] = {
            name: _state(row.status or row.state) for row in rows if (name := row.name())
        }

    def generation(self, task_id: str) -> Generation:
        """Build the whole task; KeyError if the answer does not name it."""
        row, text = self._named[task_id]
        return _generation(task_id, self.states[task_id], row, text)

    def about(self, task_id: str) -> "Answer":
        """Return the answer as one to the single call; DecodeError if it is about another task.

        One host answers with the videos of the task, whose ids are their own (seen in its
        document). The task is then what its least finished video is, and has the link of the first.
        """
        if task_id in self.states or not self.states:
            return self
        first = next(iter(self.states))
        if not self._items:
            raise DecodeError(f"asked about {task_id:.80}, the relay tells of {first:.80}")
        name = min(self.states, key=lambda name: _LEAST_FINISHED.index(self.states[name]))
        row, text = self._named[name]
        row = replace(row, id=task_id, task_id=None)
        return Answer([row], bytes(text), many=False)

    def about_many(self, ids: Collection[str]) -> "Answer":
        """Return the answer as one to the batch call; warn of tasks that were not asked about."""
        if len(self.states) > len(ids) or not self.states.keys() <= set(ids):
            for stranger in self.states.keys() - set(ids):
                _warn_of_stranger(stranger)
        return self

    @cached_property
    def _named(self) -> dict[str | None, tuple[_Row, Raw]]:
        whole = Raw(self._text)
        texts = msgspec.json.decode(whole, type=list[Raw]) if self._many else [whole]
        return {row.name(): (row, text) for row, text in zip(self._rows, texts, strict=True)}


def decipher(status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    """Return what an answer says, or raise the error that it means.

    Raises APIError where the relay says an error, under whatever status; NoSuchRouteError where the
    host has no such call; DecodeError where the answer makes no sense.
    """
    if not 200 <= status < 300:
        raise refusal(status, headers, body)
    try:
        text, told = _read(body)
        if not isinstance(told, _Object):
            return Answer(told, text)
        if told.name() and (told.state or told.status):
            return Answer([told], text, many=False)
        if _is_error(told):
            raise refusal(status, headers, body)
        if bytes(told.data):
            items = told.code is None and told.success is None
            return _enveloped(bytes(told.data), items=items)
    except (ValueError, RecursionError):
        pass
    raise senseless(status, body)


def _is_error(told: _Object) -> bool:
    succeeded = str(told.code or 0).lower() in ("0", "200", "ok", "success")
    silent = bytes(told.error) in (b"null", b'""', b"false")
    return not succeeded or told.success is False or not silent


def _enveloped(data: bytes, *, items: bool) -> Answer:
    text, told = _read(data)
    if not isinstance(told, _Object):
        return Answer(told, text, items=items)
    if not told.name():
        raise ValueError("the object in the envelope is no task")
    return Answer([told], text, many=False)


def _read(text: bytes) -> tuple[bytes, list[_Row] | _Object]:
    """Return the rows or the object of a text, and the text that they were read from.

    Raises ValueError or RecursionError for what holds neither.
    """
    try:
        return text, _tasks(_answers.decode(text) or [])
    except (ValueError, RecursionError):
        text = _cleaned(text)
    with suppress(ValueError, RecursionError):
        return text, _tasks(_answers.decode(text) or [])
    if text.startswith(b"{"):
        return text, lenient(_Object, text)
    rows = msgspec.json.decode(text, type=list[Raw])
    return text, _tasks([lenient(_Row, row) for row in rows])


def _tasks(told: list[_Row] | _Object) -> list[_Row] | _Object:
    """Return what was told, unless it is rows of which none is a task."""
    if isinstance(told, list) and told and not any(row.name() for row in told):
        raise ValueError("none of the rows is a task")
    return told


def _cleaned(text: bytes) -> bytes:
    """Write JSON anew, without what strict readers refuse; ValueError where it is no JSON."""
    plain = json.loads(
        text.decode("utf-8-sig", "replace"), parse_float=_finite, parse_constant=lambda _: None
    )
    return json.dumps(plain, ensure_ascii=False).encode("utf-8", "replace")


def _finite(digits: str) -> float | None:
    return float(digits) if isfinite(float(digits)) else None


def lenient(kind: type[S], text: bytes | Raw) -> S:
    """Build a struct of the fields that make sense; one of the wrong type costs itself alone."""
    kept: dict[str, Any] = {}
    with suppress(ValueError, RecursionError):
        parts = msgspec.json.decode(text, type=dict[str, Raw])
        for field in fields(kind):
            if field.encode_name in parts:
                kept |= _field(field, parts[field.encode_name])
    return kind(**kept)


def _field(field: FieldInfo, part: Raw) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):
        return {field.name: msgspec.json.decode(part, type=field.type, strict=False)}
    for kind in get_args(field.type):
        if issubclass(kind, Struct) and bytes(part).startswith(b"{"):
            return {field.name: lenient(kind, part)}
    return {}


def _state(word: str | None) -> State:
    """Read a relay's word; one that nobody knows means that the task still runs."""
    state = STATES.get(word or "") or STATES.get((word or "").lower())
    if state is None:
        _warn_once((word or "").lower())
        return State.PROCESSING
    return state


@lru_cache(maxsize=256)
def _warn_once(word: str) -> None:
    logger.warning("unknown state %.80r is taken as still running", word)


@lru_cache(maxsize=256)
def _warn_of_stranger(task_id: str) -> None:
    logger.warning("the relay tells of task %.80r, which was not asked about; ignored", task_id)


def _generation(task_id: str, state: State, row: _Row, text: Raw) -> Generation:
    table = _decoded(_TableRow, text) if row.wrapped() else _TableRow()
    body = _decoded(Body, table.data if bytes(table.data).startswith(b"{") else text)
    if state is State.FAILED and table.fail_reason:
        body = replace(body, failure_reason=table.fail_reason)
    artifact = body.artifact
    if artifact:
        artifact = replace(artifact, created_at=_known(artifact.created_at))
    body = replace(
        body,
        artifact=artifact,
        created_at=_known(body.created_at),
        result_url=table.result_url or body.result_url,
    )
    original = bytes(text).decode("utf-8", "replace")
    return Generation(id=task_id, state=state, original=original, **asdict(body))


def _decoded(kind: type[S], text: Raw) -> S:
    try:
        return msgspec.json.decode(text, type=kind, strict=False)
    except (ValueError, RecursionError):
        return lenient(kind, text)


def _known(moment: datetime | None) -> datetime | None:
    """Return an aware moment; Go's zero time, and the zero of unix, mean that nobody knows."""
    if moment is None or moment.year <= 1:
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware if aware.timestamp() else None
