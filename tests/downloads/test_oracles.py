"""The rules for links, compared with implementations by others.

microsoft-antissrf refuses a list of networks; ssrfguard has a table of its own, from the registries
of IANA. Each address on which one of them and we differ must be in a row of DIFFERENCES, with the
reason. ada is the URL parser of browsers (WHATWG), `inet_aton` the one of the C library, yarl that
of aiohttp.
"""

import random
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import Struct
from yarl import URL

from luma_async.downloads.addresses import MAX_DIGITS, address_of, is_public
from luma_async.downloads.links import check_link, file_name, parse_link
from tests import optional
from tests.properties import examples

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

REGISTRIES = """
0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 168.63.129.16/32 169.254.0.0/16 172.16.0.0/12
192.0.0.0/24 192.0.0.0/29 192.0.0.8/32 192.0.0.9/32 192.0.0.10/32 192.0.0.170/31 192.0.2.0/24
192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15
198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 255.255.255.255/32
::/96 ::1/128 64:ff9b::/96 64:ff9b:1::/48 100::/64 100:0:0:1::/64 2000::/3 2001::/23 2001::/32
2001:1::1/128 2001:1::2/128 2001:1::3/128 2001:2::/48 2001:3::/32 2001:4:112::/48 2001:10::/28
2001:20::/28 2001:30::/28 2001:db8::/32 2002::/16 2620:4f:8000::/48 3fff::/20 5f00::/16 fc00::/7
fe80::/10 fec0::/10 ff00::/8
"""
UNASSIGNED = ("::/3", "4000::/2", "8000::/1")


class Difference(Struct, frozen=True):
    """Networks that an implementation refuses (`theirs` is False) and we accept, or vice versa."""

    networks: tuple[str, ...]
    theirs: bool
    reason: str


DIFFERENCES = {
    "microsoft-antissrf": (
        Difference(
            ("192.31.196.0/24", "192.175.48.0/24", "192.52.193.0/24", "2620:4f:8000::/48"),
            False,
            "AS112 and AMT: IANA has them as globally reachable, they are in no private network",
        ),
        Difference(
            ("64:ff9b::/96", "2002::/16"),
            False,
            "NAT64 and 6to4 are judged by the IPv4 address in them; NAT64 is all that some have",
        ),
        Difference(UNASSIGNED, True, "not assigned to the internet, so no video is there"),
    ),
    "ssrfguard": (
        Difference(("168.63.129.16/32",), True, "a public address, but Azure's metadata"),
        Difference(
            ("192.0.0.9/32", "192.0.0.10/32", "2001:1::1/128", "2001:1::2/128", "2001:1::3/128",
             "2001:3::/32", "2001:4:112::/48", "2001:20::/28", "2001:30::/28"),
            True,
            "protocol assignments that are reachable, but have no videos",
        ),
        Difference(("2001::/32",), True, "Teredo is switched off everywhere"),
        Difference(UNASSIGNED, True, "not assigned; IPv4-compatible addresses, which are obsolete"),
    ),
}  # fmt: skip


