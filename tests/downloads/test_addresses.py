"""Which addresses may be connected to: a table, the same on each version of Python."""

import json
import subprocess
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luma_async.downloads import addresses
from luma_async.downloads.addresses import (
    MAX_DIGITS,
    address_of,
    host_key,
    is_local_name,
    is_public,
    may_connect,
)
from tests.bench.pythons import find

PRIVATE_IPV4 = {
    "this host": ("0.0.0.0", "0.1.2.3"),
    "private": ("10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    "carrier-grade NAT": ("100.64.0.1", "100.127.255.255"),
    "metadata of clouds": (
        "169.254.169.254",
        "169.254.170.2",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
    ),
    "loopback": ("127.0.0.1", "127.255.255.255"),
    "link-local": ("169.254.0.1",),
    "protocol assignments": ("192.0.0.1", "192.0.0.9", "192.88.99.1"),
    "documentation": ("192.0.2.1", "198.51.100.1", "203.0.113.1"),
    "benchmarks": ("198.18.0.1", "198.19.255.255"),
    "multicast": ("224.0.0.1", "239.255.255.255"),
    "reserved and broadcast": ("240.0.0.1", "255.255.255.255"),
}
PRIVATE_IPV6 = (
    "::", "::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1",
    "2001::1", "2001:2::1", "2001:10::1", "2001:db8::1", "3fff::1", "5f00::1", "100::1",
    "64:ff9b:1::808:808", "2606:4700::1111%eth0", "::ffff:0:8.8.8.8",
)  # fmt: skip
PUBLIC = (
    "1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "192.0.1.1",
    "168.63.129.15", "198.17.255.255", "198.20.0.1", "223.255.255.255", "2606:4700::1111",
    "2a00:1450::1",
)  # fmt: skip
EMBEDDING = ("::ffff:{}", "64:ff9b::{}", "2002:{}::1")
"""How an IPv6 address contains an IPv4 address: mapped, NAT64, 6to4."""

NO_ADDRESS = ("", "no address", "1.2.3", "1.2.3.4.5", "1.2.3.04 ", "[::1]")


def literals() -> list[str]:
    return [one for group in PRIVATE_IPV4.values() for one in group]


def embedded(address: str) -> list[str]:
    number = int(IPv4Address(address))
    groups = f"{number >> 16:x}:{number & 0xFFFF:x}"
    return [form.format(groups) for form in EMBEDDING]


def spellings(address: str) -> list[str]:
    """Return an IPv4 address in the notations that browsers and resolvers accept."""
    first, second, third, last = (int(part) for part in address.split("."))
    number = int(IPv4Address(address))
    return [
        address,
        f"{address}.",
        str(number),
        f"0x{number:x}",
        f"0X{number:X}",
        f"0{number:o}",
        f"{first}.{number & 0xFFFFFF}",
        f"{first}.{second}.{third << 8 | last}",
        f"{first:#x}.{second:#x}.{third:#x}.{last:#x}",
        f"0{first:o}.0{second:o}.0{third:o}.0{last:o}",
        f"{first:05}.0x{second:04x}.{third}.{last}".replace(f"{first:05}", f"00{first:o}"),
    ]


@pytest.mark.parametrize("address", [*literals(), *PRIVATE_IPV6])
def test_a_special_address_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)
    assert may_connect("cdn.example", address)


@pytest.mark.parametrize("text", NO_ADDRESS)
def test_what_is_no_address_is_not_public(text: str) -> None:
    assert not is_public(text)
    assert not may_connect("cdn.example", text)


@pytest.mark.parametrize("address", literals())
def test_an_ipv4_address_within_an_ipv6_address_is_checked(address: str) -> None:
    assert not any(map(is_public, (*embedded(address), f"::{address}")))
    assert all(map(is_public, [*embedded("8.8.8.8"), *embedded("168.63.129.17")]))


@pytest.mark.parametrize("address", literals())
def test_each_notation_of_an_address_is_recognised(address: str) -> None:
    assert {str(address_of(one)) for one in spellings(address)} == {address}


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.08", "256.1", "1.2.3.256", "1.256.3.4", "1.2.256.4", "4294967296", "1.2.3.4.5",
        "0xg", "1..2", "[::g]", "1.+2.3.4", "1.-2.3.4", "1.2_0.3.4", "1. 2.3.4",
        f"1.{'0' * MAX_DIGITS}2.3.4",
    ],
)  # fmt: skip
def test_a_host_that_looks_like_an_address_and_is_none_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="is not a number|is not an IPv4|not appear"):
        address_of(host)


def test_a_part_of_an_address_may_have_leading_zeros_up_to_a_limit() -> None:
    assert str(address_of(f"1.{'2'.zfill(MAX_DIGITS)}.3.4")) == "1.2.3.4"


@pytest.mark.parametrize("host", ["cdn.example", "1.example", "0x.example", "a", "x1", "face.b00c"])
def test_a_name_is_no_address(host: str) -> None:
    assert address_of(host) is None


@pytest.mark.parametrize("address", ["198.18.0.1", "198.19.255.255"])
def test_an_address_of_a_fake_ip_resolver_is_accepted_for_a_name_only(address: str) -> None:
    assert may_connect("cdn.example", address)
    assert not is_public(address)
    for host in ("router", "nas.local", "localhost", "metadata.google.internal"):
        assert is_local_name(host)
        assert not may_connect(host, address)


@given(st.ip_addresses(v=4))
def test_an_embedded_address_is_public_if_the_address_itself_is(address: IPv4Address) -> None:
    expected = {is_public(str(address))}
    assert {is_public(one) for one in embedded(str(address))} == expected


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_the_table_is_the_same_on_each_python(version: str, tmp_path: Path) -> None:
    found = find(version, tmp_path)
    if found is None:
        pytest.skip(f"python{version}: put it on PATH")
    table = [*literals(), *PRIVATE_IPV6, *PUBLIC, *NO_ADDRESS, *embedded("10.0.0.1")]
    program = (
        "import json, runpy, sys; is_public = runpy.run_path(sys.argv[1])['is_public'];"
        "print(json.dumps([one for one in json.loads(sys.argv[2]) if is_public(one)]))"
    )
    ended = subprocess.run(
        [found[0], "-I", "-c", program, addresses.__file__, json.dumps(table)],
        check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert json.loads(ended.stdout) == list(PUBLIC)


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("Cdn.Example.", "cdn.example"),
        ("cdn.example:8443", "cdn.example"),
        ("[2001:DB8::1]", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("1::", "1::"),
        ("::", "::"),
    ],
)
def test_hosts_are_compared_without_case_port_brackets_and_final_dot(host: str, key: str) -> None:
    assert host_key(host) == key
