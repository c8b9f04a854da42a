"""Retry-After."""

import pytest

from tests.protocol.response_builders import NOW, api_error


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": " 7 "}, 7.0),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After-Ms": "1500"}, 1.5),
        ({"Retry-After-Ms": "1500", "Retry-After": "2"}, 1.5),
        ({"Retry-After-Ms": "soon", "Retry-After": "2"}, 2.0),
        ({"Retry-After": "Sun, 22 Dec 2024 13:39:40 GMT", "Date": NOW}, 60.0),
        ({"Retry-After": "Sun, 22 Dec 2024 13:38:00 GMT", "Date": NOW}, 0.0),
        ({"Retry-After": "Sun, 22 Dec 2024 13:39:40 GMT"}, None),
        ({"Retry-After": "Sun, 22 Dec 2024 13:39:40 GMT", "Date": "today"}, None),
        ({"Retry-After": "Sun, 22 Dec 2024 13:39:40 -0000", "Date": NOW}, 60.0),
        ({"Retry-After": "Sun, 22 Dec 2024 21:39:40 +0800", "Date": NOW}, 60.0),
        ({"Retry-After": "Sun Dec 22 13:39:40 2024", "Date": NOW}, 60.0),
        ({}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "-5", "Date": NOW}, None),
        ({"Retry-After-Ms": "-5"}, None),
        ({"Retry-After": "soon", "Date": NOW}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "1e3"}, None),
        ({"Retry-After": "1.2.3"}, None),
        ({"Retry-After": "1_000"}, None),
        ({"Retry-After": "."}, None),
        ({"Retry-After": "٣"}, None),
        ({"Retry-After": "7, 8"}, None),
        ({"Retry-After": "9" * 400}, None),
        ({"Retry-After": f"Mon, 01 Jan 2024 00:00:00 +{'9' * 17}", "Date": NOW}, None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_parsed_in_each_form(
    status: int, headers: dict[str, str], seconds: float | None
) -> None:
    assert api_error(status, b"", headers).retry_after == seconds
