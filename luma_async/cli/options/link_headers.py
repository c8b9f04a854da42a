"""The options for links that need a key: header fields, and the hosts that receive them."""

import argparse
from collections.abc import Callable
from pathlib import Path

from luma_async import validation as checks
from luma_async.downloads.links import RESERVED_HEADERS, LinkHeaders

_IN_OPTIONS = {
    "name the host in allow_hosts": "name the host by --allow-host",
    "pass headers and header_hosts": "pass --link-header and --link-header-host",
}


def add_allow_host(add_argument: Callable[..., object]) -> None:
    """Add the option for links to private addresses, by the method of a parser or a group."""
    add_argument(
        "--allow-host", action="append", default=[], metavar="NAME",
        help="follow links to this host even if its address is private; may be repeated",
    )  # fmt: skip


def add_link_headers(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group("links that need a key")
    group.add_argument(
        "--link-header", action="append", default=[], type=_field, metavar="'NAME: VALUE'",
        help="send this header field with the requests for videos, to the hosts of "
        "--link-header-host; @FILE reads it from a file, so that ps does not show it; may be "
        "repeated",
    )  # fmt: skip
    group.add_argument(
        "--link-header-host", action="append", default=[], metavar="HOST",
        help="a host that receives the header fields; may be repeated",
    )  # fmt: skip


def check_link_headers(arguments: argparse.Namespace) -> None:
    """Raise ValueError for one option without the other, and for fields that cannot be sent."""
    if bool(arguments.link_header) != bool(arguments.link_header_host):
        raise ValueError("--link-header and --link-header-host belong together; give both, or none")
    fields = dict(arguments.link_header)
    checks.headers("--link-header", fields, reserved=RESERVED_HEADERS)
    LinkHeaders(fields, arguments.link_header_host)
    if arguments.link_header and arguments.download is None:
        raise ValueError("--link-header is for downloads; give --download DIR")


def in_options(text: str) -> str:
    """Return the error of a download with the options of the command as its remedy."""
    for parameter, option in _IN_OPTIONS.items():
        text = text.replace(parameter, option)
    return text


def _field(text: str) -> tuple[str, str]:
    """Return name and value of a header field. No error repeats them."""
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            raise argparse.ArgumentTypeError("the file cannot be read; give @FILE") from None
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError("not a header field; give 'NAME: VALUE'")
    return name.strip(), value.strip()
