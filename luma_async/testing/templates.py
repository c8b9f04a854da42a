"""Templates: captured JSON, in which a simulated task takes the place of the captured one."""

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct

from luma_async.errors import LumaError
from luma_async.protocol.decoding import decode_response
from luma_async.protocol.task_fields import as_list, as_object, is_link
from luma_async.recording.redaction import is_unix_time
from luma_async.recording.vocabulary import TIME_KEYS
from luma_async.structs import Generation
from luma_async.testing.media import media_url
from luma_async.testing.types import Task


class Template(Struct, frozen=True):
    """A JSON value with one task in it, and what is replaced for another task."""

    plain: Any
    name: str
    link: str | None
    created: datetime | None

    def filled(self, task: Task, base_url: str) -> Any:
        """Return the value with another task in it."""
        shift = task.created - self.created.timestamp() if self.created else 0.0
        return _filled(self.plain, self, task, shift, media_url(base_url, task.id))


class Wrapper(Struct, frozen=True):
    """What is around the rows of a batch: the whole body, and the keys that lead to the list."""

    plain: Any
    path: tuple[str, ...]

    def is_empty(self, body: str) -> bool:
        """Whether a body has an empty list in the place of the rows."""
        try:
            value: object = json.loads(body)
        except (ValueError, RecursionError):
            return False
        for key in self.path:
            value = (as_object(value) or {}).get(key)
        return value == []

    def filled(self, rows: Any) -> Any:
        """Return the body with other rows in place of the list."""
        return _with_rows(self.plain, self.path, rows)


def tasks_in(plain: object, ids: Sequence[str]) -> Iterator[Generation]:
    """Yield the first task in a JSON value, if it has one of these ids."""
    body = json.dumps(plain, ensure_ascii=False).encode("utf-8", "replace")
    try:
        response = decode_response(200, {}, body).for_tasks(ids)
        if not response.states and ids:
            response = decode_response(200, {}, body).for_task(ids[0])
    except LumaError:
        return
    for name in list(response.states)[:1]:
        yield response.generation(name)


def rows_in(plain: object, ids: Sequence[str]) -> tuple[tuple[str, ...] | None, Sequence[object]]:
    """Return the keys that lead to the list of tasks, and the list; (None, ()) if there is none."""
    if (items := as_list(plain)) is not None:
        return ((), items) if any(True for row in items for _ in tasks_in(row, ids)) else (None, ())
    for key, value in (as_object(plain) or {}).items():
        path, rows = rows_in(value, ids)
        if path is not None:
            return (key, *path), rows
    return None, ()


def _with_rows(plain: Any, path: Sequence[str], rows: Any) -> Any:
    """Return a body with other rows in place of the list."""
    if not path:
        return rows
    return {**plain, path[0]: _with_rows(plain[path[0]], path[1:], rows)}


def _filled(value: Any, template: Template, task: Task, shift: float, link: str) -> Any:
    """Return a JSON value with the id, the link and the times of another task."""
    level = as_object(value)
    if level is not None:
        return {key: _field(key, one, template, task, shift, link) for key, one in level.items()}
    if (items := as_list(value)) is not None:
        return [_filled(one, template, task, shift, link) for one in items]
    return _text(value, template, task, shift, link) if isinstance(value, str) else value


def _field(key: str, value: Any, template: Template, task: Task, shift: float, link: str) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and key.lower() in TIME_KEYS and is_unix_time(float(value)):
        unit = next(unit for unit in (1, 1000, 1_000_000) if value / unit < 5e9)
        return value + int(shift * unit)
    return _filled(value, template, task, shift, link)


def _text(text: str, template: Template, task: Task, shift: float, link: str) -> str:
    if template.link is not None and is_link(text) and text == template.link:
        return link
    for change in _CASES:
        if change(template.name) in text:
            return text.replace(change(template.name), change(task.id))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    if moment.year < 2000 or len(text) < 19:
        return text
    moved = (moment + timedelta(seconds=shift)).isoformat(timespec="microseconds")
    return moved[:19] + text[19:]


def _same(text: str) -> str:
    return text


_CASES: tuple[Callable[[str], str], ...] = (_same, str.upper, str.lower)
