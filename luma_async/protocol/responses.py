"""Responses: bytes to the state of each task, and to the whole task on demand.

A response is decoded twice at most. Every poll needs an id and a state of each row: `states`, which
is decoded without the rest. The whole Generation is built by `generation` when the task has ended
or is asked for; of an open task the scheduler keeps `row`, its text. A response that does not name
the ids that were asked about is read again, by `sightings`.
"""

from collections.abc import Callable, Collection, Container, Mapping, Sequence
from datetime import datetime
from functools import cached_property

import msgspec
from msgspec import Raw, Struct

from luma_async.errors import DecodeError
from luma_async.protocol.error_responses import undecodable
from luma_async.protocol.headers import http_date
from luma_async.protocol.rows import (
    Row,
    RowText,
    build,
    build_published,
    build_sighted,
    created_at,
    plain_json,
    state_of,
)
from luma_async.protocol.sightings import Sighting, sightings
from luma_async.protocol.states import warn_once
from luma_async.protocol.task_fields import as_list, as_object
from luma_async.structs import Generation, State
from luma_async.text import one_line


class _Envelope(Struct):
    data: Raw


_RANK = {State.PENDING: 0, State.PROCESSING: 1, State.FAILED: 2, State.COMPLETED: 3}
_LEAST_FINISHED = (State.PENDING, State.PROCESSING, State.COMPLETED, State.FAILED)


