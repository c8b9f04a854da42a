"""`luma-async submit` and `luma-async results`: the queue of the workers, from a shell."""

import argparse
import asyncio
import os
import sys
import threading
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from typing import Any

import msgspec

from luma_async.cli.queue import UNUSABLE, add_queue, complain, queue_of, run
from luma_async.cli.values import Commands, add_command
from luma_async.errors import QueueError

TERMINATED = 128 + 15
CHUNK = 2**18
LONGEST_LINE = 2**20


def add_submit(commands: Commands) -> None:
    """Add the command."""
    about = "leave ids to the workers; they are on disk when it returns"
    parser = add_command(commands, "submit", about, run_submit)
    parser.add_argument(
        "ids", nargs="+", metavar="ID", help="a task id; - reads them from standard input, by line"
    )
    add_queue(parser)


def add_results(commands: Commands) -> None:
    """Add the command."""
    about = "print the ends that the workers told, one JSON object in a line"
    parser = add_command(commands, "results", about, run_results)
    parser.add_argument(
        "ids", nargs="*", metavar="ID", help="wait for these, then stop (default all, without end)"
    )
    parser.add_argument(
        "--since",
        type=since,
        metavar="WHEN",
        help="a time such as 2026-11-21T12:00:00Z, or the sequence of the last end that was read "
        "(default all that is kept)",
    )
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
    try:
        run(command)
    except asyncio.CancelledError:
        return TERMINATED
    except UnicodeDecodeError:
        complain(ValueError("an id is not valid text; give ids as UTF-8"))
        return UNUSABLE
    except (QueueError, ModuleNotFoundError, ValueError) as error:
        complain(error)
        return UNUSABLE
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        complain(error)
        return UNUSABLE
    return 0


async def _submit(arguments: argparse.Namespace) -> None:
    new = waiting = 0
    async with queue_of(arguments) as queue:
        async for part in _parts(arguments.ids):
            stored = await queue.submit(part)
            new += len(stored)
            waiting += len(part) - len(stored)
    print(f"{new} new, {waiting} waiting already")


async def _parts(given: Sequence[str]) -> AsyncGenerator[list[str], None]:
    """Yield the ids, each part without twins; those of a pipe as they come."""
    named = dict.fromkeys(name for name in given if name != "-")
    if named:
        yield list(named)
    if "-" in given:
        if sys.stdin is None:
            raise ValueError("there is no standard input; give the ids as arguments")
        async for lines in _lines(sys.stdin.fileno()):
            if ids := [stripped for line in lines if (stripped := line.strip("\ufeff \t\r"))]:
                yield list(dict.fromkeys(ids))


async def _lines(descriptor: int) -> AsyncGenerator[list[str], None]:
    """Yield lines as they come, those together that come together."""
    rest = b""
    async for chunk in _chunks(descriptor):
        *whole, rest = (rest + chunk).split(b"\n")
        if len(rest) > LONGEST_LINE or b"\0" in chunk:
            raise ValueError("standard input holds no lines of text; give ids as UTF-8, by line")
        yield [line.decode() for line in whole]
    yield [rest.decode()]


async def _chunks(descriptor: int) -> AsyncGenerator[bytes, None]:
    """Read in a thread that nobody has to wait for: a pipe may stay silent for hours."""
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes] = asyncio.Queue(2)

    def read() -> None:
        with suppress(RuntimeError, OSError):  # the loop is over
            while chunk := os.read(descriptor, CHUNK):
                asyncio.run_coroutine_threadsafe(chunks.put(chunk), loop).result()
            asyncio.run_coroutine_threadsafe(chunks.put(b""), loop).result()

    threading.Thread(target=read, daemon=True).start()
    while chunk := await chunks.get():
        yield chunk


async def _results(arguments: argparse.Namespace) -> None:
    async with (
        queue_of(arguments) as queue,
        aclosing(queue.results(arguments.ids or None, since=arguments.since)) as ends,
    ):
        async for end in ends:
            print(msgspec.json.encode(end).decode(), flush=True)
