"""What the commands share that ask a relay: where it is, the key, the budget."""

import argparse
from collections.abc import Callable
from pathlib import Path

from luma_async.cli.options.id_parser import BLANKS, UTF_16
from luma_async.cli.options.types import count, number, period
from luma_async.cli.runtime import print_error
from luma_async.polling.hooks import ChangeEvent
from luma_async.polling.interfaces import Budget
from luma_async.scheduling.pace import Learned
from luma_async.scheduling.throttle import Limits
from luma_async.session import LumaSession

MAX_COUNT = 10_000_000
REFUSED = 3

_OPTIONS = {  # in this order
    "pass base_url": "give --base-url",
    "pass api_key": "give --api-key-file",
    "base_url": "the base URL",
    "api_key": "the API key",
    "proxy ": "--proxy ",
}
_SHOWN = "a key among the arguments shows in ps; set LUMA_API_KEY, or --api-key-file"


def add_session(parser: argparse.ArgumentParser) -> None:
    """Add the options of a session."""
    group = parser.add_argument_group("the relay")
    group.add_argument("--base-url", metavar="URL", help="the relay (default LUMA_BASE_URL)")
    key = group.add_mutually_exclusive_group()
    key.add_argument(
        "--api-key-file", type=Path, metavar="FILE", help="read the key from a file, not from "
        "LUMA_API_KEY",
    )  # fmt: skip
    key.add_argument(
        "--api-key", metavar="KEY", help="the key; all users of the machine can see it"
    )
    limits = Limits()
    for name, kind, default, metavar, what in (
        ("interval", period, 5.0, "TIME", "average polling interval of a task: 5, 30s, 2m "
         "(default 5 seconds)"),
        ("max-rate", number, limits.max_rate, "N", "the most requests in any second "
         f"(default {limits.max_rate:g})"),
        ("max-in-flight", count(MAX_COUNT), limits.max_in_flight, "N", "the most requests in "
         f"flight (default {limits.max_in_flight})"),
        ("max-batch", count(MAX_COUNT), limits.max_batch, "N", "the most ids in a request "
         f"(default {limits.max_batch})"),
        ("proxy", str, None, "URL", "an HTTP proxy for the requests to the relay"),
    ):  # fmt: skip
        group.add_argument(f"--{name}", type=kind, default=default, metavar=metavar, help=what)


def add_capture_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that records what the relay answers."""
    parser.add_argument(
        "--capture", type=Path, metavar="FILE", help="write each distinct shape of response into "
        "this file, without secrets; the file is replaced",
    )  # fmt: skip


def session_of(
    arguments: argparse.Namespace,
    on_change: Callable[[ChangeEvent], object] | None = None,
    budget: Budget | None = None,
) -> LumaSession:
    """Return the session that the options name; ValueError where that cannot be one."""
    limits = Limits(
        max_batch=arguments.max_batch,
        max_in_flight=arguments.max_in_flight,
        max_rate=arguments.max_rate,
    )
    key = key_of(arguments)
    try:
        return LumaSession(
            arguments.base_url,
            api_key=key,
            pace=Learned(arguments.interval),
            limits=limits,
            proxy=arguments.proxy,
            on_change=on_change,
            budget=budget,
            record=getattr(arguments, "capture", None),
        )
    except ValueError as error:
        raise ValueError(_in_options(str(error))) from None


def _in_options(message: str) -> str:
    """Return an error of the session with the names of options for those of its arguments."""
    for argument, option in _OPTIONS.items():
        message = message.replace(argument, option)
    return message


def key_of(arguments: argparse.Namespace) -> str | None:
    """Return the key that is named; None leaves it to the environment."""
    if arguments.api_key is not None:
        print_error(_SHOWN)
        return str(arguments.api_key)
    path: Path | None = arguments.api_key_file
    if path is None:
        return None
    data = path.read_bytes()
    try:
        text = data.decode("utf-16" if data.startswith(UTF_16) else "utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"the key in {path} is not valid text; save it as UTF-8") from None
    if not (key := text.strip(BLANKS)):
        raise ValueError(f"{path} is empty; write the API key into it")
    if "\0" in key:
        raise ValueError(f"the key in {path} is not valid text; save it as UTF-8")
    return key
