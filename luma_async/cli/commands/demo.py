"""`luma-async demo`: many waits on a relay in this process, as a live table and a few figures.

rich and the relay are imported only by the demo itself: the other commands work without rich, and
need less memory.
"""

import argparse
import asyncio
import math
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from luma_async.cli.display.output import TerminalOutput
from luma_async.cli.display.progress import Progress
from luma_async.cli.options.types import Commands, add_command, count, seconds, whole
from luma_async.cli.runtime import UNUSABLE, print_error, run, run_and_report
from luma_async.extras import install_command
from luma_async.polling.hooks import ChangeEvent
from luma_async.scheduling.pace import Every
from luma_async.scheduling.throttle import Limits
from luma_async.session import LumaSession
from luma_async.text import format_precisely, quantity

if TYPE_CHECKING:
    from rich.console import Console

MAX_TASKS = 100_000
FAILING_SHARE = 0.08
PROGRESS_EVERY = 5.0  # seconds between two lines, without a live table
SPARE_RATE = 1.2  # of the rate that a full round of polls needs, where it exceeds the default


def add_demo(commands: Commands) -> None:
    """Add the command."""
    about = "wait for many tasks of a simulated relay in this process: no key, no network"
    odds = f"About {FAILING_SHARE:.0%} of the tasks fail, on purpose."
    parser = add_command(commands, "demo", about, run_demo, more=f" {odds}")
    for name, kind, default, what in (
        ("tasks", count(MAX_TASKS), 1000, "how many tasks to submit and wait for"),
        ("seconds", seconds, 20.0, "all tasks end within this many seconds, at random times"),
        ("interval", seconds, 1.0, "seconds from one poll of a task to the next"),
        ("seed", whole, 0, "the same number gives the same tasks"),
    ):
        text = f"{what} (default {default:g})"
        parser.add_argument(f"--{name}", type=kind, default=default, metavar="N", help=text)


def run_demo(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    try:
        from rich.console import Console
    except ModuleNotFoundError:
        print_error(f"the demo needs rich, which is missing; {install_command('cli')}")
        return UNUSABLE
    console = Console(highlight=False)
    is_live = console.is_interactive and console.file.isatty()

    def act() -> int:
        for line in run(demo(arguments, console if is_live else None)):
            print(line)  # rich would end the process with 1 if the reader has closed the pipe
        print(end="", flush=True)
        return 0

    return run_and_report(act)


async def demo(arguments: argparse.Namespace, console: "Console | None" = None) -> list[str]:
    """Submit the tasks, wait for all of them, and return the report; draw on the console if any."""
    from luma_async.testing import FakeRelay

    loop = asyncio.get_running_loop()
    progress, lags = Progress(), list[float]()

    def on_change(event: ChangeEvent) -> None:
        now, date = time.monotonic(), datetime.now(UTC)
        if not event.ended and event.generation is not None:
            progress.learn(event.generation, now, date)
        elif event.ended:
            progress.end(event.id, event.generation, now, date)
            lags.append(loop.time() - (relay.tasks[event.id].ends_at or 0.0))

    relay = FakeRelay(seed=arguments.seed, durations=(0.0, arguments.seconds), fails=FAILING_SHARE)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(relay)
        luma = await stack.enter_async_context(
            LumaSession(
                relay.url,
                api_key=relay.api_key,
                pace=Every(arguments.interval),
                limits=limits_for(arguments.tasks, arguments.interval),
                on_change=on_change,
            )
        )
        if console is not None:
            await stack.enter_async_context(TerminalOutput(console).living(progress, luma))
        began = loop.time()
        ids = progress.add([relay.submit() for _ in range(arguments.tasks)], time.monotonic())
        waiting = luma.wait_until_done(ids, timeout=None)
        await (waiting if console is not None else _with_progress(waiting, arguments, progress))
        await asyncio.sleep(0)
        took = loop.time() - began
    durations = [(task.ends_at or 0.0) - task.submitted_at for task in relay.tasks.values()]
    singly = sum(polls_alone(one, arguments.interval) for one in durations)
    return report(progress, arguments.interval, sorted(lags), relay.requests, singly, took)


async def _with_progress(
    waiting: Coroutine[Any, Any, object], arguments: argparse.Namespace, progress: Progress
) -> None:
    """Await a wait; say on standard error what it is for, then every few seconds how far it is."""
    lasts = format_precisely(arguments.seconds)
    print_error(f"{quantity(arguments.tasks, 'task')} will end within {lasts}; the report follows")
    task = asyncio.ensure_future(waiting)
    try:
        while not (await asyncio.wait([task], timeout=PROGRESS_EVERY))[0]:
            print_error(f"{progress.ended:,} of {arguments.tasks:,} ended")
        await task
    finally:
        task.cancel()


def limits_for(tasks: int, interval: float) -> Limits:
    """Return the default limits; if a round of polls does not fit in, with a higher rate."""
    usual = Limits()
    needed = math.ceil(tasks / usual.max_batch) / interval
    return usual if needed <= usual.max_rate else Limits(max_rate=needed * SPARE_RATE)


def polls_alone(duration: float, interval: float) -> int:
    """Return the GETs for one task: at once, then every `interval`, until one finds it ended."""
    return math.ceil(duration / interval) + 1


def report(
    progress: Progress, interval: float, lags: list[float], requests: int, singly: int, took: float
) -> list[str]:
    """Return the report as aligned lines of plain ASCII; `lags` are sorted."""
    counts, ratio = progress.counts, singly / requests
    times = f"{ratio:.1f}" if ratio < 10 else f"{ratio:,.0f}"
    every = f"each task polled every {format_precisely(interval)}"
    rows = [
        ("Tasks", f"{len(progress.rows):,}", f"all ended, in {format_precisely(took)}"),
        ("  completed", f"{counts['completed']:,}", ""),
        ("  failed", f"{counts['failed']:,}", "on purpose" if counts["failed"] else ""),
        ("Requests", "", every),
        ("  one shared poller", f"{requests:,}", ""),
        ("  one GET per task", f"{singly:,}", f"{times} times as many"),
        ("Delay", "", "from the true end of a task to its news"),
        ("  on average", format_precisely(sum(lags) / len(lags)), ""),
        ("  95 of 100 within", format_precisely(lags[math.ceil(0.95 * len(lags)) - 1]), ""),
    ]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    return [f"{label:<{first}}  {value:>{second}}  {note}".rstrip() for label, value, note in rows]
