"""Header fields of a response."""

from collections.abc import Mapping
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
    try:
        until = parsedate_to_datetime(fields["retry-after"])
        seconds = (until - parsedate_to_datetime(fields["date"])).total_seconds()
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
    return max(seconds, 0.0)
