"""`luma-async worker --status`: what waits, and which worker holds how many ids."""

import argparse
from typing import TYPE_CHECKING

import msgspec

from luma_async.cli.options.queue import queue_of
from luma_async.cli.runtime import run, run_and_report
from luma_async.errors import QueueError
from luma_async.text import format_precisely, printable

if TYPE_CHECKING:
    from luma_async.worker import PoolStatus, WorkerStatus


def run_status(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code: 0, or 2 if no server answers."""

    def act() -> int:
        run(_print_status(arguments))
        return 0

    return run_and_report(act, QueueError)


async def _print_status(arguments: argparse.Namespace) -> None:
    from luma_async.worker import pool_status

    async with queue_of(arguments) as queue:
        status = await pool_status(queue)
    print(msgspec.json.encode(status).decode() if arguments.json else table(status))


def table(status: "PoolStatus") -> str:
    """Return the status as lines of text."""
    oldest = format_precisely(status.oldest) if status.waiting + status.held else "-"
    lines = [
        f"pool     {status.pool}",
        f"waiting  {status.waiting:,}",
        f"held     {status.held:,}",
        f"oldest   {oldest}",
        f"results  {status.results_per_minute:,} in the last minute, {status.results:,} kept",
        "",
    ]
    if not status.workers:
        return "\n".join([*lines, "no worker runs; start one: luma-async worker"])
    names = [_name(worker) for worker in status.workers]
    width = max(len("worker"), *map(len, names))
    lines.append(f"{'worker':<{width}}  {'held':>11}  {'capacity':>11}")
    for name, worker in zip(names, status.workers, strict=True):
        lines.append(f"{name:<{width}}  {worker.held:>11,}  {worker.capacity:>11,}")
    return "\n".join(lines)


def _name(worker: "WorkerStatus") -> str:
    """Return where a worker runs; its name if it does not announce that."""
    return printable(f"{worker.host}:{worker.pid}" if worker.host else worker.name)
