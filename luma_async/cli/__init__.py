"""The command `luma-async`: parses the arguments, and runs the command that they name."""

import argparse
from collections.abc import Sequence

from luma_async._version import __version__
from luma_async.cli.commands.completion import add_completion
from luma_async.cli.commands.demo import add_demo
from luma_async.cli.commands.doctor import add_capture, add_doctor
from luma_async.cli.commands.get import add_get
from luma_async.cli.commands.queue import add_results, add_submit
from luma_async.cli.commands.relay import add_relay
from luma_async.cli.commands.render import add_render
from luma_async.cli.commands.version import add_version
from luma_async.cli.commands.wait import add_wait
from luma_async.cli.commands.worker import add_worker
from luma_async.cli.runtime import INTERRUPTED, kept_signal_handlers, print_error

_STOPPED = "stopped by ctrl-C before all had ended"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; `argv` defaults to the process's own arguments.

    0 is success, 2 invalid arguments, files or packages, 130 ctrl-C. Raises SystemExit for help,
    version (0) and usage errors (2), as argparse does.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.error("no command given; try luma-async demo")
    with kept_signal_handlers():
        try:
            code: int = arguments.run(arguments)
        except KeyboardInterrupt:
            print_error(_STOPPED)
            return INTERRUPTED
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="luma-async",
        description="Submit Luma video tasks, and wait for thousands with one shared poller.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for add in (
        add_render,
        add_wait,
        add_get,
        add_demo,
        add_doctor,
        add_capture,
        add_relay,
        add_worker,
        add_submit,
        add_results,
        add_version,
    ):
        add(commands)
    add_completion(commands, parser)
    return parser
