"""The shape of a response: what two responses have in common that parse in the same way. Pure."""

import re
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any, Literal, cast

from msgspec import Struct

from luma_async.errors import LumaError
from luma_async.protocol.decoding import decode_response
from luma_async.protocol.states import known_state
from luma_async.protocol.task_fields import as_list
from luma_async.recording import vocabulary
from luma_async.recording.json_pairs import Number, Pairs, json_documents
from luma_async.recording.redaction import is_known

MAX_ROWS = 6  # objects of a list beyond those that are kept only if their shape is a new one
_STATE_KEYS = ("state", "status", "task_status", "taskstatus", "task_state", "code")
_SHAPING_HEADERS = ("content-type", "content-encoding", "retry-after", "location")
_LETTERS = re.compile(r"[^\W\d_]+")
_CHINESE = re.compile("|".join(vocabulary.CHINESE))
_MAX_WORDS = 8

Omitted = Literal["none", "unknown", "known"]


class Rows(Struct, frozen=True):
    """The rows of a response, compared with the ids that were asked about.

    `omitted`: "known" if a row is missing of an id that another response had, "unknown" if only
    others are. `order`: "request" if the rows are in the order of the ids, "other", or None.
    `case`: "upper" or "lower" if the ids came back so, and were sent otherwise; else None.
    """

    count: int
    omitted: Omitted
    order: Literal["request", "other"] | None = None
    case: Literal["upper", "lower"] | None = None


def rows_of(
    status: int, headers: Mapping[str, str], body: bytes, ids: Sequence[str], seen: Collection[str]
) -> tuple[Rows, list[str]]:
    """Return what the rows of a response are, and the ids that they are about.

    `seen` are the ids that other responses had a row of.
    """
    try:
        states = decode_response(status, headers, body).states
    except LumaError:
        return Rows(0, "unknown"), []
    asked = {task_id.lower(): task_id for task_id in ids}
    names = [name for name in states if name.lower() in asked]
    rows = [asked[name.lower()] for name in names]
    missing = [task_id for task_id in ids if task_id not in rows]
    known = any(task_id in seen for task_id in missing)
    omitted: Omitted = "none" if not missing else "known" if known else "unknown"
    order: Literal["request", "other"] | None = None
    if len(rows) > 1:
        order = "request" if rows == [i for i in ids if i in rows] else "other"
    changed = next(((a, n) for a, n in zip(rows, names, strict=True) if a != n), None)
    case: Literal["upper", "lower"] | None = None
    if changed is not None:
        case = "upper" if changed[1].isupper() else "lower"
    return Rows(len(rows), omitted, order, case), rows


def shapes_of(
    call: str, status: int, headers: Mapping[str, str], body: str, rows: Rows
) -> set[Hashable]:
    """Return what a response shows: itself without the objects of its lists, and each of them.

    Two responses of the same shape have equal sets. Header names are in lower case.
    """
    fields = tuple(
        (name, headers[name] if name.startswith("content") else "")
        for name in sorted(headers)
        if name in _SHAPING_HEADERS or "ratelimit" in name
    )
    items: set[Hashable] = set()
    documents = json_documents(body)
    whole: Hashable = (
        _words(body)
        if documents is None
        else tuple([skeleton(one, items=items) for one in documents])
    )
    found = min(rows.count, 2), rows.omitted, rows.order, rows.case
    return {(call, status, fields, whole, found), *((call, item) for item in items)}


def skeleton(value: Any, key: str = "", *, items: set[Hashable] | None = None) -> Hashable:
    """Return a JSON value without what differs between two tasks in the same state.

    The skeletons of objects in lists are added to `items`.
    """
    if isinstance(value, Pairs):
        return frozenset(
            (name if is_known(name) else "*", skeleton(one, name, items=items))
            for name, one in value
        )
    if (listed := as_list(value)) is not None:
        inner = {skeleton(one, key, items=items) for one in listed}
        if items is None or not listed or not isinstance(listed[0], Pairs):
            return "list", bool(listed), frozenset(inner)
        items |= inner
        return "list", bool(listed)
    if isinstance(value, Number):
        is_float = "." in value or "e" in value.lower()
        return value if key.lower() in _STATE_KEYS else "float" if is_float else "int"
    return _text(value, key) if isinstance(value, str) else cast("Hashable", value)


def _text(text: str, key: str) -> str:
    if key.lower() in _STATE_KEYS:
        return text if known_state(text) or is_known(text) else "word"
    if text.startswith(("http://", "https://")):
        return "url?" if "?" in text else "url"
    is_reason = "message" in key or "reason" in key or "error" in key or key in ("msg", "detail")
    if is_reason:
        return _words(text)
    return "text" if text else ""


def _words(text: str) -> str:
    known: list[str] = []
    for word in _LETTERS.findall(text[:1000]):
        known += [word] if is_known(word) else _CHINESE.findall(word)
    return " ".join(known[:_MAX_WORDS])


def trimmed(value: Any) -> Any:
    """Return a JSON value whose long lists of objects have one object of each shape."""
    if isinstance(value, Pairs):
        return Pairs((name, trimmed(one)) for name, one in value)
    if (items := as_list(value)) is None:
        return value
    if len(items) <= MAX_ROWS or not all(isinstance(one, Pairs) for one in items):
        return [trimmed(one) for one in items]
    first: dict[Hashable, Any] = {}
    for one in items:
        first.setdefault(skeleton(one), one)
    return [trimmed(one) for one in list(first.values())[:MAX_ROWS]]
