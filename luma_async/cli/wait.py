"""`luma-async wait` and `luma-async get`: ids in, what became of them out.

People at a terminal see a table; whatever else reads standard output gets a line of JSON for each
id as it ends. Whichever way a wait is broken off, what had ended was told, and what is open is told
then, so that the same command, or one with just those ids, goes on.
"""

import argparse
import asyncio
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import anyio

from luma_async.cli import report
from luma_async.cli.board import Board, Row
from luma_async.cli.ids import parts
from luma_async.cli.output import output
from luma_async.cli.running import TERMINATED, complain, guarded, run
from luma_async.cli.session import add_session, session_of
from luma_async.cli.values import Commands, add_command, duration
from luma_async.downloading import Downloader
from luma_async.errors import LumaError, WaitAborted
from luma_async.following import Following
from luma_async.structs import Generation, State

NOT_ALL_GOOD = 1
REFUSED = 3
TIMED_OUT = 124
INTERRUPTED = 130
CODES = (
    "Exit codes: 0 all completed, 1 some failed or missing (or not saved), 2 cannot be run as "
    "asked, 3 the relay refuses the key or does not answer"
)


def add_wait(commands: Commands) -> None:
    """Add the command."""
    about = "wait until each task is completed or failed"
    parser = add_command(
        commands, "wait", about, run_wait, epilog=f"{CODES}, 124 timeout, 130 ctrl-C, 143 SIGTERM."
    )
    _add_ids(parser)
    parser.add_argument(
        "--timeout", type=duration, metavar="TIME", help="90, 30m, 24h, 7d (default: none)"
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
        "--report", type=Path, metavar="FILE", help="write a page of all videos, as HTML"
    )
    add_session(parser)


def add_get(commands: Commands) -> None:
    """Add the command."""
    about = "ask about tasks once, now"
    parser = add_command(commands, "get", about, run_get, epilog=f"{CODES}.")
    _add_ids(parser)
    add_session(parser)


def _add_ids(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "ids", nargs="*", metavar="ID", help="a task id; - reads them from standard input, by line"
    )
    parser.add_argument("--file", type=Path, metavar="FILE", help="read ids from a file, by line")
    parser.add_argument(
        "--json", action="store_true", help="a line of JSON for each id, as when it is piped"
    )


def run_wait(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    return guarded(lambda: Waiting(arguments).run())


def run_get(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    return guarded(lambda: _got(arguments))


class Waiting:
    """One run of `luma-async wait`."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        _check(arguments)
        self._arguments = arguments
        self._board = Board()
        self._luma = session_of(arguments, lambda event: self._learn(event.generation))
        self._output = output(as_json=arguments.json)
        self._saves: set[asyncio.Task[None]] = set()

    def run(self) -> int:
        """Wait; return the exit code."""
        code = self._code()
        self._output.over(self._board, self._luma, whole=code <= NOT_ALL_GOOD)
        path: Path | None = self._arguments.report
        if path is not None:
            now, date = time.monotonic(), datetime.now(UTC)
            rows, hosts = self._board.rows.values(), self._arguments.allow_host
            report.write(path, report.Page(rows, now, date, path.parent, hosts))
        return code

    def _code(self) -> int:
        try:
            run(self._wait())
        except KeyboardInterrupt:
            return INTERRUPTED
        except asyncio.CancelledError:
            return TERMINATED
        except TimeoutError:
            return TIMED_OUT
        except WaitAborted as error:
            complain(f"the wait cannot go on: {error.cause}; mend that, and run it again")
            return REFUSED
        return 0 if self._board.is_good else NOT_ALL_GOOD

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
            with anyio.fail_after(arguments.timeout):
                await self._follow(luma.follow(), downloader)

    async def _follow(self, following: Following, downloader: Downloader | None) -> None:
        """Take ids in as they come, until there are no more of them and all have ended."""
        feeding = asyncio.create_task(self._feed(following))
        try:
            async for ended in following:
                row = self._board.end(
                    ended.id, ended.generation, time.monotonic(), datetime.now(UTC)
                )
                if downloader is not None and row.word == State.COMPLETED:
                    self._saves.add(asyncio.create_task(self._save(row, downloader)))
                else:
                    self._output.ended(row)
                if feeding.done() and not following:
                    following.close()
            await feeding
            if self._saves:
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
        finally:
            if not following:
                following.close()

    async def _save(self, row: Row, downloader: Downloader) -> None:
        assert row.generation is not None
        try:
            row.file = await downloader.download(row.generation)
        except (LumaError, OSError) as error:
            row.trouble = str(error)
        self._output.ended(row)

    def _learn(self, generation: Generation | None) -> None:
        if generation is not None:
            self._board.learn(generation, time.monotonic(), datetime.now(UTC))


def _got(arguments: argparse.Namespace) -> int:
    _check(arguments)
    board = Board()
    luma = session_of(arguments)
    shown = output(as_json=arguments.json)

    async def ask() -> None:
        async with luma:
            async for part in parts(arguments.ids, arguments.file):
                ids = board.add(part, time.monotonic())
                found = await luma.get_many(ids)
                for task_id in ids:
                    _note(board, task_id, found.get(task_id))

    try:
        run(ask())
    except LumaError as error:
        complain(error)
        return REFUSED
    except (KeyboardInterrupt, asyncio.CancelledError) as error:
        return INTERRUPTED if isinstance(error, KeyboardInterrupt) else TERMINATED
    shown.over(board, luma, whole=True, goes_on=False)
    ended = [row for row in board.rows.values() if row.ended]
    return 0 if all(row.is_good for row in ended) else NOT_ALL_GOOD


def _note(board: Board, task_id: str, generation: Generation | None) -> None:
    now, date = time.monotonic(), datetime.now(UTC)
    if generation is None or generation.is_done:
        board.end(task_id, generation, now, date)
    else:
        board.learn(generation, now, date)


def _check(arguments: argparse.Namespace) -> None:
    """Refuse, with a ValueError, what could only fail hours later."""
    if not arguments.ids and arguments.file is None:
        raise ValueError("no ids; give some, or - to read them from standard input, or --file FILE")
    path: Path | None = getattr(arguments, "report", None)
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise ValueError(
            f"--report {path} cannot be written; give a file in a directory that is there"
        )
