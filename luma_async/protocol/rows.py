"""One row of an answer: which task it names, in which state, and the whole task on demand.

Most rows are clean: Luma's object as published, or a row of the relay's own table (its `task_id` is
the task, its `id` is a number of the relay's database, its `status` is the state, its `data` is
Luma's object). They are decoded by msgspec. All others are read by `sightings`, and what they have
in other places by `fields`; that is slower, and takes any shape.
"""

import json
from contextlib import suppress
from datetime import datetime
from typing import Any, cast

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import asdict, force_setattr

from luma_async.protocol.sightings import Sighting, sightings
from luma_async.protocol.states import STATES, warn_unknown
from luma_async.protocol.task_fields import (
    JSONObject,
    find_created_at,
    find_link,
    find_reason,
    is_link,
    known_moment,
)
from luma_async.protocol.tolerant_json import decode_lenient, normalize_json
from luma_async.structs import Body, Generation, Request, State

_WORDS: dict[str | None, State] = {
    form: state for word, state in STATES.items() for form in (word, word.upper())
}
_PARTS_OF_TIMES = ("reat", "ubmit")  # of the names in CREATED_PATHS
_published = msgspec.json.Decoder(Generation, strict=False)


class Named(Struct, gc=False):
    """The fields of a task that a poll decodes, in either envelope."""

    id: str | int | None = None
    state: str | None = None
    task_id: str | None = None
    status: str | None = None


class Published(Struct, gc=False):
    """A row as published and nothing else: what most are, and what is decoded fastest."""

    id: str
    state: State
    task_id: None = None
    status: None = None
    data: None = None


class Row(Named):
    """One row of an answer: bare, or of the relay's own table with Luma's object inside."""

    data: Named | None = None

    def name_and_state(self) -> tuple[str, State] | None:
        """Return the name and the state of a clean row, None for one that is not.

        A final state of the row wins, then one of Luma's object: a relay that gives up says so in
        its row alone, and one that does not know Luma's word says UNKNOWN there.
        """
        if not self.task_id:
            state = _WORDS.get(self.state)
            bare = isinstance(self.id, str) and self.status is None and self.data is None
            return (self.id, state) if bare and self.id and state else None  # type: ignore[return-value]
        state = _WORDS.get(self.status)
        inner = _WORDS.get(self.data.state) if self.data and self.data.state else None
        if state is None or self.state is not None or (self.data and self.data.status):
            return None
        if self.data and self.data.state and inner is None:
            return None
        return self.task_id, inner if inner and inner.is_done and not state.is_done else state


class RowText(Struct, gc=False):
    """The row of a task as it was received; `built` is the task, where it is decoded already."""

    task_id: str
    text: bytes
    built: Generation | None = None

    def generation(self) -> Generation:
        """Return the task, decoded on demand; only the text of a clean row is kept."""
        if self.built:
            return self.built
        _, state = cast("tuple[str, State]", _row.decode(self.text).name_and_state())
        return build(self.task_id, state, Raw(self.text))


class _Created(Struct):
    created_at: datetime | None = None


class _TableRow(Struct):
    """What a row of the relay's own table has beside Luma's object."""

    task_id: str | None = None
    data: Raw = Raw(b"null")
    fail_reason: str | None = None
    result_url: str | None = None
    created_at: datetime | None = None
    submit_time: datetime | None = None

    def luma(self, text: Raw) -> Raw:
        """Return Luma's object; the row's own `text` where it holds none."""
        return self.data if bytes(self.data).startswith(b"{") else text


_row = msgspec.json.Decoder(Row)


def build(task_id: str, state: State, text: Raw) -> Generation:
    """Build the whole task from the text of a clean row."""
    table = decode_lenient(_TableRow, text)
    if not table.task_id:
        return build_published(task_id, state, text)
    task = _typed(task_id, state, table.luma(text), str(text, "utf-8", "replace"))
    _fill_from_table(task, table)
    return _filled(task, text)


def build_published(task_id: str, state: State, text: Raw) -> Generation:
    """Build the whole task from the text of a clean row that is not one of the relay's table."""
    return _filled(_typed(task_id, state, text, str(text, "utf-8", "replace")), text)


