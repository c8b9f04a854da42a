"""Findings about the two calls: whether they are there, their envelopes, and unknown ids."""

import json
from collections.abc import Iterator, Sequence
from typing import cast

from luma_async.diagnosis.findings import Finding, Level, Subject
from luma_async.diagnosis.questions import Answer, Answers, Call
from luma_async.errors import LumaError
from luma_async.protocol.decoding import decode_response
from luma_async.protocol.task_fields import JSONObject, as_list, as_object
from luma_async.protocol.tolerant_json import to_utf8
from luma_async.text import one_line

_NAMES: dict[Call, str] = {"get": "single", "tasks": "batch"}
_SHOWN_KEYS = 6


def calls(answers: Answers, subject: Subject) -> Iterator[Finding]:
    """Find which of the two calls the relay has."""
    if not any(a.works for a in answers.of_relay()):
        return
    for call, name in _NAMES.items():
        asked = [a for a in answers.of(call) if a.question.role != "alternative"]
        asked = asked if any(a.works for a in asked) else answers.of(call)
        check = f"{name}-call"
        if not asked:
            continue
        if any(a.works for a in asked):
            yield Finding(check, "ok", f"the {name} call answers")
        elif all(a.is_wrong_route for a in asked):
            yield _no_call(call, asked[-1])
        else:
            follows = "run it again later; if it stays so, ask the relay's operator"
            text = f"the {name} call never answers with tasks: {one_line(str(asked[-1].error))}"
            yield Finding(check, "trouble", text, follows)


def _no_call(call: Call, answer: Answer) -> Finding:
    text = f"there is no {_NAMES[call]} call: {one_line(str(answer.error))}"
    if call == "tasks":
        return Finding(
            "batch-call", "note", text, "each task is polled by a request of its own; fewer "
            "tasks at a time, or a longer --interval, keep the number of requests low",
        )  # fmt: skip
    return Finding(
        "single-call", "note", text, "an id that no batch contains counts as missing only after "
        "ten times missing_grace",
    )  # fmt: skip


def envelope(answers: Answers, _: Subject) -> Iterator[Finding]:
    """Find in which envelope tasks come."""
    for call, name in _NAMES.items():
        with_rows = [a for a in answers.of(call) if a.rows]
        plain = [one for one in map(_plain, with_rows) if one is not None]
        if not plain:
            continue
        shapes = list(dict.fromkeys(map(describe, plain)))
        level: Level = "ok" if len(shapes) == 1 else "note"
        yield Finding(f"{name}-envelope", level, f"the {name} call: {'; or '.join(shapes)}")


def _plain(answer: Answer) -> object:
    try:
        text = to_utf8(answer.body, answer.headers.get("content-type", ""))
        return cast("object", json.loads(text))
    except (ValueError, RecursionError):
        return None


def describe(plain: object) -> str:
    """Describe the envelope of a response: the keys around a task, from the outside."""
    levels: list[str] = []
    value, is_list = plain, False
    while True:
        if (items := as_list(value)) is not None:
            is_list = True
            value = items[0] if items else None
            continue
        level = as_object(value)
        inner = None if level is None else _inner(level)
        if level is None or inner is None:
            break
        levels.append(f"{{{', '.join(list(level)[:_SHOWN_KEYS])}}}")
        value = inner
    many = "an array of tasks" if is_list else "a task"
    if not levels:
        return f"{many}, without an envelope"
    kind = "rows of the relay's own table" if "task_id" in "".join(levels) else many
    return f"{kind} in {' > '.join(levels)}"


def _inner(level: JSONObject) -> object:
    """Return what an envelope contains; None if the object is a task itself."""
    if isinstance(level.get("state"), str):
        return None
    for name in ("data", "result", "results", "items", "list", "rows", "tasks", "task"):
        inner = level.get(name)
        if as_object(inner) or any(map(as_object, as_list(inner) or ())):
            return cast("object", inner)
    return None


def unknown_ids(answers: Answers, _: Subject) -> Iterator[Finding]:
    """Find how each call answers an id that does not exist."""
    for call, role, name in (("get", "unknown", "single"), ("tasks", "none", "batch")):
        asked = [a for a in answers if a.question.call == call and a.question.role == role]
        if not asked and call == "get":
            asked = [a for a in answers.of("get", "first", "alternative") if a.is_unknown_task]
        if asked and any(a.works for a in answers.of("get" if call == "get" else "tasks")):
            yield _unknown(name, asked[-1])


def _unknown(name: str, answer: Answer) -> Finding:
    check = f"{name}-unknown-id"
    if answer.is_unknown_task:
        return Finding(check, "ok", f"an unknown id is answered with {one_line(str(answer.error))}")
    if answer.response is not None:
        if answer.rows:
            return Finding(
                check, "trouble", "an unknown id is answered with a task",
                "tasks that do not exist never end as missing; give each wait a timeout",
            )  # fmt: skip
        said = one_line(answer.body[:100].decode("utf-8", "replace")) or "an empty body"
        level: Level = "ok" if name == "batch" else "note"
        follows = "" if name == "batch" else "an empty answer is no proof: it needs longer"
        return Finding(check, level, f"an unknown id is answered by {said}", follows)
    follows = "that is no word about a task: unknown ids are missing after ten times missing_grace"
    if name == "batch":
        follows = "batches that contain an unknown id are split; the single call decides"
    text = f"an unknown id is answered with {one_line(str(answer.error))}"
    return Finding(check, "note", text, follows)


def states(answers: Answers, _: Subject) -> Iterator[Finding]:
    """Find words of state that the library does not know."""
    unknown = {
        task_id
        for a in answers.of_relay()
        if a.response is not None
        for task_id in a.response.unknown_states
    }
    if unknown:
        shown = ", ".join(sorted(map(one_line, unknown))[:3])
        yield Finding(
            "states", "note", f"the word for the state of {shown} is not known",
            "it counts as running; please report the word, for example with a captured file",
        )  # fmt: skip


def about_others(answers: Answers, _: Subject) -> Iterator[Finding]:
    """Find answers about tasks that were not asked about."""
    single = [a for a in answers.of("get") if a.is_about_another]
    if single:
        yield Finding(
            "other-tasks", "trouble", f"the single call answers about another task: "
            f"{one_line(str(single[-1].error))}",
            "such answers are rejected and polled again; ask the relay's operator",
        )  # fmt: skip
    strangers = {row for a in answers.of("tasks") for row in _strangers(a)}
    if strangers:
        yield Finding(
            "other-tasks", "note", f"batches contain {len(strangers)} tasks that were not asked "
            f"about, such as {one_line(min(strangers))}", "they are ignored",
        )  # fmt: skip


def _strangers(answer: Answer) -> Sequence[str]:
    """Return the rows of a batch that no id in it fits, in any case."""
    if answer.status is None:
        return ()
    try:
        states = decode_response(answer.status, answer.headers, answer.body).states
    except LumaError:
        return ()
    asked = {task_id.lower() for task_id in answer.question.ids}
    return [name for name in states if name.lower() not in asked]
