"""`luma-async wait`: ids in, what became of them out.

People at a terminal see a table; whatever else reads standard output gets a line of JSON for each
id as it ends. However a wait is interrupted, what had ended was printed, and what is open is
printed then, so that the same command, or one with just those ids, continues.
"""

import argparse
import asyncio
import os
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import anyio

from luma_async.cli.display import html_report as report
from luma_async.cli.display.output import output
from luma_async.cli.display.progress import Progress, TaskRow
from luma_async.cli.options.ids import add_ids, check_ids, parts
from luma_async.cli.options.session import REFUSED, add_capture_option, add_session, session_of
from luma_async.cli.options.types import Commands, add_command, period
from luma_async.cli.runtime import (
    INTERRUPTED,
    TERMINATED,
    UNUSABLE,
    print_error,
    run,
    run_and_report,
)
from luma_async.downloads.downloader import Downloader
from luma_async.errors import LumaError, WaitAborted
from luma_async.polling.following import Following
from luma_async.structs import Generation, State

SOME_FAILED = 1
TIMED_OUT = 124
CODES = (
    "Exit codes: 0 all completed, 1 some failed, are missing or could not be saved, 2 cannot be "
    "run as asked, 3 the relay refuses the key, 124 timeout, 130 ctrl-C, 143 SIGTERM."
)


def add_wait(commands: Commands) -> None:
    """Add the command."""
    about = "wait until each task is completed or failed"
    parser = add_command(commands, "wait", about, run_wait, epilog=CODES)
    add_ids(parser)
    parser.add_argument(
        "--timeout", type=period, metavar="TIME", help="90, 30m, 24h, 7d (default: none)"
    )
    saving = parser.add_argument_group("the videos")
    saving.add_argument(
        "--download", type=Path, metavar="DIR", help="save each video as DIR/ID.mp4 when it is done"
    )
    saving.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME",
        help="follow links to this host though its address is private; may be given again",
    )  # fmt: skip
    saving.add_argument(
        "--report", type=Path, metavar="FILE",
        help="write a page of all videos, as HTML, when the wait is over",
    )  # fmt: skip
    add_session(parser)
    add_capture_option(parser)


def run_wait(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    return run_and_report(lambda: WaitCommand(arguments).run())


class WaitCommand:
    """One run of the command."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        check_ids(arguments)
        _check_report(arguments.report)
        self._arguments = arguments
        self._board = Progress()
        self._luma = session_of(arguments, lambda event: self._learn(event.generation))
        alone = arguments.download is None and arguments.report is None
        self._output = output(as_json=arguments.json, alone=alone)
        self._saves: set[asyncio.Task[None]] = set()
        self._all_read = self._timed_out = False

    def run(self) -> int:
        """Wait; return the exit code. Whatever happens, what is known is printed and written."""
        try:
            code = self._code()
            self._output.over(self._board, self._luma.stats)
            if code > SOME_FAILED and (self._board.rows or code != UNUSABLE):
                self._output.broken_off(self._board, self._how_to_go_on())
        finally:
            self._report()
        return code

    def _code(self) -> int:
        try:
            run(self._wait())
        except KeyboardInterrupt:
            return INTERRUPTED
        except asyncio.CancelledError:
            return TERMINATED
        except WaitAborted as error:
            print_error(f"the wait cannot continue: {error.cause}; fix that, and run it again")
            return REFUSED
        except BrokenPipeError:
            raise
        except (ValueError, OSError) as error:
            print_error(error)
            return UNUSABLE
        if self._timed_out:
            return TIMED_OUT
        return 0 if self._board.is_good else SOME_FAILED

    async def _wait(self) -> None:
        arguments = self._arguments
        async with AsyncExitStack() as stack:
            luma = await stack.enter_async_context(self._luma)
            downloader = None
            if arguments.download is not None:
                downloader = await stack.enter_async_context(
                    Downloader(
                        arguments.download,
                        luma=luma,
                        allow_hosts=arguments.allow_host,
                        proxy=arguments.proxy,
                    )
                )
            await stack.enter_async_context(self._output.living(self._board, luma))
            with anyio.move_on_after(arguments.timeout) as scope:
                await self._follow(luma.follow(), downloader)
            self._timed_out = scope.cancelled_caught

    async def _follow(self, following: Following, downloader: Downloader | None) -> None:
        """Take ids in as they come, until there are no more of them and all have ended."""
        feeding = asyncio.create_task(self._feed(following))
        try:
            async for ended in following:
                now, date = time.monotonic(), datetime.now(UTC)
                row = self._board.end(ended.id, ended.generation, now, date)
                if downloader is not None and row.word == State.COMPLETED:
                    self._begin_to_save(row, downloader)
                else:
                    self._output.ended(row)
                if feeding.done() and not following:
                    following.close()
            await feeding
            await asyncio.gather(*self._saves)
        finally:
            following.close()
            for task in (feeding, *self._saves):
                task.cancel()
            await asyncio.wait([feeding, *self._saves])

    async def _feed(self, following: Following) -> None:
        try:
            async for part in parts(self._arguments.ids, self._arguments.file):
                following.add(self._board.add(part, time.monotonic()))
            self._all_read = True
        finally:
            if not (following and self._all_read):
                following.close()

    def _begin_to_save(self, row: TaskRow, downloader: Downloader) -> None:
        task = asyncio.create_task(self._save(row, downloader))
        self._saves.add(task)
        task.add_done_callback(self._saved)

    def _saved(self, task: asyncio.Task[None]) -> None:
        """Forget what went well; what did not is met at the end."""
        if not task.cancelled() and task.exception() is None:
            self._saves.discard(task)

    async def _save(self, row: TaskRow, downloader: Downloader) -> None:
        assert row.generation is not None
        try:
            row.file = await downloader.download(row.generation)
        except (LumaError, OSError) as error:
            row.trouble = str(error).replace("in allow_hosts", "by --allow-host")
        self._output.ended(row)

    def _learn(self, generation: Generation | None) -> None:
        if generation is not None:
            self._board.learn(generation, time.monotonic(), datetime.now(UTC))

    def _how_to_go_on(self) -> str:
        if not self._board.rows:
            return "no ids came; run it again to continue"
        what = f"{len(self._board.open):,} of {len(self._board.rows):,} are still open"
        if self._arguments.download is not None:
            videos = [row for row in self._board.rows.values() if row.word == State.COMPLETED]
            what += f", {sum(row.file is None for row in videos):,} videos are not saved"
        rest = "" if self._all_read else ", and not all ids were read"
        return f"{what}{rest}; run it again with the same ids to continue"

    def _report(self) -> None:
        path: Path | None = self._arguments.report
        if path is not None:
            now, date = time.monotonic(), datetime.now(UTC)
            rows, hosts = self._board.rows.values(), self._arguments.allow_host
            report.write(path, report.Page(rows, now, date, path.parent, hosts))


def _check_report(path: Path | None) -> None:
    """Refuse, with a ValueError, what could only fail hours later."""
    if path is None:
        return
    if (path.exists() and not path.is_file()) or not os.access(path.parent, os.W_OK | os.X_OK):
        remedy = "give a file in a directory that is there and yours"
        raise ValueError(f"--report {path} cannot be written; {remedy}")
