"""`luma-async worker`: polls submitted ids until it is stopped."""

import argparse
import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from luma_async.cli.commands.status import run_status
from luma_async.cli.options.queue import add_queue, queue_of
from luma_async.cli.options.session import MAX_COUNT, REFUSED, add_session, session_of
from luma_async.cli.options.types import Commands, add_command, address, count, period, whole
from luma_async.cli.runtime import UNUSABLE, print_error, run, stop_signals
from luma_async.errors import (
    AuthenticationError,
    PermissionDeniedError,
    QueueError,
    QuotaError,
    WaitAborted,
)

if TYPE_CHECKING:
    from luma_async.session import LumaSession
    from luma_async.worker import Worker
    from luma_async.worker.metrics import Metrics

logger: logging.Logger = logging.getLogger("luma_async")

CONNECTION_LOST = 1
REPORT_EVERY = 60.0
FORMAT = "%(asctime)s %(levelname)s %(message)s"


def add_worker(commands: Commands) -> None:
    """Add the command."""
    about = "poll submitted ids, and store their results, until SIGTERM or ctrl-C"
    parser = add_command(
        commands,
        "worker",
        about,
        run_worker,
        more=" The key of the relay is LUMA_API_KEY.",
        epilog="Exit codes: 0 stopped, 1 the NATS server closed the connection, 2 invalid "
        "arguments, files or packages, 3 the relay rejects the key (all ids are queued again).",
    )
    add_queue(parser)
    add_session(parser)
    for name, kind, default, metavar, what in (
        ("capacity", count(MAX_COUNT), 100_000, "N", "the most ids that it holds (default 100000)"),
        ("give-up", period, 86_400.0, "TIME", "stop polling an id after this time; its "
         "result is then gave_up: 90, 30m, 24h, 7d (default 24h)"),
        ("ack-wait", period, None, "TIME", "other workers take the ids of a dead worker after "
         "this time; one value for the whole pool (default: that of the pool, 60 s for a new one)"),
        ("replicas", whole, None, "N", "copies that a cluster keeps (default 3 on a cluster)"),
        ("metrics", address, None, "[HOST:]PORT", "serve /metrics and /healthz (default host "
         "127.0.0.1)"),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=kind, default=default, metavar=metavar, help=what)
    parser.add_argument(
        "--share-budget", action="store_true", help="make --max-rate the total of all workers and "
        "services that share a budget on the NATS server, for this relay and key",
    )  # fmt: skip
    parser.add_argument(
        "--status", action="store_true", help="start no worker; print how many ids wait, how many "
        "each worker holds, and the results of the last minute",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="with --status: as one JSON object")
    parser.add_argument("-v", "--verbose", action="store_true", help="log all details")


def run_worker(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    if arguments.status:
        return run_status(arguments)
    if arguments.json:
        print_error("--json is for --status; give both")
        return UNUSABLE
    logging.basicConfig(format=FORMAT, level=logging.INFO)
    logger.setLevel(logging.DEBUG if arguments.verbose else logging.INFO)
    try:
        run(_work(arguments))
    except WaitAborted as error:
        remedy = "correct the options, and start it again"
        if isinstance(error.cause, AuthenticationError | PermissionDeniedError | QuotaError):
            remedy = "give a good key (LUMA_API_KEY)"
        logger.error(
            "the worker stops, and all ids are returned to the queue: %s; %s", error.cause, remedy
        )
        return REFUSED
    except (asyncio.CancelledError, KeyboardInterrupt):
        logger.info("stopped before it began")
        return 0
    except ConnectionError as error:
        logger.error("the worker stops: %s", error)
        return CONNECTION_LOST
    except (QueueError, ModuleNotFoundError, ValueError, OSError) as error:
        print_error(error)
        return UNUSABLE
    return 0


async def _work(arguments: argparse.Namespace) -> None:
    from luma_async.worker import SharedBudget, Worker
    from luma_async.worker.metrics import Metrics

    queue = queue_of(arguments, arguments.replicas)
    luma = session_of(arguments, budget=SharedBudget(queue) if arguments.share_budget else None)
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(queue)
        await stack.enter_async_context(luma)
        worker = Worker(
            luma,
            queue,
            capacity=arguments.capacity,
            give_up=arguments.give_up,
            ack_wait=arguments.ack_wait,
            on_end=metrics.count_result,
        )
        metrics.observe(worker, lambda: luma.stats)
        for sign in stop_signals():
            asyncio.get_running_loop().add_signal_handler(sign, worker.stop)
        if arguments.metrics is not None:
            await stack.enter_async_context(_served(metrics, *arguments.metrics))
        reports = asyncio.create_task(_report(worker, luma))
        stack.callback(reports.cancel)
        logger.info("worker started: %r, relay %s", queue, luma)
        try:
            await worker.run()
        except QueueError as error:
            raise ConnectionError(str(error)) from error
        logger.info("worker stopped: %s", _described(worker))


async def _report(worker: "Worker", luma: "LumaSession") -> None:
    while True:
        await asyncio.sleep(REPORT_EVERY)
        logger.info("%s; %r", _described(worker), luma)


def _described(worker: "Worker") -> str:
    work = worker.work
    ends = ", ".join(f"{count} {state}" for state, count in work.ends.items() if count)
    return f"{work.held} held, {work.peers} other workers; results: {ends or 'nothing yet'}"


@asynccontextmanager
async def _served(metrics: "Metrics", host: str, port: int) -> AsyncGenerator[None, None]:
    from aiohttp import web

    runner = web.AppRunner(metrics.application(), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield
    finally:
        await runner.cleanup()
