"""The output of commands that wait: a table on a terminal, or lines of JSON."""

import asyncio
import logging
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Protocol

from luma_async.cli.display import json_lines as lines
from luma_async.cli.display import table as screen
from luma_async.cli.display.progress import Progress, TaskRow
from luma_async.cli.runtime import discard_stdout, print_error
from luma_async.extras import install_command
from luma_async.polling.stats import Stats
from luma_async.session import LumaSession
from luma_async.text import printable

if TYPE_CHECKING:
    from rich.console import Console

logger: logging.Logger = logging.getLogger("luma_async")


class Output(Protocol):
    """The output of a command."""

    def living(self, board: Progress, luma: LumaSession) -> AbstractAsyncContextManager[None]:
        """Show progress during the block."""
        ...

    def ended(self, row: TaskRow) -> None:
        """Report a task that ended."""
        ...

    def over(self, board: Progress, stats: Stats | None = None) -> None:
        """Report the result; of a wait also the requests that it took."""
        ...

    def broken_off(self, board: Progress, why: str) -> None:
        """Report what is open after an interruption, and how to continue."""
        ...


def output(*, as_json: bool, alone: bool = True) -> Output:
    """Return what standard output is good for; what is logged goes to standard error.

    If output is not all that a command is for (`alone` is False), a closed pipe does not stop it.
    """
    if sys.stderr is not None:
        logging.basicConfig(format="luma-async: %(message)s", level=logging.WARNING)
    if as_json or not (sys.stdout and sys.stdout.isatty()):
        return JsonOutput(alone=alone)
    try:
        from rich.console import Console
    except ModuleNotFoundError:
        remedy = install_command("cli")
        print_error(f"the table needs rich, which is missing ({remedy}); lines instead")
        return JsonOutput(alone=alone)
    if (reconfigure := getattr(sys.stdout, "reconfigure", None)) is not None:
        reconfigure(errors="replace")  # a terminal may know no bars, and no emoji
    return TerminalOutput(Console(highlight=False))


class JsonOutput:
    """A line of JSON for each id, in the order of ending; those that are open at the end last."""

    def __init__(self, *, alone: bool) -> None:
        self._printed: set[str] = set()
        self._alone = alone

    @asynccontextmanager
    async def living(self, board: Progress, luma: LumaSession) -> AsyncGenerator[None, None]:
        """Show nothing more."""
        yield

    def ended(self, row: TaskRow) -> None:
        """Print a line."""
        self._printed.add(row.id)
        try:
            print(lines.json_line(row), flush=True)
        except BrokenPipeError:
            if self._alone:
                raise
            discard_stdout()

    def over(self, board: Progress, stats: Stats | None = None) -> None:
        """Print a line for each that was not printed yet."""
        for row in board.rows.values():
            if row.id not in self._printed:
                self.ended(row)

    def broken_off(self, board: Progress, why: str) -> None:
        """Say how many are open; their lines have been printed."""
        print_error(why)


class TerminalOutput:
    """A live table during the wait, and lines that stay."""

    def __init__(self, console: "Console") -> None:
        self._console = console

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
                logger.removeHandler(trouble)
                logger.propagate = True
                drawing.cancel()
                with suppress(asyncio.CancelledError):
                    await drawing

    def ended(self, row: TaskRow) -> None:
        """Leave it to the table."""

    def over(self, board: Progress, stats: Stats | None = None) -> None:
        """Print what stays, and the count."""
        now = time.monotonic()
        for row in screen.outcome(board, now):
            self._console.print(row, soft_wrap=True)
        if stats is not None:
            self._console.print(f"\n{screen.summary(board, stats, now)}", markup=False)

    def broken_off(self, board: Progress, why: str) -> None:
        """Say what is open, an id in a line."""
        print_error(why)
        for row in board.open:
            self._console.print(printable(row.id), markup=False, soft_wrap=True)
