"""The fields of a row, as the commands print them in lines."""

from collections.abc import Callable
from typing import Any

from luma_async.cli.display.progress import MISSING, WAITING, Details, TaskRow
from luma_async.structs import Generation

ROW_FIELDS: dict[str, Callable[[TaskRow, Details], Any]] = {
    "id": lambda row, _: row.id,
    "state": lambda row, _: None if row.word == WAITING else row.word,
    "ended": lambda row, _: row.ended,
    "url": lambda row, details: details.link if row.word != MISSING else None,
    "failure_reason": lambda _, details: details.failure_reason,
    "file": lambda _, details: str(details.file) if details.file else None,
    "error": lambda _, details: details.trouble,
    "generation": lambda _, details: original(details.generation),
}


def row_values(row: TaskRow, details: Details, fields: tuple[str, ...]) -> dict[str, Any]:
    """Return the values of these fields of a row."""
    return {name: ROW_FIELDS[name](row, details) for name in fields}


def original(task: Generation | None) -> Any:
    """Return the relay's object, or its text where that holds numbers that Python does not read."""
    try:
        return task.raw if task else None
    except (ValueError, RecursionError):
        return task.original if task else None
