"""A file of prompts: a prompt in a line (.txt), a table (.csv), or an object in a line (.jsonl).

The columns of a table and the names in an object are those of the fields of a submission; an empty
cell is not sent. The key of a row is a digest of its fields, and its number among the rows with the
same fields. So rows can be added, removed and reordered between two runs.
"""

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
from msgspec import Struct

from luma_async.protocol.submissions import Submission, shown_prompt

MAX_CELL = 2**26  # characters; an image may be in a cell
_NAMED = frozenset(Submission.__struct_fields__) - {"others", "extends"}
_FLAGS = ("expand_prompt", "loop")
_YES, _NO = ("true", "yes", "1"), ("false", "no", "0")


class PromptRow(Struct, frozen=True):
    """One row of the file; `line` is where it begins, from 1."""

    key: str
    line: int
    submission: Submission

    @property
    def prompt(self) -> str:
        """The prompt, in one short line."""
        return shown_prompt(self.submission.user_prompt)


def read_prompts(path: Path) -> list[PromptRow]:
    """Read a file of prompts; ValueError for one that is not valid, OSError if it is not there."""
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise ValueError(f"{path} is no file of prompts; give a .csv, .jsonl or .txt")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not valid text; save it as UTF-8") from None
    if "\0" in text:  # UTF-16 without a byte order mark
        raise ValueError(f"{path} is not valid text; save it as UTF-8")
    rows: list[PromptRow] = []
    seen: Counter[str] = Counter()
    try:
        for line, fields in read(text):
            rows.append(_row(line, fields, seen))
    except _InvalidRow as error:
        raise ValueError(f"{path} {error}") from None
    if not rows:
        raise ValueError(f"{path} has no prompts; give at least one")
    return rows


_OF_A_TASK = frozenset(("task_id", "extends"))


class _InvalidRow(Exception):
    """A row that cannot be sent."""

    def __init__(self, line: int, what: object) -> None:
        super().__init__(f"line {line}: {what}")


def _row(line: int, fields: dict[str, Any], seen: Counter[str]) -> PromptRow:
    given = {name: value for name, value in fields.items() if value is not None}
    if "user_prompt" not in given:
        raise _InvalidRow(line, "there is no user_prompt; give one")
    if names := _OF_A_TASK & given.keys():
        what = f"{min(names)} is of a task that exists, and a new one would be made; remove it"
        raise _InvalidRow(line, what)
    named = {name: value for name, value in given.items() if name in _NAMED}
    others = {name: value for name, value in given.items() if name not in _NAMED}
    try:
        submission = Submission(**named, others=others)
    except (TypeError, ValueError) as error:
        raise _InvalidRow(line, error) from None
    whole = msgspec.json.encode(submission.fields, order="deterministic")
    digest = hashlib.sha256(whole).hexdigest()[:32]
    seen[digest] += 1
    return PromptRow(f"{digest}-{seen[digest]}", line, submission)


def _read_txt(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, {"user_prompt": line.strip()}


def _read_jsonl(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            plain = json.loads(line)
        except (ValueError, RecursionError):
            plain = None
        if not isinstance(plain, dict):
            raise _InvalidRow(number, 'it is no JSON object; give {"user_prompt": "…"}')
        yield number, cast("dict[str, Any]", plain)


def _read_csv(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(MAX_CELL)
    table = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        names = [name.strip() for name in next(table, list[str]())]
        _check_names(names)
        line = table.line_num + 1
        for cells in table:
            if any(cell.strip() for cell in cells):
                yield line, dict(_cells(line, names, cells))
            line = table.line_num + 1
    except csv.Error as error:
        raise _InvalidRow(line, f"it is no CSV ({error}); quote the text of its cells") from None


def _check_names(names: list[str]) -> None:
    if "user_prompt" not in names:
        remedy = "give the names of the fields in the first line"
        raise _InvalidRow(1, f"there is no column user_prompt; {remedy}")
    if "" in names or len(set(names)) < len(names):
        raise _InvalidRow(1, "a column has no name, or that of another; name each column")


def _cells(line: int, names: list[str], cells: list[str]) -> Iterator[tuple[str, Any]]:
    if len(cells) > len(names):
        raise _InvalidRow(line, "it has more cells than there are columns; quote text with commas")
    for name, cell in zip(names, cells, strict=False):
        if text := cell.strip():
            yield name, _flag(line, name, text) if name in _FLAGS else text


def _flag(line: int, name: str, text: str) -> bool:
    if text.lower() not in _YES + _NO:
        raise _InvalidRow(line, f"{name} is {text[:20]!r}; give true or false")
    return text.lower() in _YES


_READERS: dict[str, Callable[[str], Iterator[tuple[int, dict[str, Any]]]]] = {
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".txt": _read_txt,
}
