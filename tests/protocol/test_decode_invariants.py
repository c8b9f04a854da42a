"""Any body is decoded to a response or to an exception of this package, in linear time."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from luma_async import LumaError
from tests.decode_invariants import check
from tests.properties import examples
from tests.protocol.response_builders import NOW, SAMPLES, error_of

KEYS = ["id", "task_id", "state", "status", "data", "code", "success", "error", "message"]
FIELDS = ["video", "video_raw", "artifact", "created_at", "url", "width", "palette", "result_url"]
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["a", "completed", "SUCCESS", "Queued", "0001-01-01T00:00:00Z"])
)
plains = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(KEYS + FIELDS), inner, max_size=6)
    ),
    max_leaves=20,
)
texts = st.text(max_size=40)
header_names = (
    st.sampled_from(["Retry-After", "retry-after-ms", "Date", "Location", "Content-Type"]) | texts
)
charsets = ["gbk", "utf-16", "utf-7", "latin-1", "zlib", "undefined", "nonsense", "unicode_escape"]
header_values = (
    texts
    | st.integers(-9, 99).map(str)
    | st.sampled_from([NOW, *(f"application/json; charset={charset}" for charset in charsets)])
)
small_headers = st.dictionaries(header_names, header_values, max_size=4)
statuses = st.just(200) | st.integers(100, 599)
cuts = st.tuples(
    st.integers(0, 3000),
    st.integers(0, 20),
    st.binary(max_size=4) | st.sampled_from([b"null", b'""', b"[", b"}", b",", b"-1e999"]),
)


@st.composite
def damaged_samples(draw: st.DrawFn) -> bytes:
    """Draw a published sample with some bytes removed and others inserted."""
    body = draw(st.sampled_from(SAMPLES))
    for start, length, put in draw(st.lists(cuts, min_size=1, max_size=3)):
        body = body[:start] + put + body[start + length :]
    return body


@st.composite
def varied_samples(draw: st.DrawFn) -> bytes:
    """Draw the published task with random values in some of its fields, in any envelope."""
    fields = draw(st.dictionaries(st.sampled_from(KEYS + FIELDS), plains, max_size=4))
    sample: object = json.loads(SAMPLES[0]) | fields
    rows = draw(
        st.sampled_from([sample, [sample], {"task_id": "a", "status": "SUCCESS", "data": sample}])
    )
    wrap = draw(st.booleans())
    return json.dumps({"code": "success", "data": rows} if wrap else rows).encode()


bodies = st.binary(max_size=60) | plains.map(lambda plain: json.dumps(plain).encode())


@settings(max_examples=examples(50))
@given(statuses, small_headers, bodies)
@example(200, {}, b'{"id": "a", "state": "completed", "video": {"url": "\xff"}}')
@example(200, {}, b'[{"id": "a", "state": "completed", "created_at": 1e308}]')
@example(200, {}, b'{"id": "a", "state": "completed", "video": ' + b"[" * 900 + b"]" * 900 + b"}")
@example(200, {}, b'{"id": "a", "state": "failed", "reason": "\\ud83d"} and more')
@example(200, {}, b'{"id": "a", "state": "failed", "reason": NaN} and more')
@example(500, {}, b'{"code": ' + b"[" * 900 + b"]" * 900 + b"}")
@example(500, {}, b'{"code": ' + b"9" * 5000 + b"}")
def test_any_body_is_a_response_or_a_luma_error(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    check(status, headers, body)


@settings(max_examples=examples(35))
@given(statuses, small_headers, damaged_samples())
def test_a_damaged_sample_is_a_response_or_a_luma_error(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    check(status, headers, body)


@settings(max_examples=examples(35))
@given(varied_samples())
def test_a_sample_with_random_values_is_a_response_or_a_luma_error(body: bytes) -> None:
    check(200, {}, body)


@pytest.mark.parametrize(
    "body",
    [
        b"error" + b" " * 2_000_000 + b"x",
        b'{"message":"x' + b" " * 2_000_000 + b'x"}',
        b'{"message":"' + b"(request id: " * 150_000 + b'"}',
        b"[" + b",".join([b"5"] * 1_000_000) + b"]",
        b'{"data":[' + b",".join([b'{"id":5.5}'] * 200_000) + b"]}",
    ],
    ids=["spaces", "spaces in JSON", "request ids", "numbers", "odd rows"],
)
@pytest.mark.parametrize("status", [200, 500])
def test_the_time_to_decode_grows_linearly_with_the_length(status: int, body: bytes) -> None:
    """With quadratic time, these bodies would take hours and block the event loop of a service."""
    assert isinstance(error_of(status, body), LumaError)
