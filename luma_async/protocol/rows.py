"""One row of an answer: which task it names, in which state, and the whole task on demand.

A row is bare, which is Luma's object as published, or of the relay's own table: its `task_id` is
the task (its `id` is a number of the relay's database), its `status` is the state, its `data` is
Luma's object.
"""

import logging
from datetime import UTC, datetime
from typing import cast

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import asdict, force_setattr

from luma_async.protocol.tolerant_json import decode_lenient, recover
from luma_async.structs import Body, Generation, Request, State

logger: logging.Logger = logging.getLogger("luma_async")

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
_WORDS: dict[str | None, State] = {
    form: state for word, state in STATES.items() for form in (word, word.upper())
}
MOST_WARNINGS = 256
_warned: set[str] = set()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_published = msgspec.json.Decoder(Generation, strict=False)


class Named(Struct, gc=False):
    """The fields of a task that a poll decodes, in either envelope."""

    id: str | int | None = None
    state: str | None = None
    task_id: str | None = None
    status: str | None = None

    def name(self) -> str | None:
        """Return the task's id; a number is the relay's own and names no task."""
        return self.task_id or (self.id if isinstance(self.id, str) else None)


class Published(Struct, gc=False):
    """A row as published and nothing else: what most are, and what is read fastest."""

    id: str
    state: State
    task_id: None = None
    status: None = None


class Row(Named):
    """One row of an answer: bare, or of the relay's own table with Luma's object inside."""

    data: Named | None = None

    def wrapped(self) -> bool:
        """Whether it is of the relay's own table, so that `data` is Luma's object."""
        return bool(self.task_id or self.status) or isinstance(self.id, int)

    def told(self) -> tuple[str | None, State]:
        """Return the task's name and state.

        An end that the row tells wins, then one that Luma's object tells: a relay that gives up
        says so outside alone, and one that does not know Luma's word says UNKNOWN there.
        """
        inner = self.data
        name = self.name()
        if inner is None or not self.wrapped():
            return name, _state(self.status or self.state)
        state = _state(self.status or self.state or inner.state)
        if inner.state and (within := _state(inner.state)).is_done and not state.is_done:
            state = within
        return name or inner.name(), state

    def generation(self, task_id: str, state: State, text: Raw, original: Raw) -> Generation:
        """Build the whole task from the `text` of this row."""
        if not self.wrapped():
            return published(task_id, state, text, original)
        table = decode_lenient(_TableRow, text)
        task = published(task_id, state, table.luma(text), original)
        _fill_in(task, table)
        return task


def read(text: bytes | Raw) -> Row:
    """Read one row, strictly if that will do."""
    try:
        return _row.decode(text)
    except (ValueError, RecursionError):
        return cast("Row", recover(Row, text))


class RowText(Struct, gc=False):
    """The row of a task as it was received; `built` is the task, where it is decoded already."""

    task_id: str
    text: bytes
    built: Generation | None = None

    def generation(self) -> Generation:
        """Return the task, decoded on demand."""
        if self.built is not None:
            return self.built
        row = read(self.text)
        return row.generation(self.task_id, row.told()[1], Raw(self.text), Raw(self.text))


_row = msgspec.json.Decoder(Row)


def created_at(text: Raw) -> datetime | None:
    """Return when the task of a row was created, if it says so."""
    if not read(text).wrapped():
        return _known(decode_lenient(_Created, text).created_at)
    table = decode_lenient(_TableRow, text)
    inner = decode_lenient(_Created, table.luma(text)).created_at
    told = map(_known, (inner, table.created_at, table.submit_time))
    return next(filter(None, told), None)


class _Created(Struct):
    """When it was, and nothing else."""

    created_at: datetime | None = None


class _TableRow(Struct):
    """What a row of the relay's own table tells beside Luma's object."""

    data: Raw = Raw(b"null")
    fail_reason: str | None = None
    result_url: str | None = None
    created_at: datetime | None = None
    submit_time: datetime | None = None

    def luma(self, text: Raw) -> Raw:
        """Return Luma's object; the row's own `text` where it holds none."""
        return self.data if bytes(self.data).startswith(b"{") else text


def _state(word: str | None) -> State:
    return _WORDS.get(word) or _meaning((word or "").lower())


def _meaning(word: str) -> State:
    """Return the state that a relay's word means; an unknown word means still running."""
    if word not in STATES:
        warn_once("unknown state %s is taken as still running", word)
    return STATES.get(word, State.PROCESSING)


def warn_once(message: str, word: str) -> None:
    """Warn once of each unknown word, of `MOST_WARNINGS` words at most."""
    warning = message % repr(word[:80])
    if warning not in _warned and len(_warned) < MOST_WARNINGS:
        _warned.add(warning)
        logger.warning("%s", warning)


def published(task_id: str, state: State, text: Raw, original: Raw) -> Generation:
    """Build a task, of such an id and state, of what makes sense in Luma's own object."""
    try:
        task = _published.decode(text)
    except (ValueError, RecursionError):
        task = Generation(id="", state=State.PENDING, **asdict(decode_lenient(Body, text)))
    force_setattr(task, "id", task_id)
    force_setattr(task, "state", state)
    force_setattr(task, "original", str(original, "utf-8", "replace"))
    force_setattr(task, "created_at", _known(task.created_at))
    if task.artifact:
        force_setattr(task.artifact, "created_at", _known(task.artifact.created_at))
    if task.prompt and task.request is None:
        force_setattr(task, "request", Request(prompt=task.prompt))
    return task


def _fill_in(task: Generation, table: _TableRow) -> None:
    """Add what the row tells; its `fail_reason` may be a reason, or the link of a success."""
    if task.created_at is None:
        created_at = _known(table.created_at) or _known(table.submit_time)
        force_setattr(task, "created_at", created_at)
    link = table.result_url or task.result_url
    if task.state is State.FAILED:
        force_setattr(task, "failure_reason", table.fail_reason or task.failure_reason)
    elif table.fail_reason and table.fail_reason.startswith(("http://", "https://")):
        link = link or table.fail_reason
    force_setattr(task, "result_url", link)


def _known(moment: datetime | None) -> datetime | None:
    """Return an aware moment; Go's zero time, and the zero of unix, mean that nobody knows."""
    if moment is None or moment.year <= 1:
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return None if aware.year == 1970 and aware == _EPOCH else aware
