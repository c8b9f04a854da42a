"""The two requests that submit a task, and the id in the answer: pure.

A submission has `user_prompt` and only those other fields that were given: relays differ in their
defaults. Fields without a name here are sent as they are.

Relays answer a submission with the pending task, an array of it, or an envelope with the id alone;
some write a second JSON document behind the first. The id is the first text among `id`, `task_id`,
`data.id`, `data.task_id` and `data`; in an array, those of its first item.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import force_setattr, replace

from luma_async import validation as checks
from luma_async.errors import DecodeError, LumaError
from luma_async.protocol.decoding import first_document, is_error
from luma_async.protocol.error_responses import error_from_response
from luma_async.protocol.headers import lower_case, retry_after
from luma_async.protocol.requests import HTTPRequest, single_request
from luma_async.protocol.rows import build_sighted, plain_json
from luma_async.protocol.sightings import Sighting
from luma_async.protocol.states import known_state
from luma_async.protocol.task_fields import JSONObject, as_list, as_object
from luma_async.protocol.tolerant_json import to_utf8
from luma_async.structs import Generation, State
from luma_async.text import one_line, without_secrets

SUBMIT_PATH = "/luma/generations"
MAX_SHOWN_PROMPT = 60  # characters
_RATIO = re.compile(r"[1-9][0-9]{0,3}:[1-9][0-9]{0,3}")
_IMAGE = re.compile(r"https?://[^\s/]|data:image/[\w.+-]+;base64,[A-Za-z0-9+/=_-]+\Z")
_TEXTS = ("user_prompt", "aspect_ratio", "image_url", "image_end_url")
_NAMED = ("aspect_ratio", "expand_prompt", "loop", "image_url", "image_end_url")


class Submission(Struct, frozen=True, kw_only=True):
    """What is submitted; None is not sent. `extends` is the id of the task to extend, or None.

    `others` are fields that this package has no name for. Raises ValueError or TypeError for what
    no relay accepts; no error repeats a link.
    """

    user_prompt: str
    aspect_ratio: str | None = None
    expand_prompt: bool | None = None
    loop: bool | None = None
    image_url: str | None = None
    image_end_url: str | None = None
    others: Mapping[str, Any] = {}
    extends: str | None = None

    def __post_init__(self) -> None:
        if not checks.unicode_text("user_prompt", self.user_prompt).strip():
            raise ValueError("user_prompt is empty; give the words of the video")
        for name in _TEXTS:
            if (value := getattr(self, name)) is not None:
                force_setattr(self, name, checks.unicode_text(name, value))
        if self.aspect_ratio is not None and not _RATIO.fullmatch(self.aspect_ratio):
            raise ValueError(f"aspect_ratio={one_line(self.aspect_ratio)!r}; give one such as 16:9")
        for name in ("expand_prompt", "loop"):
            checks.instance(name, getattr(self, name), (bool, type(None)), "True or False")
        for name in ("image_url", "image_end_url"):
            _check_image(name, getattr(self, name))
        for name, value in self.others.items():
            _check_other(name, value)
        if self.extends is not None:
            force_setattr(self, "extends", checks.task_id(self.extends))

    @property
    def fields(self) -> dict[str, Any]:
        """The fields that are sent."""
        named = {name: getattr(self, name) for name in _NAMED}
        given = {"user_prompt": self.user_prompt, **named, **self.others}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def call(self) -> Literal["create", "extend"]:
        """The call of the session that submits it."""
        return "create" if self.extends is None else "extend"

    @property
    def ids(self) -> int:
        """How many ids the request has."""
        return 0 if self.extends is None else 1

    @property
    def request(self) -> HTTPRequest:
        """The POST that submits it."""
        path = SUBMIT_PATH
        if self.extends is not None:
            path = f"{single_request(self.extends).path}/extend"
        return HTTPRequest("POST", path, msgspec.json.encode(self.fields))

    def __repr__(self) -> str:
        names = ", ".join(name for name in self.fields if name != "user_prompt")
        return f"Submission({shown_prompt(self.user_prompt)!r}{names and f', with {names}'})"


class Submitted(Struct, frozen=True):
    """The answer to a submission: the new task, and Retry-After in seconds or None."""

    generation: Generation
    retry_after: float | None = None


def shown_prompt(user_prompt: str) -> str:
    """Return a prompt as one line of `MAX_SHOWN_PROMPT` characters, without what is secret."""
    line = one_line(without_secrets(user_prompt))
    return line if len(line) <= MAX_SHOWN_PROMPT else f"{line[:MAX_SHOWN_PROMPT]}…"


def decode_submission(status: int, headers: Mapping[str, str], body: bytes) -> Submitted:
    """Decode the answer to a submission, or raise the error that it means.

    Raise APIError if the relay says an error, under whatever status; DecodeError if there is no id
    in the answer, or if it says an error and names a task.
    """
    fields = lower_case(headers)
    delay = retry_after(fields)
    text = to_utf8(body, fields.get("content-type", ""))
    try:
        if not 200 <= status < 300:
            if status >= 500:
                _refuse_named_task(status, _plain(text), text)
            raise error_from_response(status, fields, text)
        return Submitted(_generation(status, fields, text), delay)
    except LumaError as error:
        error.retry_after = delay
        raise


def _generation(status: int, fields: Mapping[str, str], body: bytes) -> Generation:
    level = _plain(body)
    if level is not None:
        if is_error(level) and not ("state" in level and isinstance(level.get("id"), str)):
            _refuse_named_task(status, level, body)
            raise error_from_response(status, fields, body)
        for task_id, levels in _ids(level):
            with suppress(ValueError, TypeError):
                return _build(checks.task_id(task_id), levels)
        if level.get("detail"):
            raise error_from_response(status, fields, body)
    raise DecodeError(f"status {status} without the id of a task: {_shown(body)}")


def _plain(body: bytes) -> JSONObject | None:
    """Return the object of an answer, or the first one of an array; None if there is none."""
    plain: object = None
    with suppress(ValueError, RecursionError):
        plain = plain_json(body)
    if plain is None:
        plain = first_document(body)
    items = as_list(plain)
    return as_object(items[0] if items else plain)


def _refuse_named_task(status: int, level: JSONObject | None, body: bytes) -> None:
    """Raise DecodeError if an error names a task: it may have been made.

    An `id` beside the error is that of the request; a `data` that is text is a message.
    """
    for task_id, levels in () if level is None else _ids(level):
        named = "task_id" in levels[-1] or len(levels) > 1
        if named and isinstance(task_id, str) and task_id:
            name = one_line(task_id)
            raise DecodeError(
                f"status {status} and an error that names task {name}: {_shown(body)}"
            )


def _shown(body: bytes) -> str:
    return one_line(body[:4096].decode("utf-8", "replace")) or "an empty body"


def _ids(level: JSONObject) -> Iterator[tuple[object, tuple[JSONObject, ...]]]:
    """Yield what may be the id, the most certain first, with the objects around it."""
    yield level.get("id"), (level,)
    yield level.get("task_id"), (level,)
    rows = as_list(level.get("data"))
    inner = as_object(rows[0] if rows else level.get("data"))
    if inner is not None:
        yield inner.get("id"), (level, inner)
        yield inner.get("task_id"), (level, inner)
    yield level.get("data"), (level,)


def _build(task_id: str, levels: tuple[JSONObject, ...]) -> Generation:
    row = as_object(levels[-1].get("data"))
    sighting = Sighting((*levels, row) if row is not None else levels)
    original = msgspec.json.encode(levels[-1]).decode()
    state, _ = sighting.state((task_id,))
    task = build_sighted(task_id, state or State.PENDING, sighting, original)
    return replace(task, state=_state(sighting.levels))


def _state(levels: tuple[JSONObject, ...]) -> State:
    """Return the state of a new task. A `status` of success may be that of the request."""
    for level in reversed(levels):
        if (state := known_state(level.get("state"))) is not None:
            return state
    state = known_state(levels[-1].get("status"))
    return State.PENDING if state is None or state.is_done else state


def _check_image(name: str, value: str | None) -> None:
    if value is not None and not _IMAGE.match(value):
        remedy = "give an https URL, or data:image/png;base64,…"
        raise ValueError(f"{name} is no link to an image; {remedy}")


def _check_other(name: str, value: object) -> None:
    checks.unicode_text("a field's name", name)
    if name in ("prompt", ""):
        raise ValueError(f"relays have no field {name!r}; give user_prompt")
    try:
        msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError):
        kind = type(value).__name__
        raise TypeError(
            f"{one_line(name)} is of type {kind}; give text, a number or JSON"
        ) from None
