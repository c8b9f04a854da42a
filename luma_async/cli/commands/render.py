"""`luma-async render`: a file of prompts in, videos out; it never pays twice for a prompt.

The journal beside the videos remembers what was submitted. The same command again continues.
"""

import argparse
import asyncio
import json
import os
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import anyio

from luma_async import validation as checks
from luma_async.cli.commands.wait import SOME_FAILED, TIMED_OUT, check_report
from luma_async.cli.display import html_report as report
from luma_async.cli.display.output import learn_change, output
from luma_async.cli.display.progress import Progress
from luma_async.cli.options.link_headers import (
    add_allow_host,
    add_link_headers,
    check_link_headers,
)
from luma_async.cli.options.session import MAX_COUNT, REFUSED, add_session, session_of
from luma_async.cli.options.types import Commands, add_command, count, period
from luma_async.cli.rendering.journal import Journal, read_journal
from luma_async.cli.rendering.plan import Entry, Plan, Status, plan, remarks, summary
from luma_async.cli.rendering.prompts import PromptRow, read_prompts
from luma_async.cli.rendering.runner import Rendering
from luma_async.cli.runtime import (
    INTERRUPTED,
    TERMINATED,
    UNUSABLE,
    print_error,
    run,
    run_and_report,
)
from luma_async.cli.saves import downloader_of
from luma_async.errors import WaitAborted
from luma_async.polling.hooks import ChangeEvent
from luma_async.text import without_secrets

CONCURRENCY = 10
CODES = (
    "Exit codes: 0 all submitted rows are saved, 1 some failed, are missing, have an unknown "
    "outcome, were refused or could not be saved, 2 invalid arguments, files or packages, 3 the "
    "relay rejects the key or its quota is used up, 124 timeout, 130 ctrl-C, 143 SIGTERM or SIGHUP."
)


MORE = (
    " It records in a journal beside the videos what was submitted. Run it again to continue; "
    "it submits no row twice by itself."
)


