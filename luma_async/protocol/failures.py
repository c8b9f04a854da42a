"""Error responses of a relay as exceptions.

Relays say errors under any status, 200 included, and in a dozen shapes, so what an answer says
comes before its status.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, cast

from luma_async.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    DecodeError,
    LumaError,
    NoSuchRouteError,
    NotFoundError,
    PermissionDeniedError,
    QuotaError,
    RateLimitedError,
    RelayError,
)
from luma_async.text import one_line

_BY_STATUS: dict[int, type[APIError]] = {
    401: AuthenticationError,
    402: QuotaError,
    403: PermissionDeniedError,
    404: NotFoundError,
    408: RelayError,
    425: RelayError,
    429: RateLimitedError,
}
_KEY_REFUSED = (401, 402, 403)
_QUOTA = re.compile(r"额度|余额|quota|balance|insufficient (?:credit|fund)", re.IGNORECASE)
_LOGIN = re.compile(r"未登录|令牌|access token|unauthorized|invalid token|api key", re.IGNORECASE)
_REQUEST_ID = re.compile(r"\(request id: ([^()]{0,200})\)")
_MOST_TEXT = 4096


def error_from_response(status: int, fields: Mapping[str, str], body: bytes) -> LumaError:
    """Return the error that a response means: by its content first, by its status second.

    The names of the header `fields` are in lower case, the body is in UTF-8.
    """
    if 300 <= status < 400:
        target = one_line(fields.get("location", "nowhere"))
        return NoSuchRouteError(
            f"status {status}, a redirect; give the base URL that it names: {target}"
        )
    text = body.decode("utf-8", "replace").strip()
    code, message = _code_and_message(text)
    found = _REQUEST_ID.search(message[:_MOST_TEXT]) or _REQUEST_ID.search(message[-_MOST_TEXT:])
    message = message[:_MOST_TEXT]
    page = text.startswith("<")
    if status in (404, 405) and (page or message.startswith("Invalid URL")):
        return NoSuchRouteError(
            f"status {status}: {one_line(message)}; check the path of the base URL"
        )
    request_id = (
        found[1] if found else fields.get("x-request-id", fields.get("x-oneapi-request-id"))
    )
    kind = RelayError if page and status in _KEY_REFUSED else _error_class(status, code, message)
    error = kind(
        status,
        one_line(code or "") or None,
        one_line(_REQUEST_ID.sub("", message)),
        one_line(request_id or "") or None,
    )
    error.in_json = text.startswith("{")
    return error


def undecodable(status: int, body: bytes) -> DecodeError:
    """Return the error of a response that is neither a task nor an error."""
    text = one_line(body[:4096].decode("utf-8", "replace"))
    if not text:
        return DecodeError(f"status {status} with an empty body")
    if text.startswith("<"):
        return NoSuchRouteError(
            f"status {status} with a web page ({text}); check the path of the base URL"
        )
    return DecodeError(f"status {status} with a body that is no task: {text}")


def _error_class(status: int, code: str | None, message: str) -> type[APIError]:
    told = f"{code or ''} {message}"
    if code == "task_not_exist":
        return NotFoundError
    if (status in _KEY_REFUSED or status < 300) and _QUOTA.search(told):
        return QuotaError
    if status < 300 and _LOGIN.search(told) and not (code or "").startswith("5"):
        return AuthenticationError
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return BadRequestError if 400 <= status < 500 else RelayError


def _code_and_message(text: str) -> tuple[str | None, str]:
    """Return code and message of an error body: its first JSON document, or its text."""
    try:
        plain, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None, text
    if not isinstance(plain, dict):
        return None, text
    told = cast("dict[str, Any]", plain)
    nested = (told[key] for key in ("error", "detail") if isinstance(told.get(key), dict))
    inner = next(nested, told)
    code = inner.get("code") or told.get("code")
    names = ("message", "reason", "detail", "error", "title")
    words = [*map(inner.get, names), told.get("message")]
    message = next((word for word in words if isinstance(word, str) and word), "")
    return (str(code) if isinstance(code, str | int) and code else None), message
