"""The two requests that ask a relay about tasks: the single GET and the batch POST."""

from collections.abc import Callable, Mapping, Sequence
from urllib.parse import quote

import msgspec
from msgspec import Struct

from luma_async.errors import NoSuchRouteError

_USUAL_PATHS = ("v1", "luma", "generations", "tasks", "dream-machine")
_CHECK_PATH = "check the path of the base URL"


class HTTPRequest(Struct, frozen=True):
    """One request to a relay; `path` follows the base URL and is percent-encoded."""

    method: str
    path: str
    body: bytes | None = None


Observer = Callable[[HTTPRequest, int, Mapping[str, str], bytes], object]
"""Receives each request with the status, the headers and the decoded body of its response."""


def single_request(task_id: str) -> HTTPRequest:
    """Return the GET of one task."""
    segment = quote(task_id, safe="")
    if not segment.strip("."):
        segment = segment.replace(".", "%2E")
    return HTTPRequest("GET", f"/luma/generations/{segment}")


def batch_request(ids: Sequence[str]) -> HTTPRequest:
    """Return the POST of many tasks."""
    return HTTPRequest("POST", "/luma/tasks", msgspec.json.encode({"ids": ids}))


def name_base_url(error: NoSuchRouteError, base_url: str) -> None:
    """Put the base URL into an error, and which part of its path to remove, if it is a usual one.

    Users of other clients are in the habit of a base URL that ends in /v1 or in /luma.
    """
    part, rest = "", base_url
    while rest.rpartition("/")[2] in _USUAL_PATHS:
        rest, _, segment = rest.rpartition("/")
        part = f"/{segment}{part}"
    remedy = f"{_CHECK_PATH} {base_url}"
    error.extra_path = part
    if part:
        remedy = f"the base URL is {base_url}; remove {part} from its end"
    error.args = (str(error).replace(_CHECK_PATH, remedy),)
