"""Decode a response: bytes to a Response, or to the error that it means.

Relays of this family send the same rows bare or in an envelope, and errors under any status, 200
included, so the content decides what a response is. Decoding is strict first, because that is fast.
What is not clean is read by `sightings`.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import cast

import msgspec
from msgspec import UNSET, Raw, UnsetType

from luma_async.errors import LumaError
from luma_async.protocol.error_responses import error_from_response, undecodable
from luma_async.protocol.headers import lower_case, retry_after
from luma_async.protocol.responses import Response
from luma_async.protocol.rows import Named, Published, Row, plain_json
from luma_async.protocol.task_fields import JSONObject, as_object
from luma_async.protocol.tolerant_json import to_utf8
from luma_async.structs import State


class _Object(Named):
    """A response that is an object: one task, an envelope, or an error."""

    code: str | int | None = None
    success: bool | None = None
    error: Raw = Raw(b"null")
    data: list[Row] | Row | UnsetType | None = UNSET


_SUCCESS_CODES = ("", "0", "200", "ok", "success", "succeed", "succeeded", "none")
_SUCCESS_WORDS = ("", "ok", "success", "succeed", "succeeded", "successful", "done", "none")
_CONTAINERS = ("data", "result", "results", "items", "list", "records", "rows", "tasks")
_PAGE_KEYS = (
    "total", "page", "page_size", "pageSize", "per_page", "limit", "offset", "count", "has_more",
    "hasMore", "next", "next_page", "cursor", "pages", "size", "total_count", "total_pages",
)  # fmt: skip
_HARMLESS_KEYS = (
    "request_id", "requestId", "trace_id", "traceId", "timestamp", "time", "ts", "server_time",
    "object", "version", *_PAGE_KEYS,
)  # fmt: skip
_read = msgspec.json.Decoder(list[Row] | _Object)
_read_published = msgspec.json.Decoder(list[Published])


def decode_response(status: int, headers: Mapping[str, str], body: bytes) -> Response:
    """Decode a response, or raise the error that it means.

    Raise APIError if the relay says an error, under whatever status; NoSuchRouteError if the host
    has no such endpoint; DecodeError if the response is neither tasks nor an error.
    """
    fields = lower_case(headers)
    try:
        answer = _answer(status, fields, to_utf8(body, fields.get("content-type", "")))
    except LumaError as error:
        error.retry_after = retry_after(fields)
        raise
    answer.retry_after = retry_after(fields)
    answer.sent = fields.get("date")
    return answer


def _answer(status: int, fields: Mapping[str, str], body: bytes) -> Response:
    if not 200 <= status < 300:
        raise error_from_response(status, fields, body)
    with suppress(ValueError, RecursionError):
        rows = _read_published.decode(body)
        states = {row.id: row.state for row in rows}
        if len(states) == len(rows) and "" not in states:
            return Response(states, body, published=True)
    with suppress(ValueError, RecursionError):
        if (response := _clean(body)) is not None:
            return response
    plain: object = UNSET
    with suppress(ValueError, RecursionError):
        plain = plain_json(body)
    if plain is UNSET:
        plain = first_document(body)
        if plain is None:
            raise undecodable(status, body)
        body = json.dumps(plain, ensure_ascii=False).encode("utf-8", "replace")
    return _of_any_shape(status, fields, body, plain)


def _clean(body: bytes) -> Response | None:
    """Return a response all of whose rows are clean; None for another."""
    whole = _read.decode(body)
    rows: list[Row] = []
    enveloped = False
    if isinstance(whole, list):
        rows += whole
    else:
        if not _is_success(whole):
            return None
        inner = None if whole.data is UNSET else whole.data
        if whole.task_id or whole.id is not None:
            if isinstance(inner, Row | None):
                rows = [Row(whole.id, whole.state, whole.task_id, whole.status, inner)]
        else:
            rows, enveloped = [inner] if isinstance(inner, Row) else inner or [], True
    clean = [row.name_and_state() for row in rows]
    if not rows or None in clean:
        return None
    return Response.of_rows(cast("list[tuple[str, State]]", clean), body, enveloped=enveloped)


def _is_success(whole: _Object) -> bool:
    code = str(whole.code or 0).lower()
    silent = bytes(whole.error) in (b"null", b'""', b"false", b"{}")
    return code in _SUCCESS_CODES and whole.success is not False and silent


def _of_any_shape(status: int, fields: Mapping[str, str], body: bytes, plain: object) -> Response:
    if plain is None or plain == []:
        return Response(text=body)
    response = Response.of(plain, body)
    level = as_object(plain)
    if level is None:
        if not response.states and not response.unnamed:
            raise undecodable(status, body)
        return response
    if is_error(level) and not _is_task(level, response):
        raise error_from_response(status, fields, body)
    if response.states or response.unnamed:
        return response
    if _is_empty(level):
        if _is_none(level):
            return Response(text=body)
        raise error_from_response(status, fields, body)
    raise undecodable(status, body)


def is_error(level: JSONObject) -> bool:
    """Whether an object says that it is an error."""
    code = level.get("code")
    code = "" if code is None or isinstance(code, bool) else str(code).strip().lower()
    error = level.get("error") or level.get("errors")
    return code not in _SUCCESS_CODES or level.get("success") is False or bool(error)


def _is_task(level: JSONObject, response: Response) -> bool:
    """Whether an object that has an error is a task of its own: it has a name and a state."""
    own = [one for one in response.sighted.values() if one.levels[0] is level]
    return any(len(one.levels) == 1 and one.state() != (None, "") for one in own)


def _is_empty(level: JSONObject) -> bool:
    """Whether an envelope has a container without rows, directly or in an inner envelope."""
    for key in _CONTAINERS:
        value = level.get(key, {})
        inner = as_object(value)
        if (inner and _is_empty(inner)) or (inner is None and not value):
            return True
    return False


def _is_none(level: JSONObject) -> bool:
    """Whether an empty envelope says that there is no task: nothing in it could be an error."""
    for key, value in level.items():
        inner = as_object(value)
        if key in _CONTAINERS and inner and _is_none(inner):
            continue
        if key in _HARMLESS_KEYS or value is None or value is True or value in ("", [], {}):
            continue
        words = _SUCCESS_CODES if key in ("code", "status") else _SUCCESS_WORDS
        if isinstance(value, bool) or str(value).strip().lower() not in words:
            return False
    return True


def first_document(body: bytes) -> object:
    """Return the first JSON document of a text that holds more than one; None if it holds none."""
    with suppress(ValueError, RecursionError):
        text = body.decode("utf-8", "replace").lstrip()
        plain, end = json.JSONDecoder().raw_decode(text)
        if isinstance(plain, dict | list):
            return cast("object", plain_json(text[:end].encode()))
    return None
