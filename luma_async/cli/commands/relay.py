"""`luma-async relay`: a relay of your own to develop against: no key, no network, no cost."""

import argparse
import asyncio
import os
import shlex
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from luma_async.cli.options.types import MAX_SECONDS, Commands, add_command, count, whole, within
from luma_async.cli.runtime import UNUSABLE, discard_stdout, print_error, run, stop_signals

if TYPE_CHECKING:
    from luma_async.testing import FakeRelay, Fault, SubmitFault

F = TypeVar("F")

MAX_TASKS = 100_000
PROMPTS = (
    "a cat dances on a piano, warm light",
    "drone flight over a misty fjord at dawn",
    "一只熊猫在竹林里弹吉他",
    "rain on a neon street, slow motion",
    "a paper boat sails down a gutter",
    "time lapse of a desert blooming",
)


def add_relay(commands: Commands) -> None:
    """Add the command."""
    about = "run a simulated relay for development, until SIGTERM or ctrl-C: no key, no network"
    more = (
        " It prints the ids of its tasks, one per line. POST /luma/generations with"
        ' {"user_prompt": "…"} submits one more. The links of completed tasks work.'
    )
    parser = add_command(commands, "relay", about, run_relay, more)
    parser.add_argument(
        "--envelope",
        choices=("bare", "wrapped"),
        default="bare",
        help="answer with the task objects, or with rows of the relay's own table (default bare)",
    )
    parser.add_argument(
        "--replay", type=Path, metavar="FILE", help="answer like the relay whose responses "
        "luma-async capture wrote into this file; --envelope has no effect then",
    )  # fmt: skip
    for name, kind, default, metavar, what in (
        ("host", str, "127.0.0.1", "HOST", "the address to listen on (default 127.0.0.1)"),
        ("port", port, 8000, "N", "the port to listen on; 0 takes a free one (default 8000)"),
        ("tasks", tasks, 0, "N", "tasks that are submitted at the start (default 0)"),
        ("seconds", span, (60.0, 180.0), "A[-B]", "how long each task takes, submitted ones too, "
         "in seconds: a number or a range (default 60-180)"),
        ("fails", share, 0.0, "SHARE", "the share of tasks that fail, from 0 to 1 (default 0)"),
        ("faults", faults, None, "NAME=SHARE,…", "the share of requests about tasks that get each "
         "fault, such as storm=0.05,reset=0.02"),
        ("submit-faults", submit_faults, None, "NAME=SHARE,…", "the share of submissions that get "
         "each fault, such as lost_after=0.05,saturated=0.1"),
        ("latency", wait, 0.0, "S", "seconds before each answer about tasks (default 0)"),
        ("api-key", str, "sk-fake", "KEY", "the API key that clients must send (default sk-fake)"),
        ("seed", whole, 0, "N", "the same number gives the same tasks and faults (default 0)"),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=kind, default=default, metavar=metavar, help=what)


def run_relay(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code: 0, or 2 where it cannot listen."""
    try:
        run(_play(arguments))
    except (asyncio.CancelledError, KeyboardInterrupt):
        return 0
    except (OSError, ValueError) as error:
        print_error(_trouble(error, arguments))
        return UNUSABLE
    return 0


def port(text: str) -> int:
    """Read a TCP port, 0 for a free one."""
    number = whole(text)
    if not 0 <= number <= 65_535:
        raise ArgumentTypeError(f"{text} is no port; give one from 0 (a free one) to 65535")
    return number


def tasks(text: str) -> int:
    """Read how many tasks, which may be none."""
    return 0 if text == "0" else count(MAX_TASKS)(text)


def span(text: str) -> tuple[float, float]:
    """Read one number of seconds, or the least and the most."""
    first, _, last = text.partition("-")
    least, most = wait(first), wait(last or first)
    if least > most:
        raise ArgumentTypeError(f"{text!r} is empty; give the least first, such as 60-180")
    return least, most


def wait(text: str) -> float:
    """Read seconds, which may be none, a day at most."""
    return within(text, 0.0, MAX_SECONDS, "give seconds such as 2.5")


def share(text: str) -> float:
    """Read a share."""
    return within(text, 0.0, 1.0, "give a share from 0 to 1, such as 0.1")


def faults(text: str) -> "dict[Fault, float]":
    """Read shares of faults: storm=0.05,reset=0.02."""
    from luma_async.testing.faults import check_faults

    return _shares(text, check_faults)


def submit_faults(text: str) -> "dict[SubmitFault, float]":
    """Read shares of faults of submissions: lost_after=0.05,saturated=0.1."""
    from luma_async.testing.submit_faults import check_submit_faults

    return _shares(text, check_submit_faults)


def _shares(text: str, check: "Callable[[object], dict[F, float]]") -> "dict[F, float]":
    given: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        given[name.strip()] = share(value)
    try:
        return check(given)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


async def _play(arguments: argparse.Namespace) -> None:
    from luma_async.testing import FakeRelay

    stopped = asyncio.Event()
    for sign in stop_signals():
        asyncio.get_running_loop().add_signal_handler(sign, stopped.set)
    file: Path | None = arguments.replay
    relay_of = FakeRelay if file is None else partial(FakeRelay.replay, file)
    async with relay_of(
        host=arguments.host,
        port=arguments.port,
        api_key=arguments.api_key,
        envelope=arguments.envelope,
        latency=arguments.latency,
        seed=arguments.seed,
        faults=arguments.faults,
        submit_faults=arguments.submit_faults,
        durations=arguments.seconds,
        fails=arguments.fails,
    ) as relay:
        print(_where(relay), file=sys.stderr, flush=True)
        prompts = islice(cycle(PROMPTS), arguments.tasks)
        _print_ids([relay.submit(prompt) for prompt in prompts])
        await stopped.wait()


def _where(relay: "FakeRelay") -> str:
    """Say where the relay is, as a line for a shell."""
    settings = f"LUMA_BASE_URL={relay.url} LUMA_API_KEY={shlex.quote(relay.api_key)}"
    return f"luma-async: a relay is at {relay.url}; ctrl-C ends it\nexport {settings}"


def _print_ids(ids: list[str]) -> None:
    """Print the ids; if the reader closes the pipe, as head does, the relay continues."""
    try:
        for task_id in ids:
            print(task_id)
        print(end="", flush=True)
    except BrokenPipeError:
        discard_stdout()


def _trouble(error: Exception, arguments: argparse.Namespace) -> str:
    if isinstance(error, OSError) and error.filename is None:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        where = f"{arguments.host} port {arguments.port}"
        return f"cannot listen on {where} ({reason}); give another --host or --port (0: a free one)"
    return str(error)
