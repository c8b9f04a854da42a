"""`luma-async get`: poll tasks once, now."""

import argparse
import time
from datetime import UTC, datetime

from luma_async.cli.display.output import output
from luma_async.cli.display.progress import Progress
from luma_async.cli.display.row_values import ROW_FIELDS
from luma_async.cli.options.ids import NO_IDS, add_ids, check_ids, parts
from luma_async.cli.options.output_format import format_of
from luma_async.cli.options.session import REFUSED, add_capture_option, add_session, session_of
from luma_async.cli.options.types import Commands, add_command
from luma_async.cli.runtime import print_error, run, run_and_report
from luma_async.errors import LumaError, NoSuchRouteError, TransportError
from luma_async.structs import Generation
from luma_async.validation import task_ids

CODES = (
    "Exit codes: 0 no task failed or is missing, 1 some did or are, 2 invalid arguments, files or "
    "packages, 3 the relay rejects the key or does not answer."
)


def add_get(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "get", "request tasks once, now", run_get, epilog=CODES)
    add_ids(parser)
    add_session(parser)
    add_capture_option(parser)


def run_get(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    return run_and_report(lambda: _got(arguments))


def _got(arguments: argparse.Namespace) -> int:
    check_ids(arguments)
    board, luma, shown = (
        Progress(),
        session_of(arguments),
        output(as_json=arguments.json, line_format=format_of(arguments, ROW_FIELDS)),
    )

    async def ask() -> None:
        async with luma:
            async for part in parts(arguments.ids, arguments.file):
                ids = board.add(task_ids(part), time.monotonic())
                found = await luma.get_many(ids)
                for task_id in ids:
                    _note(board, task_id, found.get(task_id))

    try:
        run(ask())
        if not board.rows:
            print_error(NO_IDS)
    except TransportError as error:
        print_error(
            f"{arguments.base_url or 'the relay'} does not answer ({error}); check --base-url"
        )
        return REFUSED
    except NoSuchRouteError as error:
        print_error(error)
        return REFUSED
    except LumaError as error:
        print_error(f"{error}; check the key and --base-url")
        return REFUSED
    finally:
        shown.over(board)
    return int(any(row.ended and not row.is_good for row in board.rows.values()))


def _note(board: Progress, task_id: str, generation: Generation | None) -> None:
    now, date = time.monotonic(), datetime.now(UTC)
    if generation is None or generation.is_done:
        board.end(task_id, generation, now, date)
    else:
        board.learn(generation, now, date)
