"""Retry-After, dates and paths, compared with the parsers of aiohttp, urllib3 and yarl."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from aiohttp.helpers import parse_http_date
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from luma_async.protocol.headers import retry_after
from luma_async.protocol.requests import single_request
from tests import optional

SENT = datetime(2026, 11, 28, 7, 27, 9, tzinfo=UTC)
FORMATS = {
    "IMF-fixdate": "%a, %d %b %Y %H:%M:%S GMT",
    "RFC 850": "%A, %d-%b-%y %H:%M:%S GMT",
    "asctime": "%a %b %d %H:%M:%S %Y",
}
"""The three formats of a date in HTTP, which a client must accept (RFC 9110, 5.6.7)."""

moments = st.datetimes(datetime(2000, 1, 1), datetime(2060, 1, 1)).map(  # noqa: DTZ001
    lambda moment: moment.replace(microsecond=0, tzinfo=UTC)
)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("sent_format", FORMATS.values())
@given(moments)
def test_a_date_in_each_format_of_http_is_read_as_by_aiohttp(
    name: str, sent_format: str, moment: datetime
) -> None:
    text, sent = moment.strftime(FORMATS[name]), SENT.strftime(sent_format)
    until = parse_http_date(text)
    assert until is not None
    assert until == moment
    expected = max(0.0, (until - SENT).total_seconds())
    assert retry_after({"retry-after": text, "date": sent}) == expected


@given(moments, st.integers(-14, 14).map(lambda hours: timedelta(hours=hours)))
def test_a_date_in_any_time_zone_is_the_same_moment(moment: datetime, offset: timedelta) -> None:
    from datetime import timezone

    text = format_datetime(moment.astimezone(timezone(offset)))
    fields = {"retry-after": text, "date": format_datetime(SENT, usegmt=True)}
    assert retry_after(fields) == max(0.0, (moment - SENT).total_seconds())


@pytest.fixture(scope="module")
def urllib3() -> Any:
    return optional.module("urllib3")


@given(st.text(st.sampled_from("0123456789 .+-eE_x٣"), max_size=8) | st.integers(0).map(str))
def test_a_number_of_seconds_that_urllib3_reads_is_read_alike(urllib3: Any, text: str) -> None:
    try:
        theirs = urllib3.Retry(retry_after_max=10**400).parse_retry_after(text)
    except urllib3.exceptions.InvalidHeader:
        return
    ours = retry_after({"retry-after": text})
    assert ours == float(theirs)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_a_server_reads_the_id_in_the_path_of_a_request(task_id: str) -> None:
    """yarl is what the servers of aiohttp use."""
    url = URL(f"https://relay.example{single_request(task_id).path}", encoded=True)
    assert url.parts == ("/", "luma", "generations", task_id)
    assert url.raw_path.isascii()
