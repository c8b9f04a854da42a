"""Task ids from the bytes of a file or a pipe: lines, a table (CSV), or lines of JSON. Pure."""

import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, cast

MAX_LINE = 2**20  # characters
MAX_LINES = 10_000  # in one row of a table
BLANKS = "".join(filter(str.isspace, map(chr, range(0x3001)))) + "\u200b\u200c\u200d\u2060\ufeff"
COLUMNS = ("task_id", "id")  # in the table of a relay, `id` is the number of the row

_TABLES = (".csv", ".tsv")
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class IdParser:
    """Parse what is read from `name`, as UTF-8, or UTF-16 with a byte order mark.

    An id is a line without the blanks around it; `#` at the start of a line or after a blank begins
    a comment. If the first line names a column `task_id` or `id`, the text is a table, and that
    column has the ids. A line that is a JSON object has the id in the same names. `note` is called
    with what the user should know, such as the column. All methods raise ValueError for a text that
    has no ids in any of these forms.
    """

    def __init__(self, name: str, note: Callable[[str], object]) -> None:
        self._name = name
        self._note = note
        self._head = b""
        self._decoder: codecs.IncrementalDecoder | None = None
        self._rest = ""
        self._is_first = True
        self._column = -1  # of the table; -1: it is none
        self._delimiter = ","
        self._record: list[str] = []  # lines of a row of the table that is not complete yet
        self._is_quoted = False  # a cell of it is not closed
        self._rows_without_id = 0

    def feed(self, data: bytes) -> list[str]:
        """Return the ids of the lines that these bytes complete."""
        self._head += data
        return [] if len(self._head) < 2 and self._decoder is None else self._read(final=False)

    def finish(self) -> list[str]:
        """Return the ids of the last line, if it has no line end."""
        ids = [*self._read(final=True), *self._of_line(self._rest), *self._of_record()]
        if self._rows_without_id:
            self._note(f"{self._name}: rows without an id: {self._rows_without_id:,}")
        return ids

    def _read(self, *, final: bool) -> list[str]:
        if self._decoder is None:
            encoding = "utf-16" if self._head.startswith(UTF_16) else "utf-8-sig"
            self._decoder = codecs.getincrementaldecoder(encoding)()
        data, self._head = self._head, b""
        try:
            text = self._decoder.decode(data, final)
        except UnicodeDecodeError:
            raise ValueError(f"{self._name} is not valid text; give ids as UTF-8") from None
        *lines, self._rest = (self._rest + text).replace("\r", "\n").split("\n")
        if len(self._rest) > MAX_LINE or len(self._record) > MAX_LINES or "\0" in text:
            raise ValueError(f"{self._name} holds no lines of text; give ids as UTF-8, by line")
        return [task_id for line in lines for task_id in self._of_line(line)]

    def _of_line(self, line: str) -> Iterator[str]:
        bare = line.strip(BLANKS)
        if not self._record and (not bare or bare.startswith("#")):
            return
        is_first, self._is_first = self._is_first, False
        if is_first and self._is_header(bare):
            return
        if self._column >= 0:
            self._record.append(line)
            self._is_quoted ^= line.count('"') % 2 == 1
            if not self._is_quoted:
                yield from self._of_record()
        elif bare.startswith("{"):
            yield self._of_json(bare)
        else:
            yield re.split(r"\s#", bare, maxsplit=1)[0].rstrip(BLANKS)

    def _is_header(self, line: str) -> bool:
        """Whether a first line names the column of the ids."""
        for self._delimiter in ",;\t":
            names = [name.lower() for name in self._cells(line)]
            for name in COLUMNS:
                if name in names:
                    self._column = names.index(name)
                    self._note(f"{self._name}: the ids are in the column {name}")
                    return True
        if self._name.lower().endswith(_TABLES) and re.search(r"[,;\t]", line):
            remedy = "name it so in the first line"
            raise ValueError(f"{self._name} has no column id or task_id; {remedy}")
        return False

    def _of_record(self) -> Iterator[str]:
        cells, self._record = self._cells("\n".join(self._record)), []
        if len(cells) > self._column >= 0 and cells[self._column]:
            yield cells[self._column]
        elif any(cells):
            self._rows_without_id += 1

    def _cells(self, record: str) -> list[str]:
        with suppress(csv.Error):
            for row in csv.reader(io.StringIO(record), delimiter=self._delimiter):
                return [cell.strip(BLANKS) for cell in row]
        return []

    def _of_json(self, line: str) -> str:
        found: Any = None
        with suppress(ValueError, RecursionError):
            found = json.loads(line)
        if isinstance(found, dict):
            values = map(cast("dict[str, Any]", found).get, COLUMNS)
            for value in values:
                if isinstance(value, str):
                    return value
        raise ValueError(f"{self._name} has a line that begins as JSON, without an id; correct it")
