"""Ids and links are untrusted: no link leads to a private address, no id to another directory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luma_async import DownloadError
from luma_async.downloads.links import (
    MAX_NAME_LENGTH,
    check_link,
    file_name,
    parse_link,
    without_query,
)
from luma_async.text import hashed_name

LONG_ID = "x" * 500
LOOKALIKES = st.sampled_from(
    ["?", "\ud800", "\ud801", "%3F", "~", "%7E", ".", "%2E", "..", hashed_name(LONG_ID), LONG_ID]
)
"""Ids whose names could be confused."""


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
    [
        "http://[::1",
        "http://[::1]@",
        "http://a.example:99999/",
        "http://a.example:x/",
        "http://\ud800.example/",
        "http://%65xample.com/",
        "http://cdn.example%00.a/",
        "http://a b.example/",
        "http://1.2.3.4.5/",
        "http://4294967296/",
    ],
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
        "http://168.63.129.16/",
        "http://192.0.0.192/",
        "http://198.18.0.1/",
        "http://[64:ff9b::a00:1]/",
        "http://１２７.0.0.1/",
        "http://127。0。0。1/",
        "http://①②⑦.0.0.1/",
        "http://ⓛocalhost/",
        "http://%31%32%37.0.0.1/",
        "http://127.0.0.%31/",
        "http://127%2e0.0.1/",
        "http://a.loca%6chost/",
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


@pytest.mark.parametrize("host", ["93.184.215.14", "[2606:4700::1111]"])
def test_a_page_shows_a_link_to_a_public_address(host: str) -> None:
    assert parse_link(f"https://{host}/t.jpg") == f"https://{host}/t.jpg"


@pytest.mark.parametrize("link", ["http://%31%32%37.0.0.1/a.jpg", "https://cdn%2eexample/a.jpg"])
def test_a_page_shows_no_link_with_a_percent_sign_in_its_host(link: str) -> None:
    assert parse_link(link) is None
    assert parse_link(link, {"127.0.0.1", "cdn.example"}) is None


def test_an_allowed_host_may_be_private() -> None:
    assert check_link("http://127.0.0.1:8000/v.mp4", {"127.0.0.1"}).port == 8000
    assert check_link("http://LocalHost/v.mp4", {"localhost"}).path == "/v.mp4"


@pytest.mark.parametrize(
    "link",
    [
        "https://cdn.example/a%2fb%7E.mp4?sig=%2B%2f+a=&x=%41",
        "http://us%2fer@CDN.example/v.mp4",
    ],
)
def test_a_signed_link_is_not_changed(link: str) -> None:
    assert str(check_link(link, ())) == parse_link(link) == link


def test_a_link_is_shown_without_its_secret_parts() -> None:
    url = check_link("https://user:pw@cdn.example:8443/v.mp4?sig=s3cret#s3cret", ())
    assert without_query(url) == "https://cdn.example/v.mp4"
    url = check_link("https://[2606:4700::1111]/v.mp4?sig=s3cret", ())
    assert without_query(url) == "https://[2606:4700::1111]/v.mp4"


@pytest.mark.parametrize(
    ("task_id", "name"),
    [
        ("4665a07c-7641", "4665a07c-7641.mp4"),
        ("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd.mp4"),
        ("..", "%2E..mp4"),
        (".hidden", "%2Ehidden.mp4"),
        ("a\0b\nc", "a%00b%0Ac.mp4"),
        ("视频", "%E8%A7%86%E9%A2%91.mp4"),
        ("\ud800", "%ED%A0%80.mp4"),
        ("~x", "%7Ex.mp4"),
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


@given(st.lists(st.text(st.characters(), min_size=1) | LOOKALIKES, min_size=2, unique=True))
def test_two_ids_never_have_the_same_name(ids: list[str]) -> None:
    assert len({file_name(task_id, None) for task_id in ids}) == len(ids)


def test_an_id_of_180_characters_is_its_own_name_and_a_longer_one_is_hashed() -> None:
    assert file_name("x" * 180, None) == "x" * 180 + ".mp4"
    assert file_name("x" * 181, None).startswith("~")


def test_long_ids_have_different_digests() -> None:
    assert file_name("x" * 500, None) != file_name("x" * 501, None)


@pytest.mark.parametrize("link", ["https://a.example/v.exe", "https://a.example/", None])
def test_a_suffix_that_is_not_a_video_becomes_mp4(link: str | None) -> None:
    assert file_name("a", link) == "a.mp4"


@pytest.mark.parametrize(
    ("link", "requested"),
    [
        (
            "https://cdn.example/视频.mp4?sig=a%2Fb&x=%7E",
            "https://cdn.example/%E8%A7%86%E9%A2%91.mp4?sig=a%2Fb&x=%7E",
        ),
        ("https://cdn.example/ä!~?x=!~\x7f", "https://cdn.example/%C3%A4!~?x=!~%7F"),
        ("https://cdn.example/a b.mp4?t=1+2", "https://cdn.example/a%20b.mp4?t=1+2"),
        ("https://cdn.example?sig=ä", "https://cdn.example/?sig=%C3%A4"),
        ("https://bücher.example/ä?x=%2f", "https://xn--bcher-kva.example/%C3%A4?x=%2f"),
    ],
)
def test_of_a_link_only_what_is_not_ascii_is_encoded(link: str, requested: str) -> None:
    assert str(check_link(link, ())) == requested
