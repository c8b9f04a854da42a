"""A diagnosis as a table on a terminal, or as plain text."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from luma_async.diagnosis.findings import Diagnosis, Finding, Level
from luma_async.text import printable

if TYPE_CHECKING:
    from rich.console import Console

COLOURS: dict[Level, str] = {"ok": "green", "note": "yellow", "trouble": "bold red"}


def show(diagnosis: Diagnosis) -> None:
    """Print a diagnosis: a table on a terminal if rich is installed, else plain text."""
    console = _console()
    if console is None:
        for line in plain_lines(diagnosis):
            print(line)
        return
    _print_table(console, diagnosis)
    for line in _summary(diagnosis):
        console.print(line, markup=False, soft_wrap=True)


def _console() -> "Console | None":
    if not (sys.stdout and sys.stdout.isatty()):
        return None
    try:
        from rich.console import Console
    except ModuleNotFoundError:
        return None
    return Console(highlight=False)


def _print_table(console: "Console", diagnosis: Diagnosis) -> None:
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for column in ("level", "check"):
        grid.add_column(column, no_wrap=True)
    grid.add_column("found", overflow="fold")
    for finding in diagnosis.findings:
        found = Text(printable(finding.text))
        if finding.follows:
            found.append(f"\n→ {printable(finding.follows)}", "bold")
        grid.add_row(Text(finding.level, COLOURS[finding.level]), Text(finding.check), found)
    console.print(grid)


def plain_lines(diagnosis: Diagnosis) -> Iterator[str]:
    """Yield the lines of a diagnosis as plain text."""
    for finding in diagnosis.findings:
        yield _line(finding)
        if finding.follows:
            yield f"{'':27}-> {printable(finding.follows)}"
    yield from _summary(diagnosis)


def _line(finding: Finding) -> str:
    return f"{finding.level:<8} {finding.check:<17} {printable(finding.text)}"


def _summary(diagnosis: Diagnosis) -> Iterator[str]:
    yield ""
    if diagnosis.python:
        yield f"In Python:           {diagnosis.python}"
    if diagnosis.command_line:
        yield f"On the command line: {diagnosis.command_line}"
    if not diagnosis.has_trouble and not diagnosis.command_line:
        yield "The default settings fit."
    yield f"{diagnosis.requests} requests; {_count(diagnosis)}"


def _count(diagnosis: Diagnosis) -> str:
    counts = dict.fromkeys(COLOURS, 0)
    for finding in diagnosis.findings:
        counts[finding.level] += 1
    return ", ".join(f"{count} {level}" for level, count in counts.items())
