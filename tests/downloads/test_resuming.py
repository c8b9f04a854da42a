"""Bytes of two responses are joined only if a strong validator proves that they belong together."""

from typing import Any

import pytest
from yarl import URL

from luma_async.downloads.resuming import (
    PartRecord,
    Received,
    confirms_size,
    encoding_of,
    partial_response,
    range_headers,
    source_of,
    validator_of,
    whole_response,
)

DATE = "Fri, 20 Nov 2026 10:00:00 GMT"
MINUTE_BEFORE = "Fri, 20 Nov 2026 09:59:00 GMT"
LESS_THAN_A_MINUTE_BEFORE = "Fri, 20 Nov 2026 09:59:01 GMT"
RECORD = PartRecord("link", '"one"', 1000)
REST = {"content-range": "bytes 600-999/1000", "etag": '"one"'}


@pytest.mark.parametrize(
    ("headers", "validator"),
    [
        ({"etag": '"one"'}, '"one"'),
        ({"etag": '"one"', "last-modified": MINUTE_BEFORE, "date": DATE}, '"one"'),
        ({"last-modified": MINUTE_BEFORE, "date": DATE}, MINUTE_BEFORE),
        ({"last-modified": LESS_THAN_A_MINUTE_BEFORE, "date": DATE}, None),
        ({"last-modified": DATE, "date": MINUTE_BEFORE}, None),
        ({"last-modified": MINUTE_BEFORE}, None),
        ({"last-modified": "yesterday", "date": DATE}, None),
        ({"last-modified": MINUTE_BEFORE, "date": "now"}, None),
        ({"etag": 'W/"one"', "last-modified": MINUTE_BEFORE, "date": DATE}, None),
        ({"etag": "one"}, None),
        ({"etag": '""'}, None),
        ({"etag": '"é"'}, None),
        ({"etag": '"a" "b"'}, None),
        ({}, None),
    ],
)
def test_a_validator_is_strong_or_none(headers: dict[str, str], validator: str | None) -> None:
    assert validator_of(headers) == validator


def test_a_partial_file_is_continued_by_its_validator_alone() -> None:
    expected = {"Range": "bytes=600-", "If-Range": '"one"'}
    assert range_headers(RECORD, 600, "link") == expected
    assert not range_headers(RECORD, 0, "link")
    assert not range_headers(RECORD, 600, "another link")
    assert not range_headers(PartRecord("link", None, 1000), 600, "link")
    assert not range_headers(None, 600, "link")


def test_the_rest_of_the_same_version_continues_the_file() -> None:
    assert partial_response(REST, 600, RECORD, "link") == Received(600, 1000, RECORD)
    some = REST | {"content-range": "bytes 600-699/1000"}
    assert partial_response(some, 600, RECORD, "link") == Received(600, 700, RECORD)
    unknown = REST | {"content-range": "bytes 600-999/*"}
    assert partial_response(unknown, 600, RECORD, "link") == Received(600, 1000, RECORD)
    without_total = PartRecord("link", '"one"', None)
    assert partial_response(REST, 600, without_total, "link") == Received(600, 1000, RECORD)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-range": ""},
        {"content-range": "bytes"},
        {"content-range": "bytes 600-999"},
        {"content-range": "bytes 599-999/1000"},
        {"content-range": "bytes 601-999/1000"},
        {"content-range": "bytes 600-1000/1000"},
        {"content-range": "bytes 600-599/1000"},
        {"content-range": "bytes 600-999/1001"},
        {"content-range": "bytes 0-999/1000"},
        {"content-range": "items 600-999/1000"},
        {"content-range": "bytes */1000"},
        {"content-range": "bytes=600-999/1000"},
        {"content-range": f"bytes 600-999/{'9' * 30}"},
        REST | {"content-type": "multipart/byteranges; boundary=x"},
        REST | {"content-type": "Multipart/Byteranges"},
        REST | {"etag": '"two"'},
        REST | {"etag": 'W/"one"'},
    ],
)
def test_a_response_that_is_not_what_was_requested_is_set_aside(headers: dict[str, str]) -> None:
    assert partial_response({"etag": '"one"'} | headers, 600, RECORD, "link") is None


def test_a_date_is_compared_with_the_date() -> None:
    record = PartRecord("link", MINUTE_BEFORE, 1000)
    later = REST | {"last-modified": DATE}
    same = REST | {"last-modified": MINUTE_BEFORE}
    assert partial_response(same, 600, record, "link") is not None
    assert partial_response(later, 600, record, "link") is None
    assert partial_response(later, 600, RECORD, "link") is not None


