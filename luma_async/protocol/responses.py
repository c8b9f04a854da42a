"""Responses: bytes to the state of each task, and to the whole task on demand.

A response is decoded twice at most. Every poll needs an id and a state of each row: `states`, which
is decoded without the rest. The whole Generation is built by `generation` when the task has ended
or is asked for; of an open task the scheduler keeps `row`, its text.

Relays of this family send the same rows bare or in an envelope, and errors under any status, 200
included, so the content decides what a response is. Decoding is strict first, because that is fast,
and lenient where that fails.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from copy import copy
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import cast

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from luma_async.errors import DecodeError, LumaError
from luma_async.protocol.failures import error_from_response, undecodable
from luma_async.protocol.headers import lower_case, retry_after
from luma_async.protocol.rows import (
    Named,
    Published,
    Row,
    RowText,
    created_at,
    published,
    read,
    warn_once,
)
from luma_async.protocol.tolerant_json import normalize_json, recover, to_utf8
from luma_async.structs import Generation, State
from luma_async.text import one_line


class _Object(Named):
    """A response that is an object: one task, an envelope, or an error."""

    code: str | int | None = None
    success: bool | None = None
    error: Raw = Raw(b"null")
    data: list[Row] | Row | UnsetType | None = UNSET

    def row(self) -> Row:
        inner = self.data if isinstance(self.data, Row) else None
        return Row(self.id, self.state, self.task_id, self.status, inner)

    def is_error(self) -> bool:
        succeeded = str(self.code or 0).lower() in ("0", "200", "ok", "success")
        silent = bytes(self.error) in (b"null", b'""', b"false", b"{}")
        return not succeeded or self.success is False or not silent


class _Envelope(Struct):
    data: Raw


_Told = list[Row] | _Object | None
_LEAST_FINISHED = (State.PENDING, State.PROCESSING, State.COMPLETED, State.FAILED)
_told = msgspec.json.Decoder(_Told)
_published = msgspec.json.Decoder(list[Published])


class Response:
    """One response: the state of each task in it, the whole task on demand.

    `names` and `states` are those of each row, `text` is the JSON they were decoded from: an array
    or one object, `enveloped` if it is the `data` of another. `plain`: the rows are as published;
    `items`: they may be the videos of one task instead of tasks. `retry_after` is in seconds, or
    None; `sent` is the Date header. ValueError if there are rows and none of them is a task.
    """

    retry_after: float | None = None
    sent: str | None = None

    def __init__(
        self,
        names: Sequence[str | None] = (),
        states: Sequence[State] = (),
        text: bytes = b"",
        *,
        plain: bool = False,
        enveloped: bool = False,
        items: bool = False,
    ) -> None:
        told = dict(zip(names, states, strict=True))
        told.pop(None, None)
        told.pop("", None)
        if names and not told:
            raise ValueError("none of the rows is a task")
        self.states: dict[str, State] = cast("dict[str, State]", told)
        self._names = names
        self._text = text
        self._plain = plain
        self._enveloped = enveloped
        self._items = items
        self._original: Raw | None = None

    def generation(self, task_id: str) -> Generation:
        """Build the whole task; KeyError if the response does not contain it."""
        text = self._texts[task_id]
        if self._plain:
            return published(task_id, self.states[task_id], text, text)
        return read(text).generation(task_id, self.states[task_id], text, self._original or text)

    def row(self, task_id: str) -> RowText:
        """Return the row of a task; KeyError if the response does not contain it."""
        if self._original:
            return RowText(task_id, b"", self.generation(task_id))
        return RowText(task_id, bytes(self._texts[task_id]))

    def age(self, task_id: str) -> float:
        """Return the age of a task in seconds, by the relay's own clocks; 0 if unknown."""
        created = self._date and created_at(self._texts[task_id])
        return (self._date - created).total_seconds() if self._date and created else 0.0

    @cached_property
    def _date(self) -> datetime | None:
        try:
            date = parsedate_to_datetime(self.sent or "")
        except (ValueError, TypeError, OverflowError):
            return None
        return date if date.tzinfo else date.replace(tzinfo=UTC)

    def for_task(self, task_id: str) -> "Response":
        """Return the response as one to the single GET; DecodeError if it is about another task.

        One host answers with the videos of the task, whose ids are their own (seen in its
        document). The task is then what its least finished video is, has the link of the first,
        and all of them in `raw`.
        """
        if task_id in self.states or not self.states:
            return self
        if not self._items:
            raise self._about_another(task_id)
        name = min(self.states, key=lambda name: _LEAST_FINISHED.index(self.states[name]))
        one = copy(self)
        one.states = {task_id: self.states[name]}
        one._texts = {task_id: self._texts[name]}
        one._original = self._whole()
        return one

    def for_tasks(self, ids: Collection[str]) -> "Response":
        """Return the response as one to the batch POST; warn of tasks that were not asked about."""
        if not self.states.keys() <= set(ids):
            strangers = self.states.keys() - set(ids)
            if len(strangers) == len(self.states) == 1 and not _is_array(self._whole()):
                raise self._about_another(next(iter(ids)))
            for stranger in strangers:
                warn_once(
                    "the relay tells of task %s, which was not asked about; ignored", stranger
                )
        return self

    def _about_another(self, task_id: str) -> DecodeError:
        first = next(iter(self.states))
        error = DecodeError(
            f"asked about {one_line(task_id)}, the relay tells of {one_line(first)}"
        )
        error.retry_after = self.retry_after
        return error

    @cached_property
    def _texts(self) -> dict[str | None, Raw]:
        whole = self._whole()
        texts = msgspec.json.decode(whole, type=list[Raw]) if _is_array(whole) else [whole]
        return dict(zip(self._names, texts, strict=True))

    def _whole(self) -> Raw:
        if self._enveloped:
            return msgspec.json.decode(self._text, type=_Envelope).data
        return Raw(self._text)