def build_sighted(task_id: str, state: State, sighting: Sighting, original: str) -> Generation:
    """Build the whole task from a row of any shape; inner objects come before outer ones."""
    levels = sighting.levels[::-1]
    texts = (Raw(msgspec.json.encode(level)) for level in levels)
    task, *outer = (_typed(task_id, state, text, original) for text in texts)
    for name in Body.__struct_fields__:
        values = (getattr(one, name) for one in outer)
        if getattr(task, name) is None:
            force_setattr(task, name, next((one for one in values if one is not None), None))
    _fill_from_levels(task, list(levels))
    return task


def state_of(sighting: Sighting, task_id: str) -> tuple[State, bool]:
    """Return the state of a task, and whether it is known; unknown means still running."""
    state, word = sighting.state((task_id,))
    if state is None:
        warn_unknown(word)
    return state or State.PROCESSING, state is not None


def created_at(text: Raw) -> datetime | None:
    """Return when the task of a row was created, if it says so."""
    table = decode_lenient(_TableRow, text)
    moments = [table.created_at, table.submit_time]
    if table.task_id:
        moments = [decode_lenient(_Created, table.luma(text)).created_at, *moments]
    known = next(filter(None, map(known_moment, moments)), None)
    if known is None and any(part.encode() in bytes(text) for part in _PARTS_OF_TIMES):
        with suppress(ValueError, RecursionError):
            return find_created_at(_levels(plain_json(text)))
    return known


def plain_json(text: bytes | Raw) -> Any:
    """Return JSON as plain data; ValueError or RecursionError where it is none."""
    return json.loads(normalize_json(bytes(text)))


def _levels(plain: object) -> list[JSONObject]:
    """Return the objects of the first task in a row, from the innermost outwards."""
    return list(sightings(plain)[0].levels[::-1])


def _typed(task_id: str, state: State, text: Raw, original: str) -> Generation:
    """Build a task, of such an id and state, of what makes sense in Luma's own object."""
    try:
        task = _published.decode(text)
    except (ValueError, RecursionError):
        task = Generation(id="", state=State.PENDING, **asdict(decode_lenient(Body, text)))
    force_setattr(task, "id", task_id)
    force_setattr(task, "state", state)
    force_setattr(task, "original", original)
    force_setattr(task, "created_at", known_moment(task.created_at))
    if task.artifact:
        force_setattr(task.artifact, "created_at", known_moment(task.artifact.created_at))
    if task.prompt and task.request is None:
        force_setattr(task, "request", Request(prompt=task.prompt))
    return task


def _fill_from_table(task: Generation, table: _TableRow) -> None:
    """Add what the row has; its `fail_reason` may be a reason, or the link of a success."""
    if task.created_at is None:
        moment = known_moment(table.created_at) or known_moment(table.submit_time)
        force_setattr(task, "created_at", moment)
    link = table.result_url or task.result_url
    if task.state is State.FAILED:
        force_setattr(task, "failure_reason", table.fail_reason or task.failure_reason)
    elif is_link(table.fail_reason):
        link = link or table.fail_reason
    force_setattr(task, "result_url", link)


def _filled(task: Generation, text: Raw) -> Generation:
    """Return a task with what its row has in other places."""
    if _lacks_something(task):
        with suppress(ValueError, RecursionError):
            _fill_from_levels(task, _levels(plain_json(text)))
    return task


def _lacks_something(task: Generation) -> bool:
    """Whether a task lacks what its row may have in another place."""
    if task.created_at is None and any(part in task.original for part in _PARTS_OF_TIMES):
        return True
    if task.state is State.FAILED:
        return not task.failure_reason
    return task.state is State.COMPLETED and not task.url


def _fill_from_levels(task: Generation, levels: list[JSONObject]) -> None:
    """Add a link, a reason and a time of creation from the places where other relays have them."""
    if task.created_at is None:
        force_setattr(task, "created_at", find_created_at(levels))
    if task.state is State.FAILED:
        if not task.failure_reason:
            force_setattr(task, "failure_reason", find_reason(levels))
    elif not task.url and (link := find_link(levels)):
        force_setattr(task, "result_url", link)
    elif not task.url:
        reasons = (level.get("fail_reason") for level in levels)
        force_setattr(task, "result_url", next(filter(is_link, reasons), None))
