"""Ids as they come: from arguments, from a file, from a pipe that may stay silent for hours."""

import argparse
import asyncio
import os
import select
import sys
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path

from luma_async.cli.display.row_values import ROW_FIELDS
from luma_async.cli.options.id_parser import IdParser
from luma_async.cli.options.output_format import add_format
from luma_async.cli.runtime import print_error

CHUNK_SIZE = 2**18
NO_IDS = "no ids were read; check the file or the pipe"


def add_ids(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name ids, and the format of the output."""
    parser.add_argument(
        "ids", nargs="*", metavar="ID", help="a task id; - reads them from standard input, by line"
    )
    parser.add_argument(
        "--file",
        type=Path,
        metavar="FILE",
        help="read ids from a file: lines, CSV with a column id or task_id, or lines of JSON",
    )
    parser.add_argument(
        "--json", action="store_true", help="print a line of JSON for each id, as in a pipe"
    )
    add_format(parser, ROW_FIELDS)


def check_ids(arguments: argparse.Namespace) -> None:
    """Refuse, with a ValueError, a command without ids."""
    if not arguments.ids and arguments.file is None:
        raise ValueError("no ids; give some, or - to read them from standard input, or --file FILE")


async def parts(given: Sequence[str], file: Path | None = None) -> AsyncGenerator[list[str], None]:
    """Yield the ids, each part without twins; those of a pipe (`-`) as they come."""
    named = dict.fromkeys(name for name in given if name != "-")
    if named:
        yield list(named)
    if file is not None:
        with file.open("rb") as opened:
            async for part in _parts(opened.fileno(), str(file)):
                yield part
    if "-" in given:
        if sys.stdin is None:
            raise ValueError("there is no standard input; give the ids as arguments")
        async for part in _parts(sys.stdin.fileno(), "standard input"):
            yield part


async def _parts(descriptor: int, name: str) -> AsyncGenerator[list[str], None]:
    """Yield ids as they come, those together that come together."""
    parser = IdParser(name, print_error)
    async for chunk in _chunks(descriptor):
        if ids := parser.feed(chunk):
            yield list(dict.fromkeys(ids))
    if ids := parser.finish():
        yield list(dict.fromkeys(ids))


async def _chunks(descriptor: int) -> AsyncGenerator[bytes, None]:
    """Read in a daemon thread: a pipe may stay silent for hours."""
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes | OSError] = asyncio.Queue()
    room = threading.Semaphore(2)
    mine = os.dup(descriptor)

    def read() -> None:
        with suppress(RuntimeError), open(mine, "rb", buffering=0) as stream:
            while chunk := _read(stream):  # until the loop is over
                room.acquire()
                loop.call_soon_threadsafe(chunks.put_nowait, chunk)
                if isinstance(chunk, OSError):
                    return
            loop.call_soon_threadsafe(chunks.put_nowait, b"")

    threading.Thread(target=read, daemon=True).start()
    while chunk := await chunks.get():
        room.release()
        if isinstance(chunk, OSError):
            raise chunk
        yield chunk


def _read(stream: FileIO) -> bytes | OSError:
    """Read what there is, the end as b""; a non-blocking pipe is waited for."""
    try:
        while (chunk := stream.read(CHUNK_SIZE)) is None:
            poll = select.poll()
            poll.register(stream, select.POLLIN)
            poll.poll()
    except OSError as error:
        return error
    return chunk
