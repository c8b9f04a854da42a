"""Which IP addresses may be connected to, and which hosts are IP addresses.

The tables are those of the IANA registries of special addresses, with the metadata services of
clouds. They are written out here because `ipaddress.is_global` differs between versions of Python.

Some resolvers answer each name with an address of 198.18.0.0/15, and a local proxy (Clash, Surge,
sing-box) connects to the real host: "fake-ip". Such an address is accepted for a name, never as a
literal. Their IPv6 addresses (sing-box, Xray: fc00::/18; mihomo: fdfe:dcba:9876::/64) are refused,
because private networks have such addresses, too; these resolvers answer with IPv4 as well.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

MAX_DIGITS = 40  # of a part of an IPv4 address

FAKE_IP = IPv4Network("198.18.0.0/15")
LOCAL_DOMAINS = (
    ".local",
    ".localdomain",
    ".localhost",
    ".internal",
    ".intranet",
    ".lan",
    ".home",
    ".arpa",
    ".corp",
)

_SPECIAL_IPV4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT; metadata of Alibaba Cloud
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # metadata of Azure
        "169.254.0.0/16",  # link-local; metadata of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; metadata of Oracle Cloud
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",  # private
        str(FAKE_IP),  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
_GLOBAL_IPV6 = IPv6Network("2000::/3")  # all that is assigned; what is not in it is special
_SPECIAL_IPV6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, Teredo, benchmarks
        "2001:db8::/32",  # documentation
        "3fff::/20",  # documentation
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Return whether an IP address belongs to the public internet.

    An IPv6 address that contains an IPv4 address is judged by that.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address):
        if parsed.scope_id is not None:
            return False
        embedded = _embedded_ipv4(parsed)
        if embedded is None:
            return parsed in _GLOBAL_IPV6 and not any(parsed in one for one in _SPECIAL_IPV6)
        parsed = embedded
    return not any(parsed in network for network in _SPECIAL_IPV4)


def may_connect(host: str, address: str) -> bool:
    """Return whether a connection to `address` is allowed, to which the name `host` resolves."""
    if is_public(address):
        return True
    return _is_fake_ip(address) and not is_local_name(host)


def is_local_name(host: str) -> bool:
    """Return whether a host is a name of this machine or of a local network."""
    name = host_key(host)
    return "." not in name or f".{name}".endswith(LOCAL_DOMAINS)


def host_key(host: str) -> str:
    """Return a host in the form in which two hosts are compared; a port is left out."""
    name = host.lower()
    if name.count(":") == 1:
        name = name.partition(":")[0]
    return name.strip("[]").rstrip(".")


def address_of(host: str) -> IPv4Address | IPv6Address | None:
    """Return the IP address that a host is, in any notation of browsers; None for a name.

    Raises ValueError for a host that looks like an address and is none.
    """
    name = host_key(host)
    if ":" in name:
        return ip_address(name)
    parts = name.split(".")
    if not _is_number(parts[-1]):
        return None
    *first, last = map(_number, parts)
    if len(first) > 3 or max(first, default=0) > 255 or last >= 256 ** (4 - len(first)):
        raise ValueError(f"{name:.80} is not an IPv4 address")
    return IPv4Address(last + sum(part << 8 * (3 - place) for place, part in enumerate(first)))


def _is_fake_ip(address: str) -> bool:
    try:
        return IPv4Address(address) in FAKE_IP
    except ValueError:
        return False


def _embedded_ipv4(address: IPv6Address) -> IPv4Address | None:
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


def _is_number(text: str) -> bool:
    return text.isascii() and (text.isdigit() or text.startswith("0x"))


def _number(text: str) -> int:
    """Return a part of an IPv4 address: decimal, octal after a 0, hexadecimal after 0x."""
    try:
        if not _is_number(text) or len(text) > MAX_DIGITS:
            raise ValueError
        if text.startswith("0x"):
            return int(text[2:] or "0", 16)
        return int(text, 8 if text.startswith("0") else 10)
    except ValueError:
        raise ValueError(f"{text:.80} is not a number") from None
