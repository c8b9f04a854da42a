"""Bodies in unusual encodings."""

import json

import pytest

from luma_async import NoSuchRouteError, State
from luma_async.protocol.decoding import decode_response
from tests.protocol.response_builders import SAMPLES, api_error, error_of


def test_a_byte_order_mark_is_ignored() -> None:
    assert decode_response(200, {}, b"\xef\xbb\xbf" + SAMPLES[0]).states
    assert isinstance(error_of(200, b"\xef\xbb\xbf<html>"), NoSuchRouteError)


@pytest.mark.parametrize(
    ("charset", "named"),
    [
        ("gbk", "gbk"),
        ("gb18030", '"GB18030"'),
        ("big5", "Big5"),
        ("utf-16", "utf-16"),
        ("utf-16-le", None),
        ("utf-32-be", None),
        ("utf-8", "gbk"),
        ("utf-8", "no-such-charset"),
        ("utf-8-sig", "latin-1"),
    ],
)
def test_a_body_in_any_charset_is_decoded_even_if_the_header_is_wrong(
    charset: str, named: str | None
) -> None:
    headers = {"content-TYPE": f"application/json; charset={named}"} if named else {}
    plain = {"id": "a", "state": "failed", "failure_reason": "任務失敗"}
    text = json.dumps(plain, ensure_ascii=False).encode(charset)
    one = decode_response(200, headers, text).generation("a")
    assert (one.failure_reason, one.raw) == ("任務失敗", plain)
    error = json.dumps({"error": {"message": "額度"}}, ensure_ascii=False).encode(charset)
    assert api_error(403, error, headers).message == "額度"


@pytest.mark.parametrize("charset", ["zlib", "hex", "undefined", "idna", "punycode", "none"])
def test_an_invalid_charset_replaces_only_the_undecodable_characters(charset: str) -> None:
    headers = {"Content-Type": f"application/json; charset={charset}"}
    text = '{"id": "a", "state": "failed", "failure_reason": "è - a"}'.encode("latin-1")
    one = decode_response(200, headers, text).generation("a")
    assert (one.id, one.state, one.failure_reason) == ("a", State.FAILED, "\ufffd - a")


@pytest.mark.parametrize("number", [b"1e999", b"9" * 5000, b"-" + b"9" * 5000])
def test_a_number_that_is_too_large_loses_only_itself(number: bytes) -> None:
    video = b'"video": {"url": "link", "width": ' + number + b'}, "odd": ' + number
    for row in (b'{"id": "a", "state": "completed"', b'{"id": "a", "state": "Completed"'):
        one = decode_response(200, {}, row + b", " + video + b"}").generation("a")
        assert (one.state, one.url) == (State.COMPLETED, "link")
        assert one.video
        assert one.video.width is None
