"""Header fields are sent to the hosts that are named, and appear nowhere else."""

import asyncio
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from luma_async import Downloader, DownloadError, download
from luma_async.cli import _parser, main  # pyright: ignore[reportPrivateUsage]
from luma_async.cli.options.link_headers import in_options
from luma_async.downloads.host_errors import HostError, Meaning
from luma_async.downloads.links import LinkHeaders, private_host_error
from luma_async.testing import FakeRelay
from tests.downloads.video_store import BODY, HERE, VideoStore, answer

SECRET = "Bearer sk-s3cret"
HEADERS = {"Authorization": SECRET}
LINK_HEADERS = LinkHeaders(HEADERS, ["Relay.example.", "[::1]", "b.example:8000"])


@pytest.mark.parametrize(
    ("url", "link", "is_sent"),
    [
        ("https://relay.example/v", "https://relay.example/v", True),
        ("https://RELAY.example/other", "https://relay.example/v", True),
        ("http://[::1]:8000/v", "http://[::1]:8000/v", True),
        ("https://relay.example/v", "http://relay.example/v", True),
        ("http://relay.example/v", "https://relay.example/v", False),
        ("https://relay.example:8443/v", "https://relay.example/v", False),
        ("https://relay.example:8443/v", "http://relay.example/v", False),
        ("https://relay.example/v", "http://relay.example:8000/v", False),
        ("http://b.example:8000/v", "http://b.example:8000/v", True),
        ("http://b.example/v", "http://b.example/v", False),
        ("https://cdn.example/v", "https://relay.example/v", False),
        ("https://relay.example/v", "https://cdn.example/v", False),
        ("https://relay.example.evil.example/v", "https://relay.example.evil.example/v", False),
        ("https://a.relay.example/v", "https://a.relay.example/v", False),
    ],
)
def test_the_fields_are_sent_to_the_host_of_the_link_alone(
    url: str, link: str, is_sent: bool
) -> None:
    assert LINK_HEADERS.for_request(URL(url), URL(link)) == (HEADERS if is_sent else {})


def test_a_repr_has_the_hosts_with_their_ports() -> None:
    shown = repr(LinkHeaders({"X-Key": SECRET}, ["cdn.example", "other.example:8443"]))
    assert "cdn.example" in shown
    assert "cdn.example:" not in shown
    assert "other.example:8443" in shown


def test_neither_a_repr_nor_an_error_of_a_host_repeats_a_value() -> None:
    assert SECRET not in repr(LINK_HEADERS)
    assert "s3cret" not in repr(LINK_HEADERS)
    error = HostError(Meaning.NEEDS_KEY, 401, "bad key sk-s3cret")
    assert LINK_HEADERS.without_secrets(error) == HostError(Meaning.NEEDS_KEY, 401)
    kept = HostError(Meaning.NEEDS_KEY, 401, "bad key")
    assert LINK_HEADERS.without_secrets(kept) == kept
    scheme = LinkHeaders({"Authorization": "Token sk-s3cret"}, ["relay.example"])
    kept = HostError(Meaning.EXPIRED, 401, "Token expired")
    assert scheme.without_secrets(kept) == kept, "a short word is no secret"
    short = LinkHeaders({"X-Key": "abc123"}, ["relay.example"])
    error = HostError(Meaning.NEEDS_KEY, 401, "bad key abc123")
    assert short.without_secrets(error) == HostError(Meaning.NEEDS_KEY, 401)


async def test_a_link_that_wants_a_key_receives_it_on_each_request(
    store: VideoStore, tmp_path: Path
) -> None:
    store.cut_after = [100_000]
    path = await download(
        store.video(), tmp_path, allow_hosts=HERE, headers=HEADERS, header_hosts=HERE
    )
    assert path.read_bytes() == BODY
    assert [request.headers["Authorization"] for request in store.seen] == [SECRET, SECRET]


async def test_a_redirect_to_another_host_does_not_receive_them(
    store: VideoStore, tmp_path: Path
) -> None:
    hosts = ("127.0.0.1", "localhost")
    elsewhere = store.url.replace("127.0.0.1", "localhost")
    store.script = [answer(302, Location="/same"), answer(302, Location=f"{elsewhere}/v.mp4")]
    await download(store.video(), tmp_path, allow_hosts=hosts, headers=HEADERS, header_hosts=hosts)
    sent = [request.headers.get("Authorization") for request in store.seen]
    assert sent == [SECRET, SECRET, None]


