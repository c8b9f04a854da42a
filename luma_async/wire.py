"""Bytes to values: the request of each call, and what any answer to it means.

An answer is read twice at most. Every poll needs an id and a state of each row, and `Answer.states`
is that, decoded without touching the rest. The whole Generation of a row is built by
`Answer.generation` when somebody wants to read it, which is when the state has changed.

Relays of this family put the same task into two envelopes: bare, or as rows of their own table,
whose `task_id` is the task, whose `status` is the state and whose `data` is Luma's object. They say
errors under any status, 200 included, so what an answer is gets decided by what it holds.
"""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Any, cast
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct, ValidationError
from msgspec.structs import asdict, fields, replace

from luma_async.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    DecodeError,
    LumaError,
    NoSuchRouteError,
    NotFoundError,
    PermissionDeniedError,
    QuotaError,
    RateLimitedError,
    RelayError,
    SessionClosed,
)
from luma_async.structs import Body, Generation, State

logger = logging.getLogger("luma_async")

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


_answers = msgspec.json.Decoder(list[_Row] | _Object | None)
_rows = msgspec.json.Decoder(list[_Row] | _Row | None)
_table_rows = msgspec.json.Decoder(_TableRow)
_bodies = msgspec.json.Decoder(Body, strict=False)


class Answer:
    """What one answer says: the state of each task that it names, the whole task on demand."""

    def __init__(self, rows: Sequence[_Row] = (), body: bytes = b"", *, many: bool = True) -> None:
        self._rows = rows
        self._body = body
        self._many = many
        self.states: dict[str, State] = {
            name: _state(row.status or row.state) for row in rows if (name := row.name())
        }

    def generation(self, task_id: str) -> Generation:
        """Build the whole task; KeyError if the answer does not name it."""
        return _generation(task_id, self.states[task_id], self._originals[task_id])

    @cached_property
    def _originals(self) -> dict[str | None, Raw]:
        whole = Raw(self._body)
        texts = msgspec.json.decode(whole, type=list[Raw]) if self._many else [whole]
        return {row.name(): text for row, text in zip(self._rows, texts, strict=True)}


