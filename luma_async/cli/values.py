"""Values of the command line: every error ends with what to give instead."""

from argparse import ArgumentTypeError
from collections.abc import Callable

LEAST_SECONDS = 0.01
MOST_SECONDS = 86_400.0


def whole(text: str) -> int:
    """Read a whole number."""
    try:
        return int(text)
    except ValueError:
        remedy = "give a whole number such as 7"
        raise ArgumentTypeError(f"{text!r} is no whole number; {remedy}") from None


def count(most: int) -> Callable[[str], int]:
    """Return what reads a whole number from 1 to the most."""

    def read(text: str) -> int:
        number = whole(text)
        if not 1 <= number <= most:
            remedy = f"give a whole number from 1 to {most}"
            raise ArgumentTypeError(f"{text} is out of range; {remedy}")
        return number

    return read


def seconds(text: str) -> float:
    """Read seconds, a day at most."""
    remedy = f"give seconds from {LEAST_SECONDS:g} to {MOST_SECONDS:g}"
    try:
        number = float(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is no number; {remedy}") from None
    if not LEAST_SECONDS <= number <= MOST_SECONDS:
        raise ArgumentTypeError(f"{text} is out of range; {remedy}")
    return number