async def test_no_log_and_no_traceback_contains_a_value(
    store: VideoStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    downloader = Downloader(
        tmp_path, allow_hosts=HERE, headers=HEADERS, header_hosts=HERE, link_grace=0
    )
    echo = b'{"error": "invalid key sk-s3cret"}'
    port = int(store.url.rpartition(":")[2])
    async with downloader:
        store.script = [answer(401, body=echo)]
        texts = [repr(downloader)]
        for url in (store.url, f"http://127.0.0.1:{port + 1 if port < 65_000 else 1}"):
            store.url = url
            with pytest.raises(DownloadError) as caught:
                await downloader.download(store.video())
            shown = traceback.TracebackException.from_exception(caught.value, capture_locals=False)
            texts += ["".join(shown.format()), repr(caught.value.__context__)]
    assert "s3cret" not in "".join([*texts, caplog.text])


@pytest.mark.parametrize(
    "wrong",
    [
        {"headers": HEADERS},
        {"header_hosts": HERE},
        {"headers": {"Host": "a"}, "header_hosts": HERE},
        {"headers": {"range": "bytes=0-"}, "header_hosts": HERE},
        {"headers": {"a b": "x"}, "header_hosts": HERE},
        {"headers": {"A": "s3cret\r\nB: x"}, "header_hosts": HERE},
        {"headers": {"A": "s3cret\u2028"}, "header_hosts": HERE},
        {"headers": HEADERS, "header_hosts": ["https://relay.example"]},
        {"headers": HEADERS, "header_hosts": [""]},
        {"headers": HEADERS, "header_hosts": "relay.example"},
        {"headers": [("A", "b")], "header_hosts": HERE},
        {"headers": {"A": 1}, "header_hosts": HERE},
    ],
    ids=str,
)
def test_invalid_fields_are_refused_without_repeating_them(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    with pytest.raises((TypeError, ValueError), match=r"give|remove it") as caught:
        Downloader(tmp_path, **wrong)
    assert "s3cret" not in str(caught.value)


async def test_the_command_sends_them(store: VideoStore, tmp_path: Path, relay: FakeRelay) -> None:
    (tmp_path / "key").write_text(f"Authorization: {SECRET}\n")
    relay.reply(store.new_link_reply(), on="get")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "luma_async", "wait", "a", "--download", str(tmp_path),
        "--allow-host", "127.0.0.1", "--link-header", f"@{tmp_path / 'key'}", "--link-header",
        "X-More: 1", "--link-header-host", "127.0.0.1",
        env=os.environ | {"LUMA_BASE_URL": relay.url, "LUMA_API_KEY": relay.api_key},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err
    assert (tmp_path / "a.mp4").read_bytes() == BODY
    (request,) = store.seen
    assert (request.headers["Authorization"], request.headers["X-More"]) == (SECRET, "1")
    assert b"s3cret" not in out + err


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--link-header", "A: s3cret"], "belong together; give both, or none"),
        (["--link-header-host", "a.example"], "belong together; give both, or none"),
        (["--link-header", "A: s3cret", "--link-header-host", "a"], "give --download DIR"),
        (["--link-header", "Host: s3cret", "--link-header-host", "a"], "give another name"),
        (["--link-header", "A: s3cret", "--link-header-host", "a/"], "names without a scheme"),
        (["--link-header", "s3cret"], "give 'NAME: VALUE'"),
        (["--link-header", "@/no/s3cret"], "give @FILE"),
    ],
)
def test_the_command_refuses_what_cannot_be_sent(
    options: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["wait", "a", "--base-url", "http://relay.example", "--api-key", "x", *options]
    with pytest.raises(SystemExit) as caught:
        sys.exit(main(arguments))
    assert caught.value.code == 2
    printed = capsys.readouterr().err
    assert error in printed
    assert "s3cret" not in printed


def test_the_command_names_its_own_options_as_the_remedy() -> None:
    assert in_options(str(private_host_error("a.example", "10.0.0.1"))) == (
        "the link leads to a private address at a.example; "
        "if its address 10.0.0.1 is intended, name the host by --allow-host"
    )
    assert in_options("the link wants a key; pass headers and header_hosts") == (
        "the link wants a key; pass --link-header and --link-header-host"
    )


def test_the_help_names_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _parser().parse_args(["wait", "--help"])
    assert "--link-header-host HOST" in capsys.readouterr().out


def test_header_fields_go_to_the_named_port_only() -> None:
    fields = LinkHeaders(HEADERS, ["127.0.0.1:81", "[::1]:82"])
    for host, port in (("127.0.0.1", 81), ("[::1]", 82)):
        named, other = URL(f"http://{host}:{port}/a"), URL(f"http://{host}:83/a")
        assert fields.for_request(named, named) == HEADERS
        assert fields.for_request(other, other) == {}
