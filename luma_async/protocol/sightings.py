"""Tasks in an answer of any shape: which objects in it are tasks, their names and their states.

Relays wrap Luma's object in rows of their own table, in envelopes, and in the envelopes of the
relay behind them: `{"data": {"data": {"data": {…}}}}`. A sighting is one task with the objects
around it, from the outermost to the innermost. Its names are all ids on the way. Its state is the
first end on the way in; without one, the first word that is known.

An envelope has an id and a status of its own sometimes (of the request, not of a task). They are
ignored where an object inside has a name.
"""

from collections.abc import Container, Iterator

from msgspec import Struct

from luma_async.protocol.states import known_state
from luma_async.protocol.task_fields import JSONObject, as_list, as_object
from luma_async.structs import State

_CONTAINERS = (
    "data", "result", "results", "response", "task", "tasks", "generation", "generations", "items",
    "list", "records", "rows", "content", "output",
)  # fmt: skip
_STATE_KEYS = ("state", "status", "task_status", "taskStatus", "task_state", "taskState")
_OWN_STATE_KEYS = ("state", "task_status", "taskStatus", "task_state", "taskState")
_TASK_FIELDS = frozenset((
    "video", "video_raw", "assets", "artifact", "thumbnail", "last_frame", "request", "prompt",
    "progress", "created_at", "submit_time", "start_time", "finish_time", "action", "platform",
    "fail_reason", "failure_reason", "result_url", "video_url", "task_result", "output", "metadata",
))  # fmt: skip
_NAME_KEYS = ("task_id", "taskId", "generation_id", "generationId", "id")
_MAX_DEPTH = 8


class Sighting(Struct, frozen=True):
    """One task in an answer: the objects around it, from the outermost to the innermost."""

    levels: tuple[JSONObject, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All ids on the way in, the most certain ones first; empty if there is none."""
        by_key = (level.get(key) for key in _NAME_KEYS for level in self.levels)
        return tuple(dict.fromkeys(name for name in by_key if isinstance(name, str) and name))

    @property
    def is_task(self) -> bool:
        """Whether it is a task even without a name: what an error or an envelope does not have.

        That is a `state`, or a `status` beside a field of a task.
        """
        return any(
            any(isinstance(level.get(key), str) for key in _OWN_STATE_KEYS)
            or (isinstance(level.get("status"), str) and not _TASK_FIELDS.isdisjoint(level))
            for level in self.levels
        )

    def name(self, asked: Container[str] = ()) -> str | None:
        """Return the id that was asked about if it is among the names, else the first name."""
        names = self.names
        return next((name for name in names if name in asked), names[0] if names else None)

    def state(self, asked: Container[str] = ()) -> tuple[State | None, str]:
        """Return the state, None if no word is known, and the word that is not known.

        An envelope may repeat the id: then its words are of the request.
        """
        levels = self.identified(asked)
        inner = Sighting(levels[1:])
        if levels[0].get("id") in inner.names and not _is_row_of_table(levels[0]):
            return inner.state(asked)
        known: list[State] = []
        unknown = ""
        for level in levels:
            states, word = _words(level)
            known += states
            unknown = unknown or word
        end = next((state for state in known if state.is_done), None)
        return end or next(iter(known), None), unknown

    def identified(self, asked: Container[str]) -> tuple[JSONObject, ...]:
        """Return the objects that are the task or its row, not an envelope around it."""
        for depth, level in enumerate(self.levels[:-1]):
            row_of_table = _is_row_of_table(level)
            own = level.get("id")
            if row_of_table or (isinstance(own, str) and own in asked):
                return self.levels[depth:]
            inner = Sighting(self.levels[depth + 1 :])
            if not inner.names and isinstance(own, str) and own and _words(level)[0]:
                return self.levels[depth:]
            if not any(_words(one) != ([], "") for one in inner.levels):
                return self.levels[depth:]
        return self.levels[-1:]


def sightings(plain: object, asked: Container[str] = ()) -> list[Sighting]:
    """Return the tasks in an answer; empty if it holds none."""
    items = as_list(plain)
    levels = map(as_object, [plain] if items is None else items)
    return [one for level in levels if level is not None for one in _within(level, asked, 0)]


def _within(level: JSONObject, asked: Container[str], depth: int) -> Iterator[Sighting]:
    named = any(isinstance(level.get(key), str) and level[key] in asked for key in _NAME_KEYS)
    for key in _CONTAINERS:
        if not named and not _is_row_of_table(level):
            rows = [
                row
                for row in map(as_object, as_list(level.get(key)) or ())
                if row and _holds_task(row, depth + 1)
            ]
            if rows and (key == "data" or not _looks_like_task(level)):
                for row in rows:
                    yield from _within(row, asked, depth + 1)
                return
        inner = as_object(level.get(key))
        if inner is not None and _holds_task(inner, depth + 1):
            for one in _within(inner, asked, depth + 1):
                yield Sighting((level, *one.levels))
            return
    yield Sighting((level,))


def _holds_task(value: object, depth: int) -> bool:
    """Whether a value is a task, or an object that holds one in `_MAX_DEPTH` envelopes or fewer."""
    level = as_object(value)
    if level is None or depth > _MAX_DEPTH:
        return False
    deeper = depth + 1
    return _looks_like_task(level) or any(
        _holds_task(one, deeper) or any(_holds_task(row, deeper) for row in as_list(one) or ())
        for one in map(level.get, _CONTAINERS)
    )


def _looks_like_task(level: JSONObject) -> bool:
    """Whether an object has an id or a word of state."""
    named = any(isinstance(level.get(key), str) and level[key] for key in _NAME_KEYS)
    return named or any(isinstance(level.get(key), str) for key in _STATE_KEYS)


def _is_row_of_table(level: JSONObject) -> bool:
    """Whether an object is a row of the relay's own table: it has a task id or a number."""
    number = level.get("id")
    has_number = isinstance(number, int) and not isinstance(number, bool)
    return has_number or any(
        isinstance(level.get(key), str) and bool(level[key]) for key in ("task_id", "taskId")
    )


def _words(level: JSONObject) -> tuple[list[State], str]:
    """Return the states that one object says, and the first word that is not known.

    In Luma's own object `state` comes before `status`, which may be of the request. In a row of the
    table a final state comes first.
    """
    said = [level[key] for key in _STATE_KEYS if isinstance(level.get(key), str)]
    known = [state for word in said if (state := known_state(word)) is not None]
    unknown = next((word for word in said if known_state(word) is None and word.strip()), "")
    return (known if _is_row_of_table(level) else known[:1]), unknown
