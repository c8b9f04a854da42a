"""Which links may be followed, and what the file behind one is called.

Ids and links come from strangers. A link is followed where it is http or https and leads to the
public internet: a relay, or whoever writes its answers, must not make this process ask a router, a
neighbour or the metadata service of a cloud. A name is judged by the addresses that it resolves to,
when it does (`is_public`); a literal address at once. And no id names a file elsewhere.
"""

import hashlib
from collections.abc import Collection
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from socket import inet_aton, inet_ntoa
from urllib.parse import quote

from yarl import URL

from luma_async.errors import DownloadError
from luma_async.text import one_line

MAX_NAME = 180
LOCAL_DOMAINS = (
    ".local",
    ".localdomain",
    ".internal",
    ".intranet",
    ".lan",
    ".home",
    ".arpa",
    ".corp",
)
SUFFIXES = (".mp4", ".mov", ".m4v", ".webm", ".mkv", ".gif")

_NAT64 = IPv6Network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet; one that carries another is that one."""
    try:
        one = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    carried = _embedded_ipv4(one) if isinstance(one, IPv6Address) else None
    if carried is not None:
        return is_public(str(carried))
    if isinstance(one, IPv6Address) and one.is_site_local:
        return False
    return one.is_global and not (one.is_multicast or one.is_reserved)


def parse_link(link: str | None, allowed: Collection[str] = ()) -> str | None:
    """Return a link as plain ASCII where a page may show it, as far as its text can tell.

    A browser looks names up by itself: those of local networks are refused here, unless allowed.
    """
    if link is None:
        return None
    try:
        url = check_link(link, allowed)
    except DownloadError:
        return None
    host = (url.host or "").lower().rstrip(".")
    is_local = not _number(host) and (f".{host}".endswith(LOCAL_DOMAINS) or "." not in host)
    return None if is_local and host not in allowed else str(url)


def check_link(link: str, allowed: Collection[str]) -> URL:
    """Return a link that may be followed, or raise DownloadError; `allowed` hosts may be private.

    What is plain ASCII is sent as it is told: a signature may stand on each sign of it.
    """
    plain = link.isascii() and link.isprintable() and " " not in link
    try:
        url = URL(link, encoded=plain)
        host, port = url.host, url.port
    except ValueError:
        raise DownloadError("the link is no URL; ask the relay's operator") from None
    if url.scheme not in ("http", "https") or not host or not port:
        raise DownloadError(
            f"the link {without_query(url)} is not http or https; it is not followed"
        )
    if host.lower() not in allowed and _is_private(host):
        raise private_host_error(host)
    return url


def private_host_error(host: str) -> DownloadError:
    """Make the error of a link that leads to a private address."""
    return DownloadError(
        f"the link leads to a private address at {one_line(host)}; "
        "where that is meant, name the host in allow_hosts"
    )


def without_query(url: URL) -> str:
    """Return a link without what may be secret in it: user, query and fragment."""
    host = f"[{url.host}]" if url.host and ":" in url.host else url.host
    return one_line(f"{url.scheme}://{host or ''}{url.path}")


def file_name(task_id: str, link: str | None) -> str:
    """Return what the video of a task is called: its id, percent-encoded where it must be."""
    name = quote(task_id, safe="", errors="replace")
    if name.startswith("."):
        name = f"%2E{name[1:]}"
    if len(name) > MAX_NAME:
        name = f"~{hashlib.sha256(task_id.encode(errors='replace')).hexdigest()}"
    path = (link or "").partition("?")[0].partition("#")[0].lower()
    return name + next((suffix for suffix in SUFFIXES if path.endswith(suffix)), SUFFIXES[0])


def _embedded_ipv4(one: IPv6Address) -> IPv4Address | None:
    if one in _NAT64:
        return IPv4Address(int(one) & 0xFFFF_FFFF)
    return one.ipv4_mapped or one.sixtofour or (one.teredo[1] if one.teredo else None)


def _is_private(host: str) -> bool:
    """Whether a host is a literal address, or a name of this machine's, that is not public."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    if number := _number(name):
        return not is_public(number)
    return False


def _number(host: str) -> str | None:
    """Return the address that a host is, in any of the ways in which browsers write it."""
    with suppress(ValueError):
        return str(ip_address(host.partition("%")[0]))
    with suppress(OSError, UnicodeEncodeError):
        return inet_ntoa(inet_aton(host))
    return None