@pytest.mark.parametrize("validator", ['"one"', MINUTE_BEFORE])
def test_a_response_without_the_validator_is_set_aside(validator: str) -> None:
    """Its host may have ignored If-Range, and sends the rest of another version."""
    headers = {"content-range": "bytes 600-999/1000"}
    assert partial_response(headers, 600, PartRecord("link", validator, 1000), "link") is None


def test_a_partial_response_without_a_total_is_set_aside() -> None:
    headers = {"content-range": "bytes 600-999/*"}
    assert partial_response(headers, 600, PartRecord("link", '"one"', None), "link") is None


def test_a_partial_response_to_a_request_without_a_range_is_the_start_of_a_file() -> None:
    headers = {"content-range": "bytes 0-9/1000", "etag": '"one"'}
    assert partial_response(headers, 0, None, "link") == Received(0, 10, RECORD)
    other = PartRecord("another link", '"zero"', 999)
    assert partial_response(headers, 0, other, "link") == Received(0, 10, RECORD)
    assert partial_response(REST, 0, None, "link") is None


def test_a_whole_response_is_a_file_from_its_start() -> None:
    assert whole_response({"etag": '"one"'}, 1000, "link") == Received(0, 1000, RECORD)
    unknown = PartRecord("link", None, None)
    assert whole_response({}, None, "link") == Received(0, None, unknown)


@pytest.mark.parametrize(
    ("record", "size", "is_whole"),
    [
        (RECORD, 1000, True),
        (RECORD, 999, False),
        (RECORD, 1001, False),
        (PartRecord("link", None, 1000), 1000, True),
        (PartRecord("link", '"one"', None), 1000, False),
        (PartRecord("link", None, None, is_complete=True), 1000, True),
        (PartRecord("link", None, 1), 1, True),
        (PartRecord("link", None, 0), 0, False),
    ],
)
def test_a_file_is_whole_if_it_has_its_size_or_was_marked(
    record: PartRecord, size: int, is_whole: bool
) -> None:
    assert record.is_whole(size) is is_whole


@pytest.mark.parametrize(
    ("headers", "changed", "confirms"),
    [
        ({"content-range": "bytes */1000", "etag": '"one"'}, {}, True),
        ({"content-range": "bytes */1000", "etag": '"one"'}, {"total": None}, True),
        ({"content-range": "bytes */1000"}, {}, False),
        ({"content-range": "bytes */1000", "etag": '"two"'}, {}, False),
        ({"content-range": "bytes */1001", "etag": '"one"'}, {}, False),
        ({"content-range": "bytes */1000", "etag": '"one"'}, {"validator": None}, False),
        ({"content-range": "bytes */1000", "etag": '"one"'}, {"total": 999}, False),
        ({"etag": '"one"'}, {}, False),
    ],
)
def test_status_416_confirms_a_complete_file_of_the_same_version_only(
    headers: dict[str, str], changed: dict[str, Any], confirms: bool
) -> None:
    fields: dict[str, Any] = {"source": "link", "validator": '"one"', "total": 1000} | changed
    assert confirms_size(headers, 1000, PartRecord(**fields)) is confirms
    assert not confirms_size(headers, 1000, None)


@pytest.mark.parametrize(
    ("value", "encoding"),
    [
        ("gzip", "gzip"),
        ("x-gzip", "x-gzip"),
        (" GZip ", "gzip"),
        ("deflate", "deflate"),
        ("br", "br"),
        ("zstd", "zstd"),
        ("aws-chunked,gzip", "gzip"),
        ("aws-chunked", None),
        ("identity", None),
        ("Identity", None),
        ("UTF-8", None),
        ("binary", None),
        ("none", None),
        ("", None),
        (" ", None),
        (",", None),
    ],
)
def test_four_encodings_are_encodings(value: str, encoding: str | None) -> None:
    assert encoding_of(value) == encoding


def test_links_that_differ_in_their_signature_have_the_same_source() -> None:
    link = URL("https://cdn.example/v.mp4?sig=1")
    assert source_of(link) == source_of(link.with_query("sig=2"))
    others = ("https://b.example/v.mp4", "http://cdn.example/v.mp4", "https://cdn.example/w.mp4")
    assert source_of(link) not in map(source_of, map(URL, others))
