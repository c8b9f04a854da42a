"""Which links may be followed, and the name of the file for a link.

Ids and links are untrusted input. A link is followed only if it is http or https and leads to the
public internet: the responses of a relay must not make this process send requests to a router, to
another machine in the local network or to the metadata service of a cloud. A literal address is
checked at once, in each notation that browsers and resolvers accept; a host name when it is
resolved, by its addresses (`addresses.may_connect`). A host with a percent sign is refused:
programs disagree about its meaning. An id cannot name a file outside of the directory.
"""

import re
from collections.abc import Collection
from urllib.parse import quote, unquote

from yarl import URL

from luma_async.downloads.addresses import address_of, host_key, is_local_name, is_public
from luma_async.errors import DownloadError
from luma_async.text import hashed_name, one_line

MAX_NAME_LENGTH = 180  # characters, without the suffix
SUFFIXES = (".mp4", ".mov", ".m4v", ".webm", ".mkv", ".gif")

_HOST = re.compile(r"[A-Za-z0-9._:-]+")  # a name in ASCII, or an address; `%` is none


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
    host = url.raw_host or ""
    if is_allowed(host, allowed) or address_of(host) or not is_local_name(host):
        return str(url)
    return None


def check_link(link: str, allowed: Collection[str]) -> URL:
    """Return the URL of a link; raise DownloadError if it must not be followed.

    Hosts in `allowed` may be private. A link in ASCII is not changed, because its signature may
    depend on each character.
    """
    is_encoded = link.isascii() and link.isprintable() and " " not in link
    try:
        url = URL(link, encoded=is_encoded)
        host, port = url.raw_host, url.port
    except ValueError:
        raise _invalid() from None
    if url.scheme not in ("http", "https") or not host or not port:
        raise DownloadError(
            f"the link {without_query(url)} is not http or https; ask the relay's operator"
        )
    if not is_allowed(host, allowed):
        _check_public(unquote(host))
    if not _HOST.fullmatch(host):
        raise _invalid()
    return url


def is_allowed(host: str, allowed: Collection[str]) -> bool:
    """Return whether a host is in a list of hosts."""
    return host_key(host) in map(host_key, allowed)


def private_host_error(host: str, address: str) -> DownloadError:
    """Return the error for a link that leads to a private address."""
    which = "that" if host == address else f"its address {one_line(address)}"
    return DownloadError(
        f"the link leads to a private address at {one_line(host)}; "
        f"if {which} is intended, name the host in allow_hosts"
    )


def without_query(url: URL) -> str:
    """Return a link without the parts that may be secret: user, query and fragment."""
    host = f"[{url.host}]" if url.host and ":" in url.host else url.host
    return one_line(f"{url.scheme}://{host or ''}{url.path}")


def file_name(task_id: str, link: str | None) -> str:
    """Return the file name for the video of a task; two ids never have the same name.

    It is the id, percent-encoded where necessary, or `~` and a digest of an id that is too long,
    with the suffix of the link if that is one of `SUFFIXES`, else .mp4.
    """
    name = quote(task_id, safe="", errors="surrogatepass")
    if name.startswith((".", "~")):
        name = f"%{ord(name[0]):02X}{name[1:]}"
    if len(name) > MAX_NAME_LENGTH:
        name = hashed_name(task_id)
    path = (link or "").partition("?")[0].partition("#")[0].lower()
    return name + next((suffix for suffix in SUFFIXES if path.endswith(suffix)), SUFFIXES[0])


def _check_public(host: str) -> None:
    """Raise DownloadError for a private address, and for a name of this machine."""
    try:
        address = address_of(host.partition("%")[0])
    except ValueError:
        raise _invalid() from None
    if address is None and f".{host_key(host)}".endswith(".localhost"):
        raise private_host_error(host, "127.0.0.1")
    if address is not None and not is_public(str(address)):
        raise private_host_error(host, str(address))


def _invalid() -> DownloadError:
    return DownloadError("the link is not a valid URL; ask the relay's operator")
