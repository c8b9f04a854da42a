"""Task ids from lines, tables and lines of JSON."""

import codecs
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luma_async.cli.options.id_parser import MAX_LINE, MAX_LINES, IdParser


def parsed(text: str | bytes, name: str = "ids.txt") -> tuple[list[str], list[str]]:
    """Return the ids, and the notes."""
    notes: list[str] = []
    parser = IdParser(name, notes.append)
    ids = parser.feed(text.encode() if isinstance(text, str) else text)
    return [*ids, *parser.finish()], notes


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("a\nb\n", ["a", "b"]),
        ("a\r\n\r\nb", ["a", "b"]),
        ("a\rb\r", ["a", "b"]),
        ("\ufeffa\u200b\n\u00a0b\u3000\n \u2060\n", ["a", "b"]),
        ("# yesterday\na\n  # more\nb # the second\n", ["a", "b"]),
        ("a#b\na b\n", ["a#b", "a b"]),
        ("a,b\nid,x\n", ["a,b", "id,x"]),
        ("", []),
        ("x", ["x"]),
    ],
)
def test_an_id_is_a_line_without_blanks_and_comments(text: str, ids: list[str]) -> None:
    assert parsed(text) == (ids, [])


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("id\na\nb\n", "id"),
        ("# made by hand\nprompt,Task_ID,id\nx,a,1\nx,b,2\n", "task_id"),
        ("id;prompt\na;x\nb;y\n", "id"),
        ("prompt\tid\nx\ta\ny\tb", "id"),
        ('"id","text"\n"a","said ""hello"", twice"\n"b","two\r\nlines, # no comment"\n', "id"),
        ("prompt, id \nx, a \n\n# none\ny, b", "id"),
    ],
)  # fmt: skip
def test_the_ids_of_a_table_are_in_the_column_that_its_first_line_names(
    text: str, column: str
) -> None:
    assert parsed(text) == (["a", "b"], [f"ids.txt: the ids are in the column {column}"])


def test_rows_without_an_id_are_counted() -> None:
    ids, notes = parsed("prompt,id\nx,a\ny,\nz\n,\n", "ids.csv")
    assert ids == ["a"]
    assert notes[1:] == ["ids.csv: rows without an id: 2"]


def test_a_csv_file_without_a_column_of_ids_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^ids.csv has no column id or task_id; name it so"):
        parsed("4,x\n5,y\n", "ids.csv")
    assert parsed("a\nb\n", "ids.CSV") == (["a", "b"], []), "one column needs no header"


def test_the_lines_that_the_command_prints_are_read() -> None:
    lines = [
        {"id": "a", "state": "completed", "ended": True, "url": "https://x"},
        {"id": 17, "task_id": "b", "status": "SUCCESS"},
    ]
    assert parsed("\n".join(map(json.dumps, lines))) == (["a", "b"], [])


@pytest.mark.parametrize("line", ['{"state": "completed"}', '{"id": 5}', '{"id": "a"', "{" * 9000])
def test_a_line_of_json_without_an_id_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"^ids.txt has a line that begins as JSON"):
        parsed(line)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
def test_a_text_with_a_byte_order_mark_is_read_in_its_encoding(encoding: str) -> None:
    marks = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}
    data = marks.get(encoding, b"") + "a\r\nб\n".encode(encoding)
    assert parsed(data) == (["a", "б"], [])


@pytest.mark.parametrize(
    "data",
    [
        "a\nb\n".encode("utf-16-le"),  # without a mark
        codecs.BOM_UTF16_LE + b"a",
        "提示词,id\n".encode("gbk"),
        b"\xff",
        b"x" * (MAX_LINE + 1),
        b'id,prompt\na,"' + b"x\n" * (MAX_LINES + 1) + b"\n",
    ],
)
def test_what_is_no_text_is_refused_with_the_name_of_the_file(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^my-ids .*give ids as UTF-8"):
        parsed(data, "my-ids")


TEXTS = st.text(st.sampled_from('ab,;"{}#\n\r\t id\u200bé')) | st.text()


@given(TEXTS, st.lists(st.integers(1, 8)), st.sampled_from(["x", "x.csv"]))
def test_the_ids_do_not_depend_on_how_the_text_is_cut(
    text: str, cuts: list[int], name: str
) -> None:
    def ids(parts: list[bytes]) -> list[str] | str:
        parser = IdParser(name, lambda _: None)
        try:
            return [i for part in parts for i in parser.feed(part)] + parser.finish()
        except ValueError as error:
            return str(error)

    data = text.encode("utf-8", "replace")
    parts: list[bytes] = []
    rest = data
    for size in cuts:
        parts.append(rest[:size])
        rest = rest[size:]
    assert ids([*parts, rest]) == ids([data])
