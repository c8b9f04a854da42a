"""`luma-async submit` and `luma-async results`: the queue of the workers, from a shell."""

import argparse
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from luma_async.cli.display.line_format import escaped
from luma_async.cli.options.ids import parts
from luma_async.cli.options.output_format import add_format, format_of
from luma_async.cli.options.queue import add_queue, queue_of
from luma_async.cli.options.types import Commands, add_command
from luma_async.cli.runtime import run, run_and_report
from luma_async.errors import QueueError

if TYPE_CHECKING:
    from luma_async.worker import End


END_FIELDS: "dict[str, Callable[[End], Any]]" = {
    "id": lambda end: end.id,
    "state": lambda end: end.state.value,
    "url": lambda end: end.generation and end.generation.url,
    "failure_reason": lambda end: end.generation and end.generation.failure_reason,
    "sequence": lambda end: end.sequence,
    "told_at": lambda end: msgspec.to_builtins(end.told_at),
    "generation": lambda end: end.generation and msgspec.to_builtins(end.generation),
}


def add_submit(commands: Commands) -> None:
    """Add the command."""
    about = "put ids into the queue of the workers, on disk"
    parser = add_command(commands, "submit", about, run_submit)
    parser.add_argument(
        "ids", nargs="+", metavar="ID", help="a task id; - reads them from standard input, by line"
    )
    add_queue(parser)


def add_results(commands: Commands) -> None:
    """Add the command."""
    about = "print the results that the workers stored, one JSON object per line"
    parser = add_command(commands, "results", about, run_results)
    parser.add_argument(
        "ids",
        nargs="*",
        metavar="ID",
        help="wait for these ids, then stop (default: all ids, until it is stopped)",
    )
    parser.add_argument(
        "--since",
        type=since,
        metavar="WHEN",
        help="print the results after this: a time such as 2026-11-21T12:00:00Z, or the sequence "
        "of the last result that was read (default: all results that are kept)",
    )
    add_format(parser, END_FIELDS)
    add_queue(parser)


def run_submit(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code: 0, or 2 where not all could be stored."""
    return _run(_submit(arguments))


def run_results(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code: 0, or 2 where no server answers."""
    return _run(_results(arguments))


def since(text: str) -> datetime | int:
    """Read a time, in UTC where it names no zone, or a sequence."""
    if text.isdecimal() and int(text) < 2**63:
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        remedy = "give one such as 2026-11-21T12:00:00Z, or a whole number"
        raise argparse.ArgumentTypeError(f"{text!r} is no time; {remedy}") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _run(command: Coroutine[Any, Any, None]) -> int:
    def act() -> int:
        run(command)
        return 0

    return run_and_report(act, QueueError)


async def _submit(arguments: argparse.Namespace) -> None:
    new = waiting = 0
    async with queue_of(arguments) as queue:
        async for part in parts(arguments.ids):
            stored = await queue.submit(part)
            new += len(stored)
            waiting += len(part) - len(stored)
    print(f"{new} new, {waiting} waiting already")


async def _results(arguments: argparse.Namespace) -> None:
    line_format = format_of(arguments, END_FIELDS)
    if line_format is not None and line_format.header:
        print(line_format.header, flush=True)
    async with (
        queue_of(arguments) as queue,
        aclosing(queue.results(arguments.ids or None, since=arguments.since)) as ends,
    ):
        async for end in ends:
            if line_format is None:
                print(escaped(msgspec.json.encode(end).decode()), flush=True)
            else:
                values = {name: END_FIELDS[name](end) for name in line_format.fields}
                print(line_format.line(values), flush=True)
