"""What the commands about workers share: where the queue is, and what to say where it is not."""

import argparse
import asyncio
import signal
import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from luma_async.worker import Queue

UNUSABLE = 2


def add_queue(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a queue."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--nats",
        metavar="URL",
        help="NATS servers, with commas between them (default LUMA_NATS; where there is none, a "
        "private server is used, and started if need be)",
    )
    where.add_argument(
        "--data",
        metavar="DIR",
        help="where the private server keeps its files (default LUMA_DATA, then luma-async in "
        "your state directory)",
    )
    parser.add_argument("--nats-creds", metavar="FILE", help="a NATS credentials file")
    parser.add_argument(
        "--pool", default="luma", metavar="NAME", help="separates accounts (default luma)"
    )


def queue_of(arguments: argparse.Namespace, replicas: int | None = None) -> "Queue":
    """Return the queue that the options name."""
    from luma_async.worker import Queue

    return Queue(
        arguments.nats,
        data=arguments.data,
        pool=arguments.pool,
        credentials=arguments.nats_creds,
        replicas=replicas,
    )


def run(command: Coroutine[Any, Any, None]) -> None:
    """Run a command; SIGTERM cancels it, so that it cleans up, and raises CancelledError."""

    async def run() -> None:
        myself = asyncio.current_task()
        assert myself is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, myself.cancel)
        await command

    asyncio.run(run())


def complain(error: Exception) -> None:
    """Say what went wrong on standard error."""
    print(f"luma-async: {error}", file=sys.stderr)
