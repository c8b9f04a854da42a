"""What the error of a host means: its code before its words, its words before its status."""

import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luma_async.downloads.host_errors import (
    MAX_ERROR_BODY,
    HostError,
    Meaning,
    read_error,
    signature_expires_at,
)
from tests.downloads.host_samples import FRAME, SAMPLES, Sample

NOW = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)
SIGNED = {
    "S3": "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20261120T090000Z&X-Amz-Expires=1800",
    "S3, version 2": "AWSAccessKeyId=AK&Signature=x&Expires=1795167000",
    "GCS": "X-Goog-Date=20261120T090000Z&X-Goog-Expires=1800&X-Goog-Signature=ab",
    "Azure": "sv=2024-11-04&sp=r&st=2026-11-20T08%3A00%3A00Z&se=2026-11-20T09%3A30%3A00Z&sig=x",
    "CloudFront": "Expires=1795167000&Signature=x&Key-Pair-Id=K",
    "OSS": "OSSAccessKeyId=x&Expires=1795167000&Signature=x",
    "OSS, version 4": "x-oss-date=20261120T090000Z&x-oss-expires=1800&x-oss-signature=ab",
    "TOS": "X-Tos-Date=20261120T090000Z&X-Tos-Expires=1800",
    "COS": "q-sign-algorithm=sha1&q-sign-time=1795160000;1795167000&q-key-time=1;2",
    "Qiniu": "e=1795167000&token=ak:sign",
}
"""The queries of links that expire at half past nine."""

EXPIRES_AT = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)


def read(sample: Sample, query: str = "", now: datetime = NOW) -> HostError:
    return read_error(sample.status, sample.headers, sample.data[:MAX_ERROR_BODY], query, now)


@pytest.mark.parametrize("sample", SAMPLES, ids=[sample.name for sample in SAMPLES])
def test_an_error_means_what_its_host_documents(sample: Sample) -> None:
    assert read(sample) == HostError(sample.meaning, sample.status, sample.code)


@pytest.mark.parametrize(
    ("start", "meaning"), [("10:00:01", Meaning.NOT_YET), ("10:00:00", Meaning.EXPIRED)]
)
@pytest.mark.parametrize("text", ["<Code>AuthenticationFailed</Code> {}", "{}"])
def test_a_link_that_becomes_valid_later_has_not_expired(
    text: str, start: str, meaning: Meaning
) -> None:
    words = text.format(FRAME.format(f"Fri, 20 Nov 2026 {start} GMT"))
    assert read_error(403, {}, words.encode(), "", NOW).meaning is meaning


def test_the_code_comes_before_the_status() -> None:
    body = b"<Error><Code>ExpiredToken</Code></Error>"
    statuses = (200, 400, 401, 403, 404, 418, 429, 500, 503)
    assert {read_error(one, {}, body, "", NOW).meaning for one in statuses} == {Meaning.EXPIRED}


def test_a_status_without_words_has_these_meanings_and_every_other_one_is_final() -> None:
    statuses = {meaning: list[int]() for meaning in Meaning}
    for status in range(200, 600):
        statuses[read_error(status, {}, b"", "", NOW).meaning].append(status)
    assert statuses[Meaning.EXPIRED] == [410]
    assert statuses[Meaning.NOT_YET] == [200, 202, 206, 403, 404, 423]
    assert statuses[Meaning.NEEDS_KEY] == [401]
    assert statuses[Meaning.UNAVAILABLE] == [408, 425, 429, 499, *range(500, 600)]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_the_words_of_a_transient_error_are_not_believed(status: int) -> None:
    error = read_error(status, {}, b"the cache entry has expired", "", NOW)
    assert error.meaning is Meaning.UNAVAILABLE


@pytest.mark.parametrize("query", SIGNED.values(), ids=SIGNED)
def test_a_link_says_when_it_expires(query: str) -> None:
    assert signature_expires_at(query) == EXPIRES_AT


def test_the_time_of_a_link_may_have_another_zone() -> None:
    assert signature_expires_at("se=2026-11-20T11%3A30%2B02%3A00&sig=x") == EXPIRES_AT


def test_a_time_without_a_zone_is_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert signature_expires_at("se=2026-11-20T09:30&sig=x") == EXPIRES_AT
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "query",
    [
        "",
        "Expires=0",
        "Expires=never",
        "e=1795167000",
        "X-Amz-Date=now&X-Amz-Expires=1",
        "X-Amz-Expires=9&X-Amz-Date=20261120T090000",
        "X-Amz-Date=20261120T090000Z&X-Amz-Expires=99999999999999",
        "se=soon&sig=x",
        "q-sign-time=1;99999999999999999999",
        "q-sign-time=1;288230376151711744",
        "q-sign-time=x",
    ],
)
def test_a_link_without_a_valid_time_does_not_say_when_it_expires(query: str) -> None:
    assert signature_expires_at(query) is None


def test_a_refused_link_whose_time_is_over_has_expired() -> None:
    """CloudFront says no more than AccessDenied of an expired link."""
    for status in (400, 401, 403, 404):
        assert _meaning(status, EXPIRES_AT) is Meaning.EXPIRED
        assert _meaning(status, EXPIRES_AT - timedelta(seconds=1)) is not Meaning.EXPIRED
    assert _meaning(503, EXPIRES_AT) is Meaning.UNAVAILABLE


def _meaning(status: int, now: datetime) -> Meaning:
    return read_error(status, {}, b"", SIGNED["CloudFront"], now).meaning


def test_the_clock_of_the_host_counts_if_it_sends_its_time() -> None:
    def meaning(date: datetime) -> Meaning:
        headers = {"date": format_datetime(date, usegmt=True)}
        return read_error(403, headers, b"", SIGNED["S3"], NOW).meaning

    assert meaning(EXPIRES_AT) is Meaning.EXPIRED
    assert meaning(EXPIRES_AT - timedelta(minutes=1)) is Meaning.NOT_YET


@pytest.mark.parametrize("zone", ["GMT", "+0000", "-0000"])
def test_the_time_of_a_host_is_in_utc_however_it_is_written(zone: str) -> None:
    headers = {"date": f"Fri, 20 Nov 2026 09:30:00 {zone}"}
    before = NOW - timedelta(days=1)
    assert read_error(403, headers, b"", SIGNED["S3"], before).meaning is Meaning.EXPIRED


def test_an_error_is_shown_by_its_status_and_its_code() -> None:
    assert str(HostError(Meaning.FINAL, 404)) == "status 404"
    assert str(HostError(Meaning.FINAL, 404, "NoSuchKey")) == "status 404 NoSuchKey"


@pytest.mark.parametrize("code", ["a\x1b[31mb", "x" * 61, "https://a.example/?sig=s3cret", "a=b"])
def test_a_code_that_is_unsafe_to_show_is_none(code: str) -> None:
    for body in (f"<Code>{code}</Code>", json.dumps({"code": code})):
        assert read_error(403, {"x-ms-error-code": code}, body.encode(), "", NOW).code is None


JSONS: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["error", "errors", "code", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.integers(100, 599), st.binary(max_size=60), st.text(max_size=60))
def test_any_bytes_have_a_meaning(status: int, body: bytes, query: str) -> None:
    assert read_error(status, {}, body, query, NOW).status == status


@given(JSONS)
def test_any_json_has_a_meaning(value: Any) -> None:
    assert read_error(403, {}, json.dumps(value).encode(), "", NOW).status == 403
