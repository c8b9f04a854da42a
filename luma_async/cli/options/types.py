"""Values of the command line: every error ends with what to give instead."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from math import inf
from typing import Protocol, TypeVar

MIN_SECONDS = 0.01
MAX_PORT = 65_535
MAX_SECONDS = 86_400.0
N = TypeVar("N", int, float)

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


class Commands(Protocol):
    """What a command adds itself to."""

    def add_parser(
        self,
        name: str,
        *,
        help: str,  # noqa: A002 - argparse's name
        description: str,
        epilog: str | None,
        allow_abbrev: bool,
    ) -> ArgumentParser:
        """Add a command."""
        ...


def add_command(
    commands: Commands,
    name: str,
    about: str,
    run: Callable[[Namespace], int],
    more: str = "",
    epilog: str | None = None,
) -> ArgumentParser:
    """Add a command that `run` runs; its description is what it is `about`, and `more`."""
    description = f"{about[0].upper()}{about[1:]}.{more}"
    parser = commands.add_parser(
        name, help=about, description=description, epilog=epilog, allow_abbrev=False
    )
    parser.set_defaults(run=run)
    return parser


def whole(text: str) -> int:
    """Read a whole number."""
    return _read(text, int, lambda _: True, "whole number", "give a whole number such as 7")


def count(most: int) -> Callable[[str], int]:
    """Return a function that reads a whole number from 1 to `most`."""
    remedy = f"give a whole number from 1 to {most}"
    return lambda text: _read(text, int, lambda value: 1 <= value <= most, "whole number", remedy)


def seconds(text: str) -> float:
    """Read seconds, a day at most."""
    remedy = f"give seconds from {MIN_SECONDS:g} to {MAX_SECONDS:g}"
    return within(text, MIN_SECONDS, MAX_SECONDS, remedy)


def within(text: str, least: float, most: float, remedy: str) -> float:
    """Read a number that is not below the least nor above the most."""
    return _read(text, float, lambda value: least <= value <= most, "number", remedy)


def number(text: str) -> float:
    """Read a number above zero."""
    remedy = "give a number above zero, such as 2.5"
    return _read(text, float, lambda value: 0.0 < value < inf, "number", remedy)


def period(text: str) -> float:
    """Read a length of time as seconds: 90, 90s, 30m, 24h, 7d."""
    unit = UNITS.get(text[-1:].lower())
    try:
        return number(text if unit is None else text[:-1]) * (unit or 1.0)
    except ArgumentTypeError:
        remedy = "give one such as 90, 30m, 24h or 7d"
        raise ArgumentTypeError(f"{text!r} is no length of time; {remedy}") from None


def address(text: str) -> tuple[str, int]:
    """Read a port, on loopback, or a host and a port."""
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or not 0 < int(port) <= MAX_PORT:
        remedy = "give a port such as 9100, or an address such as 0.0.0.0:9100"
        raise ArgumentTypeError(f"{text!r} is no port; {remedy}")
    return host.strip("[]") or "127.0.0.1", int(port)


def _read(
    text: str, read: Callable[[str], N], fits: Callable[[N], bool], kind: str, remedy: str
) -> N:
    try:
        value = read(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is no {kind}; {remedy}") from None
    if not fits(value):
        raise ArgumentTypeError(f"{text} is out of range; {remedy}")
    return value
