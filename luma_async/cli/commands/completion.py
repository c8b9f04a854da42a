"""`luma-async completion`: a script with which a shell completes commands and options.

The script is made once, from the parser itself. No other command imports shtab.
"""

import argparse
from collections.abc import Mapping
from functools import partial
from typing import cast

from luma_async.cli.options.types import Commands, add_command
from luma_async.cli.runtime import run_and_report
from luma_async.extras import install_command

SHELLS = ("bash", "fish", "tcsh", "zsh")


def add_completion(commands: Commands, parser: argparse.ArgumentParser) -> None:
    """Add the command; `parser` is the parser of all commands."""
    about = "print a script with which your shell completes commands and options"
    more = " Save it to the directory where your shell looks for completions."
    run = partial(run_completion, parser)
    command = add_command(commands, "completion", about, run, more)
    command.add_argument("shell", choices=SHELLS, help="the shell that the script is for")


def run_completion(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code: 0, or 2 if the extra is missing."""
    return run_and_report(partial(_print, parser, arguments.shell))


def _print(parser: argparse.ArgumentParser, shell: str) -> int:
    try:
        import shtab
    except ModuleNotFoundError:
        remedy = install_command("completion")
        text = f"the script is made by shtab, which is missing; {remedy}"
        raise ModuleNotFoundError(text, name="shtab") from None
    _complete_paths(parser, {"FILE": shtab.FILE, "DIR": shtab.DIRECTORY})
    print(shtab.complete(parser, shell), flush=True)
    return 0


def _complete_paths(parser: argparse.ArgumentParser, kinds: Mapping[str, object]) -> None:
    """Complete the values of options by their metavar: names of files or of directories."""
    for action in parser._actions:  # pyright: ignore[reportPrivateUsage]
        if isinstance(action.choices, dict):  # of commands
            for command in cast("dict[str, argparse.ArgumentParser]", action.choices).values():
                _complete_paths(command, kinds)
        elif isinstance(action.metavar, str) and action.metavar in kinds:
            vars(action)["complete"] = kinds[action.metavar]
