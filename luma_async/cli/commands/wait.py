"""`luma-async wait`: ids in, what became of them out.

A terminal shows a table; a pipe gets a line of JSON for each id when it ends. If the wait is
interrupted, the open ids are printed at the end: run it again with the same ids, or with those, to
continue.
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
from luma_async.cli.display.output import learn_change, output, show_end
from luma_async.cli.display.progress import Progress, TaskRow
from luma_async.cli.display.row_values import ROW_FIELDS
from luma_async.cli.options.ids import NO_IDS, add_ids, check_ids, parts
from luma_async.cli.options.link_headers import (
    add_allow_host,
    add_link_headers,
    check_link_headers,
)
from luma_async.cli.options.output_format import format_of
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
from luma_async.cli.saves import VideoSaves, downloader_of
from luma_async.errors import WaitAborted
from luma_async.polling.following import Following
from luma_async.polling.hooks import ChangeEvent
from luma_async.structs import State
from luma_async.text import format_precisely, quantity
from luma_async.validation import task_ids

SOME_FAILED = 1
TIMED_OUT = 124
CODES = (
    "Exit codes: 0 all completed, 1 some failed, are missing or could not be saved, 2 invalid "
    "arguments, files or packages, 3 the relay rejects the key or is not at the base URL, "
    "124 timeout, 130 ctrl-C, 143 SIGTERM or SIGHUP."
)


def add_wait(commands: Commands) -> None:
    """Add the command."""
    about = "wait until each task is completed or failed"
    parser = add_command(commands, "wait", about, run_wait, epilog=CODES)
    add_ids(parser)
    parser.add_argument(
        "--timeout",
        type=period,
        metavar="TIME",
        help="stop after this time: 90, 30m, 24h, 7d (default: no limit)",
    )
    saving = parser.add_argument_group("the videos")
    saving.add_argument(
        "--download",
        type=Path,
        metavar="DIR",
        help="save each video as DIR/ID.mp4 when it is completed",
    )
    add_allow_host(saving.add_argument)
    saving.add_argument(
        "--report", type=Path, metavar="FILE",
        help="write a page of all videos, as HTML, when the wait is over",
    )  # fmt: skip
    add_link_headers(parser)
    add_session(parser)
    add_capture_option(parser)


def run_wait(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    return run_and_report(lambda: WaitCommand(arguments).run())


class WaitCommand:
    """One run of the command."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        check_ids(arguments)
        check_link_headers(arguments)
        check_report(arguments.report)
        self._arguments = arguments
        self._board = Progress()
        self._luma = session_of(arguments, self._learn)
        alone = arguments.download is None and arguments.report is None
        self._output = output(
            as_json=arguments.json, line_format=format_of(arguments, ROW_FIELDS), alone=alone
        )
        self._all_read = self._timed_out = False

    def run(self) -> int:
        """Wait; return the exit code. Whatever happens, what is known is printed and written."""
        try:
            code = self._code()
            self._output.over(self._board, self._luma.stats)
            if self._all_read and not self._board.rows:
                print_error(NO_IDS)
            if code > SOME_FAILED and (self._board.rows or code != UNUSABLE):
                self._output.broken_off(self._board, self._how_to_go_on())
        finally:
            try:
                self._report()
            finally:
                self._board.close()
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
            saves = None
            if arguments.download is not None:
                downloader = await stack.enter_async_context(
                    downloader_of(arguments, luma, self._board)
                )
                saves = VideoSaves(
                    downloader, self._board, self._report_end, self._output.shows_original
                )
            await stack.enter_async_context(self._output.living(self._board, luma))
            with anyio.move_on_after(arguments.timeout) as scope:
                await self._follow(luma.follow(last_seen=False), saves)
            self._timed_out = scope.cancelled_caught

    async def _follow(self, following: Following, saves: VideoSaves | None) -> None:
        """Take ids in as they come, until there are no more of them and all have ended."""
        feeding = asyncio.create_task(self._feed(following))
        try:
            async for ended in following:
                now, date = time.monotonic(), datetime.now(UTC)
                row = self._board.end(ended.id, ended.generation, now, date)
                if saves is not None and row.word == State.COMPLETED:
                    saves.add(row)
                else:
                    self._report_end(row)
                if feeding.done() and not following:
                    following.close()
            await feeding
            if saves is not None:
                await saves.join()
        finally:
            following.close()
            feeding.cancel()
            await asyncio.wait([feeding])
            if saves is not None:
                await saves.cancel()

    async def _feed(self, following: Following) -> None:
        try:
            async for part in parts(self._arguments.ids, self._arguments.file):
                following.add(self._board.add(task_ids(part), time.monotonic()))
            self._all_read = True
        finally:
            if not (following and self._all_read):
                following.close()

    def _report_end(self, row: TaskRow) -> None:
        show_end(self._board, self._output, row, keep=self._arguments.report is not None)

    def _learn(self, event: ChangeEvent) -> None:
        learn_change(self._board, self._output, event)

    def _how_to_go_on(self) -> str:
        time_is_up = ""
        if self._timed_out:
            time_is_up = f"the timeout of {format_precisely(self._arguments.timeout)} is over: "
        if not self._board.rows:
            return f"{time_is_up}no ids came; run it again to continue"
        count = len(self._board.open)
        are = "is" if count == 1 else "are"
        what = f"{time_is_up}{count:,} of {len(self._board.rows):,} {are} still open"
        if self._arguments.download is not None:
            videos = (row for row in self._board.rows.values() if row.word == State.COMPLETED)
            count = sum(not row.saved for row in videos)
            what += f", {quantity(count, 'video')} {'is' if count == 1 else 'are'} not saved"
        rest = "" if self._all_read else ", and not all ids were read"
        return f"{what}{rest}; run it again with the same ids to continue"

    def _report(self) -> None:
        report.write_board(self._arguments.report, self._board, self._arguments.allow_host)


def check_report(path: Path | None) -> None:
    """Refuse, with a ValueError, what could only fail hours later."""
    if path is None:
        return
    replaceable = path.is_symlink() or path.is_file() or not path.exists()
    if not (replaceable and path.name and os.access(path.parent, os.W_OK | os.X_OK)):
        remedy = "give a file in a directory that is there and yours"
        raise ValueError(f"--report {path} cannot be written; {remedy}")