def decipher(status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    """Return what an answer says, or raise the error that it means.

    Raises APIError where the relay says an error, under whatever status; NoSuchRouteError where the
    host has no such call; DecodeError where the answer makes no sense.
    """
    if not 200 <= status < 300:
        raise _refusal(status, headers, body)
    try:
        told = _answers.decode(body)
    except (ValueError, RecursionError):
        raise _senseless(status, body) from None
    if isinstance(told, _Object):
        return _object(told, status, headers, body)
    return Answer(told or (), body)


def _object(told: _Object, status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    if told.name() and (told.state or told.status):
        return Answer([told], body, many=False)
    succeeded = str(told.code or 0).lower() in ("0", "200", "ok", "success")
    if not succeeded or told.success is False or bytes(told.error) not in (b"null", b'""'):
        raise _refusal(status, headers, body)
    if not bytes(told.data) and told.code is None and not told.success:
        raise _senseless(status, body)
    try:
        rows = _rows.decode(bytes(told.data) or b"null")
    except (ValueError, RecursionError):
        raise _senseless(status, body) from None
    many = not isinstance(rows, _Row)
    return Answer((rows or ()) if many else [rows], bytes(told.data), many=many)


def _state(word: str | None) -> State:
    """Read a relay's word; one that nobody knows means that the task still runs."""
    state = STATES.get(word or "") or STATES.get((word or "").lower())
    if state is None:
        _warn_once(word)
        return State.PROCESSING
    return state


@lru_cache(maxsize=256)
def _warn_once(word: str | None) -> None:
    logger.warning("unknown state %.80r is taken as still running", word)


def _generation(task_id: str, state: State, original: Raw) -> Generation:
    row = _TableRow()
    with suppress(ValueError, RecursionError):
        row = _table_rows.decode(original)
    inner = row.data if bytes(row.data)[:1] == b"{" else original
    body = _body(inner)
    if state is State.FAILED and row.fail_reason:
        body = replace(body, failure_reason=row.fail_reason)
    return Generation(
        id=task_id,
        state=state,
        original=bytes(original).decode("utf-8", "replace"),
        **asdict(replace(body, result_url=row.result_url or body.result_url)),
    )


def _body(original: Raw) -> Body:
    try:
        body = _bodies.decode(original)
    except (ValueError, RecursionError):
        body = _piecewise(original)
    artifact = body.artifact
    if artifact:
        artifact = replace(artifact, created_at=_known(artifact.created_at))
    return replace(body, artifact=artifact, created_at=_known(body.created_at))


def _piecewise(original: Raw) -> Body:
    """Build a body from the fields that make sense; one of the wrong type costs itself alone."""
    kept: dict[str, Any] = {}
    with suppress(ValueError, RecursionError):
        plain = json.loads(bytes(original).decode("utf-8", "replace"))
        for field in fields(Body):
            with suppress(ValidationError):
                kept[field.name] = msgspec.convert(plain.get(field.name), field.type, strict=False)
    return Body(**kept)


def _known(moment: datetime | None) -> datetime | None:
    """Return an aware moment; Go's zero time means that nobody knows."""
    if moment is None or moment.year <= 1:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class Verdict(StrEnum):
    """What a poll does about an error."""

    AGAIN = "ask again, later"
    ABSENT = "the relay does not know the id"
    SPLIT = "ask again in halves"
    SHRINK = "ask again in halves, and never for so many again"
    SINGLES = "ask for one id at a time from now on"
    ABORT = "stop asking: the key is refused, or the session closed"


def judge(error: LumaError, *, many: bool) -> Verdict:
    """Return what an error means for a poll; `many` tells the batch call from the single one."""
    if isinstance(error, AuthenticationError | QuotaError | PermissionDeniedError | SessionClosed):
        return Verdict.ABORT
    refused = isinstance(error, BadRequestError | NotFoundError)
    if not many:
        return Verdict.ABSENT if refused else Verdict.AGAIN
    status = error.status if isinstance(error, APIError) else None
    no_such_task = isinstance(error, APIError) and error.code == "task_not_exist"
    if isinstance(error, NoSuchRouteError) or (status in (404, 405, 501) and not no_such_task):
        return Verdict.SINGLES
    if status == 413:
        return Verdict.SHRINK
    return Verdict.SPLIT if refused else Verdict.AGAIN


_BY_STATUS: dict[int, type[APIError]] = {
    401: AuthenticationError,
    402: QuotaError,
    403: PermissionDeniedError,
    404: NotFoundError,
    408: RelayError,
    425: RelayError,
    429: RateLimitedError,
}
_QUOTA = re.compile(r"额度|余额|quota|balance|insufficient (?:credit|fund)", re.IGNORECASE)
_LOGIN = re.compile(r"未登录|令牌|access token|unauthorized|invalid token|api key", re.IGNORECASE)
_REQUEST_ID = re.compile(r"\s*\(request id: ([^)]*)\)")
_LINE = 200


def _refusal(status: int, headers: Mapping[str, str], body: bytes) -> LumaError:
    """Name the error by what it says first, by its status second."""
    fields_of = {name.lower(): value for name, value in headers.items()}
    if 300 <= status < 400:
        target = fields_of.get("location", "nowhere")
        return NoSuchRouteError(
            f"the relay redirects (status {status}); give the base URL that it names: {target:.200}"
        )
    code, message = _said(body)
    page = body.lstrip()[:1] == b"<"
    if status in (404, 405) and (page or message.startswith("Invalid URL")):
        return NoSuchRouteError(
            f"status {status}: {_line(message)}; check the path of the base URL"
        )
    found = _REQUEST_ID.search(message)
    kind = _kind(status, code, message)
    return kind(
        status,
        code,
        _line(_REQUEST_ID.sub("", message)),
        found[1]
        if found
        else fields_of.get("x-request-id") or fields_of.get("x-oneapi-request-id"),
        retry_after=_retry_after(fields_of),
    )


def _kind(status: int, code: str | None, message: str) -> type[APIError]:
    told = f"{code or ''} {message}"
    if code == "task_not_exist":
        return NotFoundError
    if status in (200, 401, 402, 403) and _QUOTA.search(told):
        return QuotaError
    if status == 200 and _LOGIN.search(told):
        return AuthenticationError
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return BadRequestError if 400 <= status < 500 else RelayError


def _said(body: bytes) -> tuple[str | None, str]:
    """Return code and message of an error body: its first JSON document, or its text."""
    text = body.decode("utf-8-sig", "replace").strip()
    try:
        plain, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None, text
    if not isinstance(plain, dict):
        return None, text
    told = cast("dict[str, Any]", plain)
    inner = next(
        (told[key] for key in ("error", "detail") if isinstance(told.get(key), dict)), told
    )
    code = inner.get("code") or told.get("code")
    words = (inner.get(key) for key in ("message", "reason", "detail", "error", "title"))
    message = next((word for word in words if isinstance(word, str) and word), "")
    return (str(code) if code else None), message or str(told.get("message") or "")


def _retry_after(fields_of: Mapping[str, str]) -> float | None:
    """Return the seconds that the relay asks to keep away; None where it says none, or nonsense."""
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = fields_of.get(name, "").strip()
        if value.isascii() and value.replace(".", "", 1).isdigit():
            return float(value) * scale
    return _until(fields_of.get("retry-after"), fields_of.get("date"))


def _until(date: str | None, now: str | None) -> float | None:
    try:
        seconds = (
            parsedate_to_datetime(date or "") - parsedate_to_datetime(now or "")
        ).total_seconds()
    except (ValueError, TypeError):
        return None
    return max(seconds, 0.0)


def _senseless(status: int, body: bytes) -> DecodeError:
    if not body:
        return DecodeError(f"status {status} with an empty body")
    text = _line(body[:4096].decode("utf-8", "replace"))
    if text.startswith("<"):
        return NoSuchRouteError(
            f"status {status} with a web page ({text}); check the path of the base URL"
        )
    return DecodeError(f"status {status} with a body that is no task: {text}")


def _line(text: str) -> str:
    """Cut a text to one line."""
    line = " ".join(text[: 4 * _LINE].split())
    return line if len(line) <= _LINE else f"{line[:_LINE]}…"