class Response:
    """One response: the state of each task in it, the whole task on demand.

    `states` has the state of each id, `names` the ids in the order of the rows (default: that of
    `states`), `unknown_states` the ids whose word of state is not known (they count as running).
    `published`: all rows are as published, none is of the relay's table. `retry_after` is in
    seconds, or None; `sent` is the Date header.
    """

    retry_after: float | None = None
    sent: str | None = None
    unknown_states: frozenset[str] = frozenset()

    def __init__(
        self,
        states: dict[str, State] | None = None,
        text: bytes = b"",
        *,
        names: Sequence[str] = (),
        enveloped: bool = False,
        published: bool = False,
    ) -> None:
        self.states: dict[str, State] = {} if states is None else states
        self._names = names
        self._text = text
        self._enveloped = enveloped
        self._build = build_published if published else build
        self.sighted: dict[str, Sighting] = {}
        self.unnamed: list[Sighting] = []
        self._original = ""

    @classmethod
    def of_rows(
        cls, rows: Sequence[tuple[str, State]], text: bytes, *, enveloped: bool
    ) -> "Response":
        """Return the response that clean rows are; of two rows of a task the later state wins."""
        states: dict[str, State] = {}
        for name, state in rows:
            states[name] = max(states.get(name, state), state, key=_RANK.__getitem__)
        return cls(states, text, names=[name for name, _ in rows], enveloped=enveloped)

    @classmethod
    def of(cls, plain: object, text: bytes, asked: Container[str] = ()) -> "Response":
        """Return the response that plain JSON is, of any shape; it may have no rows.

        Of several rows of one task a final state wins over running, completed over failed; of two
        in the same state the longer one, which may have a link that the other has not.
        """
        response = cls(text=text)
        unknown: set[str] = set()
        for one in sightings(plain, asked):
            name = one.name(asked)
            if name is None:
                if one.is_task:
                    response.unnamed.append(one)
                continue
            state, is_known = state_of(one, name)
            if name in response.states:
                before = response.states[name]
                longer = _length(one) > _length(response.sighted[name])
                if (_RANK[state], longer) <= (_RANK[before], False):
                    continue
            response.states[name] = state
            response.sighted[name] = one
            (unknown.discard if is_known else unknown.add)(name)
        response.unknown_states = frozenset(unknown)
        return response

    def generation(self, task_id: str) -> Generation:
        """Build the whole task; KeyError if the response does not contain it."""
        if task_id in self.sighted:
            original = self._original or self._text_of(task_id)
            return build_sighted(task_id, self.states[task_id], self.sighted[task_id], original)
        return self._build(task_id, self.states[task_id], self._texts[task_id])

    def row(self, task_id: str) -> RowText:
        """Return the row of a task; KeyError if the response does not contain it."""
        if task_id in self.sighted:
            return RowText(task_id, b"", self.generation(task_id))
        return RowText(task_id, bytes(self._texts[task_id]))

    def age(self, task_id: str) -> float:
        """Return the age of a task in seconds, by the relay's own clocks; 0 if unknown."""
        if not self._date:
            return 0.0
        text = self._text_of(task_id).encode() if task_id in self.sighted else None
        created = created_at(Raw(text) if text else self._texts[task_id])
        return (self._date - created).total_seconds() if created else 0.0

    @cached_property
    def _date(self) -> datetime | None:
        return http_date(self.sent)

    def for_task(
        self, task_id: str, open_ids_like: Callable[[str], Collection[str]] = lambda _: ()
    ) -> "Response":
        """Return the response as one to the single GET; DecodeError if it is about another task.

        A row without any name is about the task that was asked about. One host answers with the
        videos of the task, whose ids are their own (seen in its document). The task is then what
        its least finished video is, has the link of the first, and all of them in `raw`.
        `open_ids_like` returns the open ids that equal a name without regard to case: a name that
        is or fits another one's is not taken for this one's.
        """
        if task_id in self.states or (not self.states and not self.unnamed):
            return self
        again = self._again((task_id,))
        if task_id in again.states:
            return again
        if again.unnamed and not again.states:
            return self._named(task_id, again.unnamed)
        folded = [name for name in again.states if name.lower() == task_id.lower()]
        if len(folded) == 1 and {*open_ids_like(folded[0])} <= {task_id}:
            return again._renamed({folded[0]: task_id})
        if self._is_list_of_videos() and not any(map(open_ids_like, again.states)):
            return again._least_finished(task_id)
        raise self._about_another(task_id)

    def for_tasks(
        self,
        ids: Collection[str],
        open_ids_like: Callable[[str], Collection[str]] = lambda _: (),
    ) -> "Response":
        """Return the response as one to the batch POST: the rows of the ids that were asked about.

        An id matches exactly, else without regard to case, if only one id fits. Warn of tasks that
        were not asked about. DecodeError if the response is one object about another task.
        """
        asked = frozenset(ids)
        if self.states.keys() <= asked:
            if self.unnamed and not self.states:
                raise self._about_another(next(iter(ids)))
            return self
        response = self
        if not asked <= self.states.keys():
            response = self._again(asked)
            by_folded: dict[str, list[str]] = {}
            for task_id in asked - response.states.keys():
                by_folded.setdefault(task_id.lower(), []).append(task_id)
            renamed: dict[str, str] = {}
            for name in response.states.keys() - asked:
                fitting = by_folded.get(name.lower(), ())
                if len(fitting) == 1 and {*open_ids_like(name)} <= {fitting[0]}:
                    renamed[name] = fitting[0]
            response = response._renamed(renamed) if renamed else response
        strangers = response.states.keys() - asked
        if len(strangers) == len(response.states) == 1 and not _is_array(self._whole()):
            raise self._about_another(next(iter(ids)))
        for stranger in strangers:
            warn_once(
                "the relay answers about task %s, which was not asked about; ignored", stranger
            )
        return response._without(strangers) if strangers else response

    def _again(self, asked: Collection[str]) -> "Response":
        """Return the response read again, now that it is known which ids it is about."""
        return self._same_headers(Response.of(plain_json(self._text), self._text, asked))

    def _same_headers(self, other: "Response") -> "Response":
        other.retry_after, other.sent = self.retry_after, self.sent
        return other

    def _named(self, task_id: str, unnamed: Sequence[Sighting]) -> "Response":
        """Return the response about the one task that was asked about, which it does not name."""
        if len(unnamed) != 1:
            raise undecodable(200, self._text)
        response = self._same_headers(Response(text=self._text))
        state, is_known = state_of(unnamed[0], task_id)
        response.states = {task_id: state}
        response.sighted = {task_id: unnamed[0]}
        response.unknown_states = frozenset(() if is_known else (task_id,))
        return response

    def _renamed(self, names: Mapping[str, str]) -> "Response":
        """Return the response with the names as they were asked about."""
        response = self._same_headers(Response(text=self._text))
        response.states = {names.get(name, name): one for name, one in self.states.items()}
        response.sighted = {names.get(name, name): one for name, one in self.sighted.items()}
        unknown = self.unknown_states
        response.unknown_states = frozenset(names.get(name, name) for name in unknown)
        return response

    def _without(self, names: Collection[str]) -> "Response":
        self._names = self._names or list(self.states)
        for name in names:
            self.states.pop(name, None)
        self.unknown_states = self.unknown_states - frozenset(names)
        return self

    def _least_finished(self, task_id: str) -> "Response":
        least = min(self.states, key=lambda name: _LEAST_FINISHED.index(self.states[name]))
        response = self._renamed({least: task_id})
        response._original = msgspec.json.encode(plain_json(self._text)["data"]).decode()
        return response._without([name for name in response.states if name != task_id])

    def _is_list_of_videos(self) -> bool:
        """Whether this is a bare list under `data`: no task ids, no status, no page of a table."""
        level = as_object(plain_json(self._text))
        if level is None or level.keys() != {"data"}:
            return False
        rows = map(as_object, as_list(level["data"]) or [None])
        return all(
            row is not None and not {"task_id", "taskId", "status"} & row.keys() for row in rows
        )

    def _about_another(self, task_id: str) -> DecodeError:
        first = next(iter(self.states), "a task without a name")
        error = DecodeError(
            f"asked about {one_line(task_id)}, the relay answers about {one_line(first)}"
        )
        error.retry_after = self.retry_after
        return error

    def _text_of(self, task_id: str) -> str:
        return msgspec.json.encode(self.sighted[task_id].identified((task_id,))[0]).decode()

    @cached_property
    def _texts(self) -> dict[str, Raw]:
        whole = self._whole()
        texts = msgspec.json.decode(whole, type=list[Raw]) if _is_array(whole) else [whole]
        names = self._names or list(self.states)
        if len(set(names)) == len(names):
            return dict(zip(names, texts, strict=True))
        found: dict[str, Raw] = {}
        for name, text in zip(names, texts, strict=True):
            clean = msgspec.json.decode(text, type=Row).name_and_state()
            if clean is not None and clean[1] is self.states.get(name):
                found[name] = max(found.get(name, text), text, key=lambda one: len(bytes(one)))
        return found

    def _whole(self) -> Raw:
        if self._enveloped:
            return msgspec.json.decode(self._text, type=_Envelope).data
        return Raw(self._text)


def _length(sighting: Sighting) -> int:
    return len(msgspec.json.encode(sighting.levels[0]))


def _is_array(text: Raw) -> bool:
    return bytes(text).lstrip()[:1] == b"["
