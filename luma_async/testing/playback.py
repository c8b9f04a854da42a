"""Captured responses, played back for other tasks: envelopes, words, limits and errors of a relay.

A captured response with a task is a template: the id, the link and the times in it are replaced by
those of a simulated task. Behaviours are read from how the captured rows relate to the ids that
were asked about: a limit of rows, a filter, an order, ids in another case, a limit of ids.
"""

import gzip
import json
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any, Literal, cast

from msgspec import Struct

from luma_async.errors import LumaError, NotFoundError
from luma_async.protocol.decoding import decode_response
from luma_async.protocol.responses import Response
from luma_async.recording.capture_file import Captured
from luma_async.structs import State
from luma_async.testing import bodies
from luma_async.testing.templates import Template, Wrapper, rows_in, tasks_in
from luma_async.testing.types import Reply, Stage, Task

Call = Literal["get", "tasks"]

ERROR_EVERY = 4  # requests of a call; each captured error is played once
_NOT_PLAYED = ("date", "content-length", "content-encoding", "location")
_TRANSIENT = (408, 425, 429)
_TOO_LARGE = (400, 413, 414, 422, 431)
_FALLBACKS: dict[Stage, Stage] = {
    "pending": "processing",
    "processing": "pending",
    "without link": "processing",
}


class Playback:
    """Answers as a captured relay did.

    Raises ValueError if the file has no response to either call.
    """

    def __init__(self, captured: Sequence[Captured]) -> None:
        if not captured:
            raise ValueError("the captured file has no responses; capture with ids of your tasks")
        self._get = _Player([one for one in captured if one.call == "get"])
        self._tasks = _Player([one for one in captured if one.call == "tasks"])
        self._behaviour = behaviour_of([one for one in captured if one.call == "tasks"])

    def reply(
        self, call: Call, ids: Sequence[str], tasks: Mapping[str, Task], now: float, base_url: str
    ) -> Reply:
        """Return the reply to a request about these ids."""
        player = self._get if call == "get" else self._tasks
        if (error := player.next_error()) is not None:
            return error
        visible = {
            task_id: tasks[task_id]
            for task_id in ids
            if task_id in tasks and tasks[task_id].visible_at <= now
        }
        if call == "get":
            return self._single(visible, now, base_url)
        return self._batch(ids, visible, now, base_url)

    def _single(self, tasks: Mapping[str, Task], now: float, base_url: str) -> Reply:
        if not tasks:
            unknown = self._get.unknown
            return _sent(unknown) if unknown else Reply(400, bodies.UNKNOWN_TASK)
        (task,) = tasks.values()
        filled = self._get.filled(task, task.stage(now), base_url)
        if filled is None:
            row = self._row(task, now, base_url)
            source = self._tasks.wrapper
            filled = row if source is None else source.filled(row)
        return self._get.sent(filled)

    def _row(self, task: Task, now: float, base_url: str) -> Any:
        stage = task.stage(now)
        row = self._tasks.filled(task, stage, base_url)
        return bodies.generation(task, stage, base_url) if row is None else row

    def _batch(
        self, ids: Sequence[str], tasks: Mapping[str, Task], now: float, base_url: str
    ) -> Reply:
        limit = self._behaviour.rejection
        if limit is not None and len(ids) > limit.most:
            return _sent(limit.response)
        ordered = list(tasks.values())
        if not self._behaviour.in_order_of_request:
            ordered.sort(key=lambda task: task.number)
        if self._behaviour.ended_only:
            ordered = [task for task in ordered if task.ends_at is not None and task.ends_at <= now]
        ordered = ordered[: self._behaviour.most_rows]
        if not ordered and self._tasks.unknown is not None:
            return _sent(self._tasks.unknown)
        rows = [self._row(task, now, base_url) for task in ordered]
        source = self._tasks.wrapper
        return self._tasks.sent(rows if source is None else source.filled(rows))


