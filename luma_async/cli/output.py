"""Where a command tells how the ids fare: to people on a terminal, or as lines of JSON."""

import asyncio
import logging
import shlex
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from luma_async.cli import lines, screen
from luma_async.cli.board import Board, Row
from luma_async.cli.running import complain
from luma_async.errors import line
from luma_async.session import LumaSession

if TYPE_CHECKING:
    from rich.console import Console

logger: logging.Logger = logging.getLogger("luma_async")

LONGEST_COMMAND = 1000

_NO_RICH = "the table needs rich, which is missing (pip install 'luma-async[cli]'); lines instead"


class Output(Protocol):
    """Where it is told."""

    def living(self, board: Board, luma: LumaSession) -> AbstractAsyncContextManager[None]:
        """Show how it goes on meanwhile."""
        ...

    def ended(self, row: Row) -> None:
        """Tell of one that is over."""
        ...

    def over(self, board: Board, luma: LumaSession, *, whole: bool, goes_on: bool = True) -> None:
        """Tell how it stands at the end; `whole` if nothing broke it off."""
        ...


def output(*, as_json: bool) -> Output:
    """Return what standard output is good for."""
    if as_json or not (sys.stdout and sys.stdout.isatty()):
        return Lines()
    try:
        from rich.console import Console
    except ModuleNotFoundError:
        complain(_NO_RICH)
        return Lines()
    return People(Console(highlight=False))


class Lines:
    """A line of JSON for each id, in the order of ending; those that are open at the end last."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    @asynccontextmanager
    async def living(self, board: Board, luma: LumaSession) -> AsyncGenerator[None, None]:
        """Show warnings on standard error."""
        logging.basicConfig(format="luma-async: %(message)s", level=logging.WARNING)
        yield

    def ended(self, row: Row) -> None:
        """Print a line."""
        self._told.add(row.id)
        print(lines.told(row), flush=True)

    def over(self, board: Board, luma: LumaSession, *, whole: bool, goes_on: bool = True) -> None:
        """Print a line for each that was not told yet."""
        for row in board.rows.values():
            if row.id not in self._told:
                self.ended(row)
        if not whole:
            complain(_broken_off(board))


class People:
    """A table that lives while it goes on, and one that stays."""

    def __init__(self, console: "Console") -> None:
        self._console = console

    @asynccontextmanager
    async def living(self, board: Board, luma: LumaSession) -> AsyncGenerator[None, None]:
        """Draw the table four times a second; warnings go below it."""
        from rich.live import Live

        drawn = screen.Screen(self._console, board, lambda: luma.stats)
        trouble = screen.Trouble(drawn)
        logger.addHandler(trouble)
        with Live(console=self._console, auto_refresh=False, transient=True) as live:

            async def draw() -> None:
                while True:
                    live.update(drawn.draw(time.monotonic()), refresh=True)
                    await asyncio.sleep(screen.TICK)

            drawing = asyncio.create_task(draw())
            try:
                yield
            finally:
                drawing.cancel()
                await asyncio.wait([drawing])
                logger.removeHandler(trouble)

    def ended(self, row: Row) -> None:
        """Leave it to the table."""

    def over(self, board: Board, luma: LumaSession, *, whole: bool, goes_on: bool = True) -> None:
        """Print what stays, the count, and what is open where it was broken off."""
        now = time.monotonic()
        for row in screen.outcome(board, now):
            self._console.print(row, soft_wrap=True)
        if goes_on:
            self._console.print(f"\n{screen.summary(board, luma.stats, now)}", markup=False)
        if not whole:
            complain(_broken_off(board))


def _broken_off(board: Board) -> str:
    """Say what is open, and how to go on."""
    ids = [row.id for row in board.open]
    if not ids:
        return "broken off while videos were saved; run the same command again, it goes on"
    of = f"{len(ids):,} of {len(board.rows):,} are still open"
    command = shlex.join(["luma-async", "wait", *ids])
    if len(command) <= LONGEST_COMMAND and command.isprintable():
        return f"{of}; go on with: {command}"
    return "\n".join([f"{of}; run the same command again, or one with these:", *map(line, ids)])
