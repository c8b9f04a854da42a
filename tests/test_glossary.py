"""The vocabulary: a word for each thing, the same one in code, comments, logs and docs.

FORBIDDEN has the words that must not appear, each with what to write instead. Names are checked in
the package and in the tests: where they are defined, split at underscores and capitals. Docstrings,
comments and texts (string literals with a space: log lines, error messages, help) are checked in
the package. README and docs/ are checked outside their code fences.
"""

import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from msgspec import Struct

import luma_async
from tests.docs_blocks import ROOT, pages, without_fences

TOP = {"luma_async": Path(luma_async.__file__).parent.parent, "tests": ROOT}
"""Where each folder lies: the package is checked as it is installed."""

FORBIDDEN = {
    "aboard": "in the batch",
    "anew": "again",
    "book": "scheduler",
    "cohort": "group",
    "depart": "send",
    "episode": "outage",
    "exile": "quarantine",
    "fare": "cost",
    "foresaw": "unexpected error",
    "gate": "throttle",
    "heed": "use",
    "lent": "leased",
    "mend": "check, fix or correct",
    "nobody": "say who: the caller, no watcher",
    "ripeness": "urgency",
    "seat": "batch size, or the number of ids",
    "shadow": "budget",
    "somebody": "say who: the caller, a watcher",
    "suspect": "bisect",
    "tell": "report, show or print",
    "thrift": "mean_sqrt_hazard",
    "told": "reported, received, shown or printed",
    "turnstile": "admission queue",
    "untold": "not reported",
    "verdict": "action",
    "whoever": "say who: the caller, all watchers",
}
"""Words that are no terms of the field, each with what to write instead."""

FORBIDDEN_PHRASES = {
    r"an end(?! of)": "a result, or a final state",
    r"(?:the|these|those|all|its) ends": "results, or final states",
    r"go(?:es|ing)? on|went on": "continue",
    r"hand(?:s|ed|ing)? (?:\w+ )?back": "return to the queue",
    r"in vain": "say what failed",
    r"(?:is|are) well": "works, or answers",
    r"let(?:s|ting)? (?:\w+ )?go": "release",
    r"look(?:s|ed|ing)? at": "poll, or check",
}
"""The same for phrases; in docstrings, comments and texts only."""

EXCEPTIONS = {
    "told_at": "public: worker.End.told_at",
    "untold": "public: worker.Work.untold",
    "luma_untold": "public: a metric of the workers",
}
"""Names with a forbidden word that stay, with the reason."""

_FORMS = {f"{word}{ending}": word for word in FORBIDDEN for ending in ("", "s", "ed", "ing")} | {
    "exiled": "exile",
    "exiling": "exile",
}
_PHRASES = [(re.compile(rf"\b(?:{p})\b"), instead) for p, instead in FORBIDDEN_PHRASES.items()]


class Finding(Struct, frozen=True, order=True):
    """A forbidden word or phrase at a line of a file."""

    file: str
    line: int
    word: str
    text: str
    instead: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.word!r} in {self.text!r}; write: {self.instead}"