class _Player:
    """The captured responses to one call: templates, the reply for unknown ids, and errors."""

    def __init__(self, captured: Sequence[Captured]) -> None:
        self.wrapper: Wrapper | None = None
        self.unknown: Captured | None = None
        self._first: Captured | None = None
        self._templates: dict[Stage, Template] = {}
        errors: list[Captured] = []
        for one in captured:
            response, error = _decoded(one)
            if response is not None and one.rows.count:
                self._learn(one)
            elif response is not None or _is_unknown(error):
                self.unknown = _better_unknown(self.unknown, one, error)
            else:
                errors.append(one)
        empty = [one for one in errors if self.wrapper and self.wrapper.is_empty(one.body)]
        errors = [one for one in errors if one not in empty]
        self.unknown = self.unknown or next(iter(empty), None)
        self._requests = 0
        self._works = self._first is not None or self.unknown is not None
        transient = (one for one in errors if _is_transient(one))
        self._once = iter([_sent(one) for one in transient] if self._works else [])
        self._always = cycle([_sent(one) for one in errors]) if errors and not self._works else None

    def next_error(self) -> Reply | None:
        """Return a captured error if it is its turn: each once, or always if there is no more."""
        self._requests += 1
        if self._always is not None:
            return next(self._always)
        return next(self._once, None) if self._requests % ERROR_EVERY == 0 else None

    def _learn(self, one: Captured) -> None:
        """Add the templates that a response has."""
        try:
            plain = cast("object", json.loads(one.body))
        except (ValueError, RecursionError):
            return
        self._first = self._first or one
        if one.call == "get":
            self._add(plain, one.ids)
            return
        path, rows = rows_in(plain, one.ids)
        if path is not None:
            self.wrapper = self.wrapper or Wrapper(plain, path)
            for row in rows:
                self._add(row, one.ids)

    def _add(self, plain: object, ids: Sequence[str]) -> None:
        for task in tasks_in(plain, ids):
            link = task.url
            stage: Stage = task.state.value
            if task.state is State.COMPLETED and link is None:
                stage = "without link"
            self._templates.setdefault(stage, Template(plain, task.id, link, task.created_at))

    def filled(self, task: Task, stage: Stage, base_url: str) -> Any:
        """Return a template with a task in it; None if no such state was captured."""
        template = self._templates.get(stage) or self._templates.get(_FALLBACKS.get(stage, stage))
        return None if template is None else template.filled(task, base_url)

    def sent(self, plain: Any) -> Reply:
        """Return a reply with a body, and with the headers that were captured."""
        body = json.dumps(plain, ensure_ascii=False)
        if self._first is None:
            return Reply(200, body.encode("utf-8", "replace"))
        return _sent(self._first, body)


class Rejection(Struct, frozen=True):
    """How a batch of more than `most` ids is rejected."""

    most: int
    response: Captured


class Behaviour(Struct, frozen=True):
    """What the batch call of a captured relay does with ids and rows."""

    most_rows: int | None = None
    ended_only: bool = False
    in_order_of_request: bool = False
    rejection: Rejection | None = None


def behaviour_of(captured: Sequence[Captured]) -> Behaviour:
    """Return what the captured batches show."""
    decoded = [(one, *_decoded(one)) for one in captured]
    answered = [(one, response) for one, response, _ in decoded if response is not None]
    omitting = [(one, r) for one, r in answered if one.rows.omitted == "known"]
    states = [state for _, r in answered for state in r.states.values()]
    ended_only = bool(omitting and states) and all(state.is_done for state in states)
    most = max((one.rows.count for one, _ in answered), default=0)
    orders = {one.rows.order for one, _ in answered} - {None}
    accepted = max((one.asked for one, _ in answered), default=0)
    refused = (
        one
        for one, _, error in decoded
        if one.status in _TOO_LARGE and one.asked > accepted > 0 and not _is_unknown(error)
    )
    first = next(refused, None)
    return Behaviour(
        most_rows=most if omitting and not ended_only else None,
        ended_only=ended_only,
        in_order_of_request=orders == {"request"},
        rejection=None if first is None else Rejection(accepted, first),
    )


def _decoded(one: Captured) -> tuple[Response | None, LumaError | None]:
    """Return what the library reads in a captured response."""
    try:
        response = decode_response(one.status, one.headers, one.body.encode())
        if one.call == "get" and one.ids:
            return response.for_task(one.ids[0]), None
        return response.for_tasks(one.ids), None
    except LumaError as error:
        return None, error


def _is_unknown(error: LumaError | None) -> bool:
    return isinstance(error, NotFoundError) and error.about_task


def _better_unknown(known: Captured | None, new: Captured, error: LumaError | None) -> Captured:
    """Prefer what says that the task does not exist to an empty answer."""
    return new if known is None or (_is_unknown(error) and known.status < 300) else known


def _is_transient(one: Captured) -> bool:
    return one.status in _TRANSIENT or one.status >= 500 or one.status < 300


def _sent(one: Captured, body: str | None = None) -> Reply:
    """Return a captured response as a reply, with another body if one is given."""
    raw = (one.body if body is None else body).encode("utf-8", "replace")
    headers = {name: value for name, value in one.headers.items() if name not in _NOT_PLAYED}
    if one.headers.get("content-encoding", "") == "gzip":
        raw, headers = gzip.compress(raw), {**headers, "content-encoding": "gzip"}
    return Reply(min(max(one.status, 200), 599), raw, headers)