@cache
def addresses() -> list[Address]:
    """Return addresses at the edges of all special networks, random ones, and embedded ones."""
    dice = random.Random(25)
    plain: set[Address] = set()
    for network in map(ip_network, REGISTRIES.split()):
        first, last = int(network[0]), int(network[-1])
        near = [first - 1, first, first + 1, (first + last) // 2, last - 1, last, last + 1]
        make = type(network[0])
        plain |= {make(one) for one in near if 0 <= one < 2**network.max_prefixlen}
    for _ in range(100):
        plain.add(IPv4Address(dice.getrandbits(32)))
        for prefix, bits in ((0, 128), (0b001, 125), (0x2001_0000, 96)):  # any, global, Teredo
            plain.add(IPv6Address(prefix << bits | dice.getrandbits(bits)))
    inner = [int(one) for one in plain if isinstance(one, IPv4Address)]
    return [*plain, *(IPv6Address(outer) for one in inner for outer in embedding(one))]


def embedding(ipv4: int) -> list[int]:
    """Return IPv6 addresses with an IPv4 address in them: mapped, compatible, NAT64, 6to4."""
    return [0xFFFF << 32 | ipv4, ipv4, 0x64FF9B << 96 | ipv4, 0x2002 << 112 | ipv4 << 80 | 1]


def antissrf() -> Callable[[str], bool]:
    ranges: Any = optional.module("AntiSSRF").IPAddressRanges
    refused = [ip_network(one) for one in ranges.recommended_latest]

    def accepts(text: str) -> bool:
        address = ip_address(text)
        address = getattr(address, "ipv4_mapped", None) or address  # as its CIDRBlock does
        return not any(address in network for network in refused)

    return accepts


def ssrfguard() -> Callable[[str], bool]:
    policy: Any = optional.module("ssrfguard").Policy()
    accepts: Callable[[str], bool] = policy.permits_address
    return accepts


def is_in(address: Address, networks: tuple[str, ...]) -> bool:
    """Return whether an address, or the one in it, is in one of the networks."""
    ways: list[Address | None] = [address]
    if isinstance(address, IPv6Address):
        nat64 = address in IPv6Network("64:ff9b::/96")
        ways += [address.ipv4_mapped, address.sixtofour]
        ways += [IPv4Address(int(address) & 0xFFFF_FFFF)] if nat64 else []
    return any(one in ip_network(network) for one in ways if one for network in networks)


@pytest.mark.parametrize(
    ("name", "oracle"), [("microsoft-antissrf", antissrf), ("ssrfguard", ssrfguard)]
)
def test_each_address_is_judged_as_by_another_implementation_but_for_listed_differences(
    name: str, oracle: Callable[[], Callable[[str], bool]]
) -> None:
    accepts, used = oracle(), set[str]()
    for address in addresses():
        theirs = accepts(str(address))
        if theirs == is_public(str(address)):
            continue
        rows = [row for row in DIFFERENCES[name] if row.theirs is theirs]
        reasons = {row.reason for row in rows if is_in(address, row.networks)}
        assert reasons, f"{address}: they {'accept' if theirs else 'refuse'} it, and we do not"
        used |= reasons
    assert used == {row.reason for row in DIFFERENCES[name]}, "a difference that is gone"


# the notations of an address


@pytest.fixture(scope="module")
def ada() -> Any:
    """Return the URL parser of browsers."""
    return optional.module("ada_url")


numbers = st.integers(0, 2**33) | st.sampled_from([0, 8, 9, 127, 255, 256, 65_535, 2**24, 2**32])
parts = (
    numbers.map(str)
    | numbers.map("{:#x}".format)
    | numbers.map("0{:o}".format)
    | st.sampled_from(["", "00", "0x", "08", "0b1", "1e1", "a", "f", "0" * 30 + "1", "x7f"])
)
hosts = st.lists(parts, min_size=1, max_size=5).map(".".join)


@settings(max_examples=examples(50))
@given(hosts)
@example("127.1")
@example("0x7f.0.0.1.")
@example("1.2.3.09")
@example("0..")
def test_a_host_is_the_address_that_a_browser_reads(ada: Any, host: str) -> None:
    host = re.sub(r"\.+$", ".", host)  # to us, all dots at the end are one: more is refused
    try:
        url = ada.URL(f"http://{host}/")
    except ValueError:
        url = None
    try:
        ours = address_of(host)
    except ValueError:
        assert url is None or max(map(len, host.split("."))) > MAX_DIGITS
        return
    if url is None:
        assert ours is None, "a name that no browser accepts"
    else:
        assert (ours is not None) == (url.host_type == ada.HostType.IPV4)
        assert ours is None or str(ours) == url.hostname


@settings(max_examples=examples(50))
@given(hosts)
def test_a_host_that_the_c_library_reads_as_an_address_is_that_address_or_refused(
    host: str,
) -> None:
    try:
        packed = socket.inet_aton(host)
    except OSError:
        return
    with suppress(ValueError):
        assert address_of(host) == IPv4Address(packed)


# links

AUTHORITY = [
    "127.0.0.1",
    "localhost",
    "10.0.0.1",
    "[::1]",
    "[::ffff:7f00:1]",
    "cdn.example",
    "8.8.8.8",
    "0x7f.1",
]
odd_texts = st.text(st.sampled_from("@\\/?#:%.[]①②⑦。．１２７0x1 \t\n-aé∞"), max_size=6)
links = st.builds(
    "{}{}{}{}{}".format,
    st.sampled_from(["http://", "https://", "HTTP://", "http:\\\\", "http:/", "//"]),
    odd_texts,
    st.sampled_from(AUTHORITY),
    odd_texts,
    st.sampled_from(["", "/v.mp4", "/é?a=%2f&b=é", "\\@cdn.example/v.mp4"]),
)


@settings(max_examples=examples(50))
@given(links)
@example("http://[::1]@")
@example("http://127.0.0.1\\@cdn.example/v.mp4")
@example("http://①②⑦.0.0.1/")
@example("http://127。0。0。1/")
def test_a_browser_that_opens_an_accepted_link_connects_to_the_host_that_was_checked(
    ada: Any, link: str
) -> None:
    """The link is in the HTML report; a browser must read no other host in it."""
    if (accepted := parse_link(link)) is not None:
        host = URL(accepted, encoded=True).raw_host
        read = ada.URL(accepted).hostname.strip("[]")
        assert host is not None
        assert ip_or_name(read) == ip_or_name(host)
        address = address_of(read)
        assert address is None or is_public(str(address))


def ip_or_name(host: str) -> str:
    return str(address_of(host) or host.rstrip("."))


@settings(max_examples=examples(50))
@given(st.text(max_size=20))
def test_a_path_that_is_not_ascii_is_encoded_as_by_yarl(text: str) -> None:
    path = "".join(one for one in text if one.isalnum() or not one.isascii())
    link = f"https://cdn.example/é{path}?q=é{path}"
    if any(one.isspace() or not one.isprintable() for one in path):
        return
    assert str(check_link(link, ())) == str(URL(link))


@settings(max_examples=examples(50))
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60))
def test_yarl_reads_the_id_in_the_name_of_a_file(task_id: str) -> None:
    name = file_name(task_id, None)
    if not name.startswith("~"):
        assert URL(f"https://a/{name}", encoded=True).name == f"{task_id}.mp4"
