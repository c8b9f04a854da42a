"""What the commands about workers share: where the queue is."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from luma_async.worker import Queue


def add_queue(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a queue."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--nats",
        metavar="URL",
        help="NATS servers, with commas between them (default LUMA_NATS; without one, a "
        "private server is used, and started if it does not run)",
    )
    where.add_argument(
        "--data",
        metavar="DIR",
        help="where the private server keeps its files (default LUMA_DATA, then luma-async in "
        "your state directory)",
    )
    parser.add_argument("--nats-creds", metavar="FILE", help="a NATS credentials file")
    parser.add_argument(
        "--pool",
        default="luma",
        metavar="NAME",
        help="name of the pool, one per account (default luma)",
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
