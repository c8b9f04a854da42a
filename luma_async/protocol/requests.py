"""The two requests that ask a relay about tasks: the single GET and the batch POST."""

from collections.abc import Sequence
from urllib.parse import quote

import msgspec
from msgspec import Struct


class HTTPRequest(Struct, frozen=True):
    """One request to a relay; `path` follows the base URL and is percent-encoded."""

    method: str
    path: str
    body: bytes | None = None


def single_request(task_id: str) -> HTTPRequest:
    """Return the GET of one task."""
    segment = quote(task_id, safe="")
    if not segment.strip("."):
        segment = segment.replace(".", "%2E")
    return HTTPRequest("GET", f"/luma/generations/{segment}")


def batch_request(ids: Sequence[str]) -> HTTPRequest:
    """Return the POST of many tasks."""
    return HTTPRequest("POST", "/luma/tasks", msgspec.json.encode({"ids": ids}))
