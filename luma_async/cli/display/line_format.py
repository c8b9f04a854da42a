"""Lines of JSON or CSV, which hostile text in them can neither break nor colour."""

import csv
import io
import json
import sys
from collections.abc import Mapping
from typing import Any

from msgspec import Struct


class LineFormat(Struct, frozen=True):
    """Format values as one line: these fields, in this order, as a JSON object or as CSV."""

    fields: tuple[str, ...]
    as_csv: bool = False

    @property
    def header(self) -> str:
        """The first line of CSV; empty for JSON."""
        return ",".join(self.fields) if self.as_csv else ""

    def line(self, values: Mapping[str, Any]) -> str:
        """Return the fields of a row as one line, without its line end."""
        if not self.as_csv:
            return json_line({name: values[name] for name in self.fields})
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="")
        writer.writerow([_cell(values[name]) for name in self.fields])
        return text.getvalue()


def json_line(value: object) -> str:
    """Return a value as one line of JSON."""
    return escaped(json.dumps(value, ensure_ascii=not _is_utf8(), default=str))


def escaped(text: str) -> str:
    """Write the characters that a terminal does not show, or would obey, as JSON does."""
    if text.isprintable():  # of most lines; sign by sign it takes a hundred times as long
        return text
    return "".join(sign if sign.isprintable() else _escape(sign) for sign in text)


def _cell(value: object) -> str:
    """Return a value as text: empty for None, JSON for all that is no text."""
    if value is None:
        return ""
    if not isinstance(value, str):
        return json_line(value)
    return escaped(value) if _is_utf8() else json_line(value)[1:-1]


def _escape(sign: str) -> str:
    return json.dumps(sign)[1:-1] if sign != "\x7f" else "\\u007f"


def _is_utf8() -> bool:
    return (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") == "utf8"
