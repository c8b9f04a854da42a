"""Ids and links are untrusted: no link leads to a private address, no id to another directory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luma_async import DownloadError
from luma_async.downloads.links import (
    MAX_NAME_LENGTH,
    check_link,
    file_name,
    is_public,
    parse_link,
    without_query,
)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "240.0.0.1",
        "192.0.2.1",
        "::",
        "::1",
        "::7f00:1",
        "fe80::1%eth0",
        "fec0::1",
        "fd00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "2002:7f00:1::",
        "64:ff9b::a00:1",
        "2001:0:53aa:64c:0:ffff:80ff:fffe",
        "no address",
        "",
    ],
)
def test_private_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"],
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "link",
    [
        "ftp://a.example/v.mp4",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "data:text/html,x",
        "//a.example/v.mp4",
        "/v.mp4",
        "http:///v.mp4",
        "http://a.example:0/",
        "",
    ],
)
def test_a_link_that_is_not_http_is_refused(link: str) -> None:
    with pytest.raises(DownloadError, match="is not http or https; ask"):
        check_link(link, ())
    assert parse_link(link) is None


@pytest.mark.parametrize(
    "link",
    ["http://[::1", "http://a.example:99999/", "http://a.example:x/", "http://\ud800.example/"],
)
def test_an_invalid_url_is_refused(link: str) -> None:
    with pytest.raises(DownloadError, match="not a valid URL"):
        check_link(link, ())


@pytest.mark.parametrize(
    "link",
    [
        "http://127.0.0.1/v.mp4",
        "http://user:pw@127.0.0.1:8000/",
        "http://a.example@169.254.169.254/latest",
        "http://[::ffff:10.0.0.1]/",
        "http://[fe80::1%25eth0]/",
        "http://LOCALHOST./",
        "http://2130706433/",
        "http://127.1/",
        "http://0x7f000001/",
        "http://0x7f.0.0.1/",
        "http://0177.0.0.1/",
        "http://127.0.0.1./",
        "http://x.localhost/",
    ],
)
def test_a_private_host_is_refused_with_the_remedy(link: str) -> None:
    with pytest.raises(DownloadError, match="name the host in allow_hosts"):
        check_link(link, ())
    assert parse_link(link) is None


@pytest.mark.parametrize(
    "host",
    [
        "router",
        "nas.local",
        "metadata.google.internal",
        "x.lan",
        "1.168.192.in-addr.arpa",
        "a.corp.",
    ],
)
def test_a_page_shows_no_link_to_a_name_of_a_local_network(host: str) -> None:
    """A browser resolves it by itself; a download checks the resolved addresses."""
    assert parse_link(f"http://{host}/t.jpg") is None
    assert parse_link(f"http://{host}/t.jpg", {host.rstrip(".")}) == f"http://{host}/t.jpg"


def test_an_allowed_host_may_be_private() -> None:
    assert check_link("http://127.0.0.1:8000/v.mp4", {"127.0.0.1"}).port == 8000
    assert check_link("http://LocalHost/v.mp4", {"localhost"}).path == "/v.mp4"


def test_a_signed_link_is_not_changed() -> None:
    link = "https://cdn.example/a%2fb%7E.mp4?sig=%2B%2f+a=&x=%41"
    assert str(check_link(link, ())) == parse_link(link) == link


def test_a_link_is_shown_without_its_secret_parts() -> None:
    url = check_link("https://user:pw@cdn.example:8443/v.mp4?sig=s3cret#s3cret", ())
    assert without_query(url) == "https://cdn.example/v.mp4"


@pytest.mark.parametrize(
    ("task_id", "name"),
    [
        ("4665a07c-7641", "4665a07c-7641.mp4"),
        ("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd.mp4"),
        ("..", "%2E..mp4"),
        (".hidden", "%2Ehidden.mp4"),
        ("a\0b\nc", "a%00b%0Ac.mp4"),
        ("视频", "%E8%A7%86%E9%A2%91.mp4"),
        ("\ud800", "%3F.mp4"),
    ],
)
def test_no_id_is_a_path_outside_of_the_directory(task_id: str, name: str) -> None:
    assert file_name(task_id, None) == name


@given(st.text(min_size=1))
def test_every_id_gives_a_valid_file_name(task_id: str) -> None:
    name = file_name(task_id, "https://a.example/v.mov?x")
    assert "/" not in name
    assert "\0" not in name
    assert not name.startswith(".")
    assert len(name.encode()) <= MAX_NAME_LENGTH + 4
    assert name.endswith(".mov")
    assert name.isprintable()


def test_long_ids_have_different_digests() -> None:
    assert file_name("x" * 500, None) != file_name("x" * 501, None)


@pytest.mark.parametrize("link", ["https://a.example/v.exe", "https://a.example/", None])
def test_a_suffix_that_is_not_a_video_becomes_mp4(link: str | None) -> None:
    assert file_name("a", link) == "a.mp4"
