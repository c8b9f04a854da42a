"""Which links may be followed, and the name of the file for a link.

Ids and links are untrusted input. A link is followed only if it is http or https and leads to the
public internet: the responses of a relay must not make this process send requests to a router, to
another machine in the local network or to the metadata service of a cloud. A literal address is
checked at once; a host name when it is resolved, by its addresses (`is_public`). An id cannot name
a file outside of the directory.
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

MAX_NAME_LENGTH = 180  # characters, without the suffix
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
    """Return whether an IP address belongs to the public internet.

    An IPv6 address that contains an IPv4 address is judged by that.
    """
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    embedded = _embedded_ipv4(parsed) if isinstance(parsed, IPv6Address) else None
    if embedded is not None:
        return is_public(str(embedded))
    if isinstance(parsed, IPv6Address) and parsed.is_site_local:
        return False
    return parsed.is_global and not (parsed.is_multicast or parsed.is_reserved)


def parse_link(link: str | None, allowed: Collection[str] = ()) -> str | None:
    """Return a link in ASCII if a web page may contain it, else None; names are not resolved.

    A browser resolves host names itself, so names of local networks are refused unless they are in
    `allowed`.
    """
    if link is None:
        return None
    try:
        url = check_link(link, allowed)
    except DownloadError:
        return None
    host = (url.host or "").lower().rstrip(".")
    is_local = not _ip_of(host) and (f".{host}".endswith(LOCAL_DOMAINS) or "." not in host)
    return None if is_local and host not in allowed else str(url)


def check_link(link: str, allowed: Collection[str]) -> URL:
    """Return the URL of a link; raise DownloadError if it must not be followed.

    Hosts in `allowed` may be private. A link in ASCII is not changed, because its signature may
    depend on each character.
    """
    is_encoded = link.isascii() and link.isprintable() and " " not in link
    try:
        url = URL(link, encoded=is_encoded)
        host, port = url.host, url.port
    except ValueError:
        raise DownloadError("the link is not a valid URL; ask the relay's operator") from None
    if url.scheme not in ("http", "https") or not host or not port:
        raise DownloadError(
            f"the link {without_query(url)} is not http or https; ask the relay's operator"
        )
    if host.lower() not in allowed and _is_private(host):
        raise private_host_error(host)
    return url


def private_host_error(host: str) -> DownloadError:
    """Return the error for a link that leads to a private address."""
    return DownloadError(
        f"the link leads to a private address at {one_line(host)}; "
        "if that is intended, name the host in allow_hosts"
    )


def without_query(url: URL) -> str:
    """Return a link without the parts that may be secret: user, query and fragment."""
    host = f"[{url.host}]" if url.host and ":" in url.host else url.host
    return one_line(f"{url.scheme}://{host or ''}{url.path}")


def file_name(task_id: str, link: str | None) -> str:
    """Return the file name for the video of a task.

    It is the id, percent-encoded where necessary, or a digest of an id that is too long, with the
    suffix of the link if that is one of `SUFFIXES`, else .mp4.
    """
    name = quote(task_id, safe="", errors="replace")
    if name.startswith("."):
        name = f"%2E{name[1:]}"
    if len(name) > MAX_NAME_LENGTH:
        name = f"~{hashlib.sha256(task_id.encode(errors='replace')).hexdigest()}"
    path = (link or "").partition("?")[0].partition("#")[0].lower()
    return name + next((suffix for suffix in SUFFIXES if path.endswith(suffix)), SUFFIXES[0])


def _embedded_ipv4(address: IPv6Address) -> IPv4Address | None:
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    teredo = address.teredo[1] if address.teredo else None
    return address.ipv4_mapped or address.sixtofour or teredo


def _is_private(host: str) -> bool:
    """Return whether a host is a literal private address, or a name of this machine."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    if address := _ip_of(name):
        return not is_public(address)
    return False


def _ip_of(host: str) -> str | None:
    """Return the IP address that a host is, in any notation of browsers; None for a name."""
    with suppress(ValueError):
        return str(ip_address(host.partition("%")[0]))
    with suppress(OSError, UnicodeEncodeError):
        return inet_ntoa(inet_aton(host))
    return None
