"""Header fields of a response."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite


def lower_case(headers: Mapping[str, str]) -> dict[str, str]:
    """Return header fields with names in lower case."""
    return {name.lower(): value for name, value in headers.items()}


def retry_after(fields: Mapping[str, str]) -> float | None:
    """Return Retry-After in seconds; None if there is none or it makes no sense.

    A date is read against the answer's own Date header, not against our clock. The names of the
    header `fields` are in lower case.
    """
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = fields.get(name, "").strip()
        if value.isascii() and value.replace(".", "", 1).isdigit():
            return float(value) * scale if isfinite(float(value)) else None
    if "retry-after" not in fields:
        return None
    until, sent = http_date(fields.get("retry-after")), http_date(fields.get("date"))
    if until is None or sent is None:
        return None
    return max((until - sent).total_seconds(), 0.0)


def http_date(text: str | None) -> datetime | None:
    """Read a date of a header field, in any format of HTTP; None if it is none.

    A date without a time zone is in UTC (RFC 9110, 5.6.7).
    """
    try:
        date = parsedate_to_datetime(text or "")
    except (ValueError, TypeError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
