"""Which links may be followed, and the name of the file for a link.

Ids and links are untrusted input. A link is followed only if it is http or https and leads to the
public internet: the responses of a relay must not make this process send requests to a router, to
another machine in the local network or to the metadata service of a cloud. A literal address is
checked at once, in each notation that browsers and resolvers accept; a host name when it is
resolved, by its addresses (`addresses.may_connect`). A host with a percent sign is refused:
programs disagree about its meaning. An id cannot name a file outside of the directory.
"""

import re
from collections.abc import Collection, Mapping
from urllib.parse import quote, unquote

from yarl import URL

from luma_async.downloads.addresses import address_of, host_key, is_local_name, is_public
from luma_async.downloads.host_errors import HostError
from luma_async.errors import DownloadError
from luma_async.text import hashed_name, one_line

MAX_NAME_LENGTH = 180  # characters, without the suffix
MIN_SECRET_LENGTH = 6  # characters
RESERVED_HEADERS = (
    "accept-encoding",
    "connection",
    "content-length",
    "host",
    "if-range",
    "range",
    "transfer-encoding",
)
SUFFIXES = (".mp4", ".mov", ".m4v", ".webm", ".mkv", ".gif")

_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
_PORT = re.compile(r"(\[[^\]]*\]|[^:]*):([0-9]+)")
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

    Hosts in `allowed` may be private. Only what is not ASCII is encoded in a path and a query,
    because a signature may depend on each character.
    """
    try:
        url = _url_of(link)
        host, port = url.raw_host, url.port
    except (ValueError, IndexError):  # yarl 1.25: IndexError for http://[::1]@
        raise invalid_link_error() from None
    if url.scheme not in ("http", "https") or not host or not port:
        raise DownloadError(
            f"the link {without_query(url)} is not http or https; ask the relay's operator"
        )
    if not is_allowed(host, allowed):
        _check_public(unquote(host))
    if not _HOST.fullmatch(host):
        raise invalid_link_error()
    return url


def _url_of(link: str) -> URL:
    """Return the URL of a link; ValueError or IndexError if it is none."""
    if link.isascii() and link.isprintable() and " " not in link:
        return URL(link, encoded=True)
    url = URL(link)
    start = re.match(r"\w+://[^/?#]*", link)
    if start is None:
        return url
    tail = quote(link[start.end() :], safe=_PRINTABLE)
    return URL(f"{url.scheme}://{url.raw_authority}{tail}", encoded=True)


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


def invalid_link_error() -> DownloadError:
    """Return the error for a link that is not a valid URL."""
    return DownloadError("the link is not a valid URL; ask the relay's operator")


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
    return name + suffix_of(link or "")


def suffix_of(link: str) -> str:
    """Return the suffix of a link if it is one of `SUFFIXES`, else .mp4."""
    path = link.partition("?")[0].partition("#")[0].lower()
    return next((suffix for suffix in SUFFIXES if path.endswith(suffix)), SUFFIXES[0])


class LinkHeaders:
    """Header fields for the requests to some hosts, such as the key of a relay for its own links.

    They are sent to a host of `hosts` (with a port: only to this port) if the link itself leads
    there, and not to the target of a redirect to another host, port or scheme, except from http to
    https. Raises ValueError for
    fields without a host, and for a URL in place of a host.
    """

    def __init__(self, headers: Mapping[str, str], hosts: Collection[str]) -> None:
        if bool(headers) != bool(hosts):
            raise ValueError("headers and header_hosts belong together; give both, or none")
        if any("/" in host or not host for host in hosts):
            raise ValueError("header_hosts contains what is no host; give names without a scheme")
        self._headers = dict(headers)
        self._hosts = frozenset(map(_host_and_port, hosts))
        words = (word for value in headers.values() for word in value.split())
        self._secrets = [word for word in words if len(word) >= MIN_SECRET_LENGTH]

    def for_request(self, url: URL, link: URL) -> dict[str, str]:
        """Return the header fields of a request to `url`, to which `link` leads."""
        is_upgrade = (link.scheme, link.port, url.scheme, url.port) == ("http", 80, "https", 443)
        is_same = url.raw_host == link.raw_host and (is_upgrade or url.origin() == link.origin())
        host = host_key(url.raw_host or "")
        if is_same and not self._hosts.isdisjoint([(host, None), (host, url.port)]):
            return dict(self._headers)
        return {}

    def without_secrets(self, error: HostError) -> HostError:
        """Return an error of a host without its code if that repeats a value of the headers."""
        if any(secret in (error.code or "") for secret in self._secrets):
            return HostError(error.meaning, error.status)
        return error

    def __repr__(self) -> str:
        hosts = sorted(host if port is None else f"{host}:{port}" for host, port in self._hosts)
        return f"<LinkHeaders {sorted(self._headers)} for {hosts}>"


def _host_and_port(host: str) -> tuple[str, int | None]:
    found = _PORT.fullmatch(host)
    return (host_key(found[1]), int(found[2])) if found else (host_key(host), None)


def _check_public(host: str) -> None:
    """Raise DownloadError for a private address, and for a name of this machine."""
    try:
        address = address_of(host.partition("%")[0])
    except ValueError:
        raise invalid_link_error() from None
    if address is None and f".{host_key(host)}".endswith(".localhost"):
        raise private_host_error(host, "127.0.0.1")
    if address is not None and not is_public(str(address)):
        raise private_host_error(host, str(address))
