"""Responses for the tests of this folder: from plain values, in an envelope, and as errors."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from luma_async import APIError, Generation, LumaError
from luma_async.protocol.decoding import decode_response
from luma_async.protocol.responses import Response

DATA = Path(__file__).parents[1] / "data"
SAMPLES = [(DATA / name).read_bytes() for name in ("get-completed.json", "tasks-completed.json")]
SAMPLE_ID = "4665a07c-7641-4809-a133-10786201bb56"
PAGE = b'<!doctype html><html lang="zh"><head><title>New API</title></head></html>'
NOW = "Sun, 22 Dec 2024 13:38:40 GMT"


def response_of(plain: object) -> Response:
    return decode_response(200, {}, json.dumps(plain).encode())


def task(**fields: object) -> Generation:
    """Return a completed task, bare, with these fields."""
    return response_of({"id": "a", "state": "completed", **fields}).generation("a")


def table_row(status: str = "SUCCESS", **fields: object) -> dict[str, Any]:
    """Return a row of the relay's own table, whose `id` is a number in its database."""
    return {"id": 13917, "task_id": "a", "status": status, "fail_reason": "", **fields}


def wrapped(data: object) -> Response:
    return response_of({"code": "success", "message": "", "data": data})


def error_of(
    status: int, body: object = b"", headers: Mapping[str, str] | None = None
) -> LumaError:
    """Return the error that a response is decoded to."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(LumaError) as caught:
        decode_response(status, headers or {}, raw)
    return caught.value


def api_error(
    status: int, body: object = b"", headers: Mapping[str, str] | None = None
) -> APIError:
    error = error_of(status, body, headers)
    assert isinstance(error, APIError)
    return error