def add_render(commands: Commands) -> None:
    """Add the command."""
    about = "submit a file of prompts, and save their videos"
    parser = add_command(commands, "render", about, run_render, MORE, CODES)
    parser.add_argument(
        "prompts", nargs="?", type=Path, metavar="FILE",
        help="a .csv with the names of the fields in its first line, a .jsonl with an object in a "
        "line, or a .txt with a prompt in a line",
    )  # fmt: skip
    parser.add_argument(
        "--download",
        type=Path,
        metavar="DIR",
        help="the directory of the videos and of the journal",
    )
    parser.add_argument(
        "--status", type=Path, metavar="DIR", help="print the status of each row, and stop"
    )
    for name, kind, default, metavar, what in (
        ("concurrency", count(MAX_COUNT), CONCURRENCY, "N", "tasks that are open at the same time "
         f"(default {CONCURRENCY})"),
        ("max-tasks", count(MAX_COUNT), None, "N", "never pay for more tasks than this, those of "
         "earlier runs included (default: no limit)"),
        ("timeout", period, None, "TIME", "stop after this: 90, 30m, 24h, 7d (default: never)"),
        ("report", Path, None, "FILE", "write a page of all videos of this run, as HTML"),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=kind, default=default, metavar=metavar, help=what)
    for name, what in (
        ("dry-run", "print what would be submitted, and stop"),
        ("resubmit-unknown", "submit again the rows that may have been submitted; they may be paid "
         "for twice"),
        ("json", "print a line of JSON for each task, as in a pipe"),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", action="store_true", help=what)
    add_allow_host(parser.add_argument)
    add_link_headers(parser)
    add_session(parser)


def run_render(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    return run_and_report(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    if arguments.status is not None:
        return _print_status(arguments.status, as_json=arguments.json)
    if arguments.prompts is None or arguments.download is None:
        raise ValueError("no prompts; give a file of them and --download DIR, or --status DIR")
    rows = read_prompts(arguments.prompts)
    if arguments.dry_run:
        return _print_plan(_plan(arguments, rows, read_journal(arguments.download)))
    return RenderCommand(arguments, rows).run()


def _plan(arguments: argparse.Namespace, rows: list[PromptRow], journal: dict[str, Entry]) -> Plan:
    lost = [
        one.key
        for one in journal.values()
        if one.status is Status.SAVED and not (arguments.download / (one.file or "?")).is_file()
    ]
    return plan(
        rows,
        journal,
        max_tasks=arguments.max_tasks,
        resubmit_unknown=arguments.resubmit_unknown,
        lost_files=lost,
    )


def _print_status(directory: Path, *, as_json: bool) -> int:
    entries = read_journal(directory)
    if not entries:
        raise ValueError(f"{directory} has no journal; give the directory of a render")
    if as_json:
        for one in sorted(entries.values(), key=lambda one: one.line):
            values = {name: getattr(one, name) for name in Entry.__struct_fields__}
            print(json.dumps(values))
        return 0
    print(summary(entries.values()))
    for line in remarks(entries.values()):
        print(line)
    return 0


def _print_plan(plan: Plan) -> int:
    for row in plan.submit:
        fields = {name: _shown(value) for name, value in row.submission.fields.items()}
        print(json.dumps({"line": row.line, "fields": fields}))
    held = f", {plan.held_back:,} are held back by --max-tasks" if plan.held_back else ""
    print_error(
        f"dry run: {len(plan.submit):,} to submit{held}; {len(plan.wait):,} to wait for, "
        f"{len(plan.unknown):,} unknown"
    )
    for line in remarks(plan.unknown):
        print_error(line)
    return 0


def _shown(value: object) -> object:
    return without_secrets(value) if isinstance(value, str) else value


class RenderCommand:
    """One run of the command."""

    def __init__(self, arguments: argparse.Namespace, rows: list[PromptRow]) -> None:
        check_link_headers(arguments)
        check_report(arguments.report)
        self._arguments = arguments
        self._rows = rows
        self._board = Progress()
        self._luma = session_of(arguments, self._learn)
        self._output = output(as_json=arguments.json, alone=False)
        self._base_url = checks.base_url(arguments.base_url or os.environ.get("LUMA_BASE_URL"))
        self._rendering: Rendering | None = None
        self._timed_out = False

    def run(self) -> int:
        """Render; return the exit code. Whatever happens, what is known is printed."""
        with ExitStack() as stack:
            journal = stack.enter_context(Journal(self._arguments.download, self._base_url))
            planned = _plan(self._arguments, self._rows, journal.read())
            self._rendering = Rendering(
                planned,
                journal,
                self._board,
                self._output,
                self._arguments.concurrency,
                keeps_ended=self._arguments.report is not None,
            )
            try:
                code = self._code(self._rendering)
                self._output.over(self._board, self._luma.stats)
                self._print_outcome(planned, code)
            finally:
                try:
                    self._report()
                finally:
                    self._board.close()
        return code

    def _code(self, rendering: Rendering) -> int:
        try:
            run(self._render(rendering))
        except KeyboardInterrupt:
            return INTERRUPTED
        except asyncio.CancelledError:
            return TERMINATED
        except WaitAborted as error:
            print_error(f"the run cannot continue: {error.cause}; fix that, and run it again")
            return REFUSED
        except (ValueError, OSError) as error:
            print_error(error)
            return UNUSABLE
        if rendering.stopped is not None:
            print_error(f"no more was submitted: {rendering.stopped}; fix that, and run it again")
            return REFUSED
        if self._timed_out:
            return TIMED_OUT
        statuses = {one.status for one in rendering.entries.values()}
        return 0 if statuses <= {Status.SAVED, Status.NEW} else SOME_FAILED

    async def _render(self, rendering: Rendering) -> None:
        arguments = self._arguments
        async with AsyncExitStack() as stack:
            luma = await stack.enter_async_context(self._luma)
            downloader = await stack.enter_async_context(
                downloader_of(arguments, luma, self._board)
            )
            await stack.enter_async_context(self._output.living(self._board, luma))
            with anyio.move_on_after(arguments.timeout) as scope:
                await rendering.run(luma, downloader)
            self._timed_out = scope.cancelled_caught

    def _learn(self, event: ChangeEvent) -> None:
        learn_change(self._board, self._output, event)

    def _print_outcome(self, planned: Plan, code: int) -> None:
        assert self._rendering is not None
        entries = self._rendering.entries.values()
        for line in remarks(entries):
            print_error(line)
        held = f"; {planned.held_back:,} held back by --max-tasks" if planned.held_back else ""
        rest = "; run it again with the same arguments to continue" if code > SOME_FAILED else ""
        print_error(f"{summary(entries)}{held}{rest}")

    def _report(self) -> None:
        report.write_board(self._arguments.report, self._board, self._arguments.allow_host)
