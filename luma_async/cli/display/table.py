"""The live table of a wait on a terminal, and the lines that are left at its end.

Text from the relay is cleaned by `text.one_line` (no control characters), then shown as a
`rich.text.Text`, which has no markup.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, islice, pairwise
from typing import TYPE_CHECKING

from luma_async.cli.display.eta import remaining
from luma_async.cli.display.progress import (
    MISSING,
    WAITING,
    WORDS,
    Details,
    Progress,
    TaskRow,
    why,
)
from luma_async.cli.display.saving import TransferRate, download_bar, downloads_line
from luma_async.polling.stats import Stats
from luma_async.structs import State
from luma_async.text import format_precisely, format_roughly, one_line, printable, quantity

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

REFRESH_EVERY = 0.25
ESTIMATE_EVERY = 1.0
MAX_FINISHED_ROWS = 8
MAX_ROWS = 1000
COLOURS = {
    WAITING: "dim",
    State.PENDING: "dim",
    State.PROCESSING: "yellow",
    State.COMPLETED: "green",
    State.FAILED: "red",
    MISSING: "magenta",
}


class LiveTable:
    """Draws a board, as of a moment."""

    def __init__(self, console: "Console", board: Progress, stats: Callable[[], Stats]) -> None:
        self._console = console
        self._board = board
        self._stats = stats
        self._left: tuple[float, float] | None = None
        self._estimated_at = 0.0
        self._rate = TransferRate()
        self.trouble = ""

    def draw(self, now: float) -> "RenderableType":
        """Draw the bar, the counts, and as many rows as there is room for."""
        from rich.console import Group
        from rich.text import Text

        board, stats = self._board, self._stats()
        room = max(self._console.height - MAX_FINISHED_ROWS, 1)
        many = len(board.rows) > room
        rows = list(islice(reversed(board.changed.values()), room) if many else board.rows.values())
        more = len(board.rows) - len(rows)
        shown = [(row, self._detail(row)) for row in rows]
        parts: list[RenderableType] = [self._bar(), self._sums(stats, now), table(shown, now)]
        if more:
            parts.append(Text(f"… and {more:,} more; those that changed last are shown", "dim"))
        if board.note:
            parts.append(Text(board.note, "dim"))
        if self.trouble:
            parts.append(Text(one_line(self.trouble), "red"))
        return Group(*parts)

    def _detail(self, row: TaskRow) -> "Text":
        """Draw what there is to say of a row: the bar of a download, or a text."""
        from rich.text import Text

        if (event := self._board.saving.get(row.id)) is not None:
            return download_bar(event)
        text = one_line(said(row, self._board.details(row)))
        return Text(text, "dim", no_wrap=True, overflow="ellipsis")

    def _bar(self) -> "Text":
        from rich.text import Text

        counts = self._board.counts
        words = (State.COMPLETED, State.FAILED, MISSING, State.PROCESSING)
        width = self._console.width - 1
        text = Text(no_wrap=True, overflow="crop")
        cells = shares([counts[word] for word in words], len(self._board.rows) or 1, width)
        for word, cell in zip(words, cells, strict=True):
            text.append(("─" if word == State.PROCESSING else "━") * cell, COLOURS[word])
        return text.append("─" * (width - len(text)), "dim")

    def _sums(self, stats: Stats, now: float) -> "Text":
        from rich.text import Text

        board = self._board
        text = Text()
        text.append(f"{board.ended:,} of {len(board.rows):,} ended", "bold")
        for word in WORDS:
            if count := board.counts[word]:
                text.append(f"  {count:,} {word}", COLOURS[word])
        spent = format_precisely(board.spent(now))
        text.append(f"\n{quantity(stats.requests, 'request')} in {spent}", "dim")
        if stats.quiet_for:
            text.append(f", left alone for {format_precisely(stats.quiet_for)}", "dim")
        text.append(f"; {self._estimate(stats, now)}\n", "dim")
        if downloads := downloads_line(board, self._rate.update(board.saved_bytes, now)):
            text.append(f"{downloads}\n", "dim")
        return text

    def _estimate(self, stats: Stats, now: float) -> str:
        if now >= self._estimated_at + ESTIMATE_EVERY:
            self._estimated_at = now
            ages = (now - row.born for row in self._board.open)
            self._left = remaining(stats.learned.seen, ages) if stats.learned else None
        if self._left is None:
            return "no estimate yet"
        half, last = map(format_roughly, self._left)
        if half == last:
            return f"the rest in about {last}, by estimate"
        return f"half of the rest in about {half}, the last in about {last}, by estimate"


class LastWarning(logging.Handler):
    """Shows warnings of the library's below the table, in place of lines through it."""

    def __init__(self, screen: LiveTable) -> None:
        super().__init__(logging.WARNING)
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        """Show what is said last."""
        self._screen.trouble = f"{time.strftime('%H:%M:%S')} {record.getMessage()}"


def shares(counts: Sequence[int], total: int, width: int) -> list[int]:
    """Share `width` cells of a bar among counts out of a total; they never add up to more."""
    edges = [round(width * upto / total) for upto in accumulate(counts, initial=0)]
    return [right - left for left, right in pairwise(edges)]


def table(rows: "Iterable[tuple[TaskRow, Text]]", now: float) -> "Table":
    """Draw rows: state, id, age, and what there is to say."""
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, overflow="ellipsis", min_width=12)
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column()  # no_wrap is said of its cells, so that it is the one to shrink
    for row, detail in rows:
        grid.add_row(
            Text(row.word, COLOURS[row.word]),
            Text(one_line(row.id)),
            _age(row, now),
            detail,
        )
    return grid


def _age(row: TaskRow, now: float) -> str:
    age = row.age(now)
    return "" if age is None else format_precisely(age)


def said(row: TaskRow, details: Details) -> str:
    """Return what there is to say of a row: where its video is, why there is none, its prompt."""
    task = details.generation
    if details.trouble is not None:
        return f"not saved: {details.trouble}"
    if details.file is not None:
        return str(details.file)
    if (reason := why(row, details)) or task is None:
        return reason
    return (task.url or "no link") if row.ended else details.prompt


def outcome(board: Progress, now: float, *, most: int = MAX_ROWS) -> "list[Text]":
    """Return the lines that stay: all rows, or of very many those that are not good.

    They are to be wrapped by the terminal alone, so that a link can be copied.
    """
    from rich.text import Text

    rows = list(board.rows.values())
    if len(rows) > most:
        rows = [row for row in rows if row.ended and not row.is_good][:most]
    widest = max((len(one_line(row.id)) for row in rows), default=0)
    return [
        Text.assemble(
            (f"{row.word:<10}  ", COLOURS[row.word]),
            f"{one_line(row.id):<{widest}}  {_age(row, now):>10}  ",
            (printable(said(row, board.details(row))), "dim"),
        )
        for row in rows
    ]


def summary(board: Progress, stats: Stats, now: float) -> str:
    """Return the last line: how many ended how, and at what cost."""
    counts = ", ".join(f"{board.counts[word]:,} {word}" for word in WORDS if board.counts[word])
    spent = format_precisely(board.spent(now))
    return f"{counts or 'no ids'}; {quantity(stats.requests, 'request')} in {spent}"