def words_of(text: str) -> list[str]:
    """Return the words of a name or of a text, in lower case; capitals and underscores split."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", text)]


def in_name(file: str, line: int, name: str) -> Iterator[Finding]:
    if name.lstrip("_") not in EXCEPTIONS:
        for word in words_of(name):
            if word in _FORMS:
                yield Finding(file, line, word, name, FORBIDDEN[_FORMS[word]])


def in_prose(file: str, line: int, text: str) -> Iterator[Finding]:
    """Check a text; names that are excepted are passed over in it."""
    bare = re.sub("|".join(rf"\b{name}\b" for name in EXCEPTIONS), "", text)
    lines = bare.splitlines()
    for number, one in enumerate(lines):
        for word in words_of(one):
            if word in _FORMS:
                yield Finding(file, line + number, word, one.strip(), FORBIDDEN[_FORMS[word]])
    for phrase, instead in _PHRASES:
        for found in phrase.finditer(re.sub(r"\s", " ", bare.lower())):
            number = bare.count("\n", 0, found.start())
            yield Finding(file, line + number, found[0], lines[number].strip(), instead)


def names_in(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the names that a module defines, each with its line."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield node.lineno, name
            case ast.ClassDef(name=name) | ast.arg(arg=name):
                yield node.lineno, name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.alias(asname=str(name)) | ast.ExceptHandler(name=str(name)):
                yield node.lineno, name
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield node.lineno, name
            case _:
                pass


def prose_in(source: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield docstrings, comments, and string literals with a space, each with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def findings(file: str, source: str, *, prose: bool) -> list[Finding]:
    """Check one file; `prose`: its docstrings, comments and texts, too."""
    tree = ast.parse(source)
    found = [hit for part in Path(file).parts for hit in in_name(file, 1, part)]
    found += [hit for line, name in names_in(tree) for hit in in_name(file, line, name)]
    if prose:
        found += [
            hit for line, text in prose_in(source, tree) for hit in in_prose(file, line, text)
        ]
    return sorted(found)


def checked(folder: str) -> list[str]:
    """Return the files of a folder that are checked."""
    files = (
        file.relative_to(TOP[folder]).as_posix() for file in (TOP[folder] / folder).rglob("*.py")
    )
    ourselves = Path(__file__).relative_to(ROOT).as_posix()
    return sorted(file for file in files if file != ourselves)


@pytest.mark.parametrize("folder", ["luma_async", "tests"])
def test_no_forbidden_word_is_used(folder: str) -> None:
    found = [
        str(hit)
        for file in checked(folder)
        for hit in findings(file, (TOP[folder] / file).read_text(), prose=folder == "luma_async")
    ]
    assert not found, "\n".join(["", *found])


@pytest.mark.parametrize("page", pages())
def test_no_forbidden_word_is_used_on_a_page(page: str) -> None:
    found = [str(hit) for hit in in_prose(page, 1, without_fences(page))]
    assert not found, "\n".join(["", *found])


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def is_aboard(seats): pass", ["aboard", "seats"]),
        ("class ShadowBook: pass", ["book", "shadow"]),
        ("self._told = verdict = 1", ["told", "verdict"]),
        ("import heapq as gate", ["gate"]),
        ("work.untold = 1", []),
        ("investigate = bookkeeping = 1", []),
        ("x = 1  # nobody knows", ["nobody"]),
        ('"""Report it to\nwhoever waits."""', ["whoever"]),
        ('raise ValueError(f"{x}: mend the key")', ["mend"]),
        ('log("the poller goes on")', ["goes on"]),
        ('"""The task has an end."""', ["an end"]),
        ('key = "told"', []),
    ],
)
def test_a_forbidden_word_is_found(source: str, words: list[str]) -> None:
    assert [hit.word for hit in findings("some/module.py", source, prose=True)] == words


def test_each_exception_is_in_the_code() -> None:
    sources = code("luma_async")
    for name in EXCEPTIONS:
        assert re.search(rf"\b{name}\b", sources), name


@cache
def code(folder: str) -> str:
    return "\n".join(file.read_text() for file in sorted((TOP[folder] / folder).rglob("*.py")))


def glossary() -> list[list[str]]:
    """Return the rows of the table in the design."""
    page = (ROOT / "docs" / "design.md").read_text()
    section = page.partition("\n## Glossary\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines[2:]]


def test_each_term_of_the_glossary_has_one_line() -> None:
    rows = glossary()
    assert len(rows) > 20
    assert not [row for row in rows if len(row) != 2 or not all(row)], "a term, its meaning"
    assert not [term for term, count in Counter(row[0] for row in rows).items() if count > 1]


@pytest.mark.parametrize("term", [row[0] for row in glossary()])
def test_each_term_of_the_glossary_is_used_in_the_code(term: str) -> None:
    words = words_of(term)
    spellings = {" ".join(words), "".join(words)}
    assert re.search(rf"\b(?:{'|'.join(spellings)})(?:s|es)?\b", code_words()), term


@cache
def code_words() -> str:
    return " ".join(words_of(code("luma_async")))


def test_no_term_of_the_glossary_is_forbidden() -> None:
    assert not [hit for row in glossary() for hit in in_prose("glossary", 1, " ".join(row))]
