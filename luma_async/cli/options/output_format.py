"""The options that say how the lines of a command are written: `--fields` and `--csv`."""

import argparse
from collections.abc import Callable, Collection

from luma_async.cli.display.line_format import LineFormat

LONG = "generation"  # left out of CSV, unless it is named


def add_format(parser: argparse.ArgumentParser, fields: Collection[str]) -> None:
    """Add the options; `fields` are those of a line."""
    parser.add_argument(
        "--fields", type=_fields_of(fields), metavar="NAME,…",
        help=f"print lines with these fields only: {', '.join(fields)}",
    )  # fmt: skip
    parser.add_argument(
        "--csv", action="store_true", help=f"print CSV with a header; without {LONG}, "
        "unless --fields names it",
    )  # fmt: skip


def format_of(arguments: argparse.Namespace, fields: Collection[str]) -> LineFormat | None:
    """Return the format that the options name; None if they name none."""
    if arguments.fields is None and not arguments.csv:
        return None
    default = tuple(name for name in fields if name != LONG)
    return LineFormat(arguments.fields or default, arguments.csv)


def _fields_of(known: Collection[str]) -> Callable[[str], tuple[str, ...]]:
    def read(text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
        if not names or not set(names) <= set(known):
            remedy = f"give some of {', '.join(known)}, with commas between them"
            raise argparse.ArgumentTypeError(f"{text!r} names no fields; {remedy}")
        return names

    return read
