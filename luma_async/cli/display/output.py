"""The output of commands that wait: a table on a terminal, or lines of JSON."""

import asyncio
import logging
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from luma_async.cli.display import table as screen
from luma_async.cli.display.line_format import LineFormat
from luma_async.cli.display.progress import Details, Progress, TaskRow
from luma_async.cli.display.row_values import ROW_FIELDS, row_values
from luma_async.cli.runtime import discard_stdout, print_error
from luma_async.extras import install_command
from luma_async.polling.hooks import ChangeEvent
from luma_async.polling.stats import Stats
from luma_async.session import LumaSession
from luma_async.text import one_line, printable

if TYPE_CHECKING:
    from rich.console import Console

logger: logging.Logger = logging.getLogger("luma_async")


class Output(Protocol):
    """The output of a command.

    `shows_original`: it shows the relay's own text of a task. `shows_ended_later`: it shows the
    details of a task again after `ended`.
    """

    shows_original: bool
    shows_ended_later: bool

    def living(self, board: Progress, luma: LumaSession) -> AbstractAsyncContextManager[None]:
        """Show progress during the block."""
        ...

    def ended(self, row: TaskRow, details: Details) -> None:
        """Report a task that ended."""
        ...

    def over(self, board: Progress, stats: Stats | None = None) -> None:
        """Report the result; of a wait also the requests that it took."""
        ...

    def broken_off(self, board: Progress, why: str) -> None:
        """Report what is open after an interruption, and how to continue."""
        ...


def output(*, as_json: bool, line_format: LineFormat | None = None, alone: bool = True) -> Output:
    """Return what standard output is good for; what is logged goes to standard error.

    With a `line_format` it is lines. If output is not all that a command is for (`alone` is False),
    a closed pipe does not stop it.
    """
    lines = LineOutput(line_format or LineFormat(tuple(ROW_FIELDS)), alone=alone)
    if sys.stderr is not None:
        logging.basicConfig(format="luma-async: %(message)s", level=logging.WARNING)
    if as_json or line_format or not (sys.stdout and sys.stdout.isatty()):
        return lines
    try:
        from rich.console import Console
    except ModuleNotFoundError:
        remedy = install_command("cli")
        print_error(f"the table needs rich, which is missing ({remedy}); lines instead")
        return lines
    if (reconfigure := getattr(sys.stdout, "reconfigure", None)) is not None:
        reconfigure(errors="replace")  # a terminal may know no bars, and no emoji
    return TerminalOutput(Console(highlight=False))


def learn_change(board: Progress, output: Output, event: ChangeEvent) -> None:
    """Record a change of an open task; its details are on disk until they are shown."""
    if event.generation is None or event.ended:
        return
    row = board.learn(event.generation, time.monotonic(), datetime.now(UTC))
    if row is not None:
        board.store(row, original=output.shows_original)


def show_end(board: Progress, output: Output, row: TaskRow, *, keep: bool) -> None:
    """Show what became of a task; its details are forgotten if they are not shown again.

    `keep`: a report shows them.
    """
    output.ended(row, board.details(row))
    if keep or output.shows_ended_later:
        board.store(row, original=False)
    else:
        board.drop_details(row)


class LineOutput:
    """A line for each id, in the order of ending; those that are open at the end last."""

    shows_ended_later = False

    def __init__(self, line_format: LineFormat, *, alone: bool) -> None:
        self.shows_original: bool = "generation" in line_format.fields
        self._format = line_format
        self._header = line_format.header
        self._alone = alone

    @asynccontextmanager
    async def living(self, board: Progress, luma: LumaSession) -> AsyncGenerator[None, None]:
        """Show nothing more."""
        yield

    def ended(self, row: TaskRow, details: Details) -> None:
        """Print a line."""
        row.written = True
        self._print(self._format.line(row_values(row, details, self._format.fields)))

    def _print(self, line: str) -> None:
        header, self._header = self._header, ""
        try:
            print(*filter(None, (header, line)), sep="\n", flush=True)
        except BrokenPipeError:
            if self._alone:
                raise
            discard_stdout()

    def over(self, board: Progress, stats: Stats | None = None) -> None:
        """Print a line for each that was not printed yet; of no ids, the header at least."""
        if self._header and not board.rows:
            self._print("")
        for row in board.rows.values():
            if not row.written:
                self.ended(row, board.details(row))

    def broken_off(self, board: Progress, why: str) -> None:
        """Say how many are open; their lines have been printed."""
        print_error(why)


class TerminalOutput:
    """A live table during the wait, and lines that stay."""

    shows_original = False
    shows_ended_later = True

    def __init__(self, console: "Console") -> None:
        self._console = console
        self._last_warning = ""

    @asynccontextmanager
    async def living(self, board: Progress, luma: LumaSession) -> AsyncGenerator[None, None]:
        """Draw the table four times a second; warnings go below it."""
        from rich.live import Live

        drawn = screen.LiveTable(self._console, board, lambda: luma.stats)
        trouble = screen.LastWarning(drawn)
        logger.addHandler(trouble)
        logger.propagate = False
        with Live(console=self._console, auto_refresh=False, transient=True) as live:

            async def draw() -> None:
                while True:
                    live.update(drawn.draw(time.monotonic()), refresh=True)
                    await asyncio.sleep(screen.REFRESH_EVERY)

            drawing = asyncio.create_task(draw())
            try:
                yield
            finally:
                self._last_warning = drawn.trouble
                logger.removeHandler(trouble)
                logger.propagate = True
                drawing.cancel()
                with suppress(asyncio.CancelledError):
                    await drawing

    def ended(self, row: TaskRow, details: Details) -> None:
        """Leave it to the table."""

    def over(self, board: Progress, stats: Stats | None = None) -> None:
        """Print what stays, and the count."""
        now = time.monotonic()
        for row in screen.outcome(board, now):
            self._console.print(row, soft_wrap=True)
        if stats is not None:
            self._console.print(f"\n{screen.summary(board, stats, now)}", markup=False)

    def broken_off(self, board: Progress, why: str) -> None:
        """Say what is open, an id in a line, and the last warning, which the table took along."""
        if self._last_warning:
            print_error(f"the last warning, at {one_line(self._last_warning)}")
        print_error(why)
        for row in board.open:
            self._console.print(printable(row.id), markup=False, soft_wrap=True)