def decode_response(status: int, headers: Mapping[str, str], body: bytes) -> Response:
    """Decode a response, or raise the error that it means.

    Raises APIError where the relay says an error, under whatever status; NoSuchRouteError where the
    host has no such call; DecodeError where the answer makes no sense.
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
        told = _published.decode(body)
        names, states = [row.id for row in told], [row.state for row in told]
        return Response(names, states, body, plain=True)
    with suppress(ValueError, RecursionError):
        whole, text = _read(body)
        if not isinstance(whole, _Object):
            return _listed(whole, text)
        row = whole.row()
        if whole.name() and (whole.state or whole.status):
            return _listed([row], text)
        if whole.is_error():
            raise error_from_response(status, fields, body)
        if whole.data is not UNSET:
            rows = [whole.data] if isinstance(whole.data, Row) else whole.data or []
            items = whole.code is None and whole.success is None
            return _listed(rows, text, enveloped=True, items=items)
        return _listed([row], text)
    raise undecodable(status, body)


def _listed(
    rows: Sequence[Row], text: bytes, *, enveloped: bool = False, items: bool = False
) -> Response:
    told = [row.told() for row in rows]
    names, states = [name for name, _ in told], [state for _, state in told]
    return Response(names, states, text, enveloped=enveloped, items=items)


def _read(text: bytes) -> tuple[list[Row] | _Object, bytes]:
    """Return the rows or the object of a text, and the text that they were read from.

    Raises ValueError or RecursionError for what holds neither.
    """
    with suppress(ValueError, RecursionError):
        return _told.decode(text) or [], text
    text = normalize_json(text)
    if not text.startswith((b"[", b"{")):
        raise ValueError("neither an array nor an object")
    return recover(_Told, text), text


def _is_array(text: Raw) -> bool:
    return bytes(text).lstrip()[:1] == b"["
