"""Rows as lines of JSON, which hostile text in them can neither break nor colour."""

import json
import sys
from typing import Any

from luma_async.cli.display.progress import MISSING, WAITING, Details, TaskRow
from luma_async.structs import Generation


def json_line(row: TaskRow, details: Details) -> str:
    """Return a row as one line."""
    text = json.dumps(_object(row, details), ensure_ascii=not _is_utf8(), default=str)
    return "".join(sign if sign.isprintable() else _escape(sign) for sign in text)


def _object(row: TaskRow, details: Details) -> dict[str, Any]:
    task = details.generation
    return {
        "id": row.id,
        "state": None if row.word == WAITING else row.word,
        "ended": row.ended,
        "url": task.url if task and row.word != MISSING else None,
        "failure_reason": task.failure_reason if task else None,
        "file": str(details.file) if details.file else None,
        "error": details.trouble,
        "generation": _raw(task) if task else None,
    }


def _raw(task: Generation) -> Any:
    """Return the relay's object, or its text where that holds numbers that Python does not read."""
    try:
        return task.raw
    except (ValueError, RecursionError):
        return task.original


def _escape(sign: str) -> str:
    """Write a sign that no terminal shows as JSON does."""
    return json.dumps(sign)[1:-1] if sign != "\x7f" else "\\u007f"


def _is_utf8() -> bool:
    return (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") == "utf8"
