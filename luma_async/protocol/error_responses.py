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
_TASK = r"task|generation|video|job|任务|视频|生成"
_NO_SUCH_CODE = re.compile(
    rf"(?:{_TASK}|id)s?_?(?:is_)?(?:not_?exists?|not_?found|missing)|no_such_(?:{_TASK})",
    re.IGNORECASE,
)
_NO_SUCH = (
    r"not[ _]?found|not[ _]exists?|(?:does|do|did)(?: no|n'?)t exist|doesn.t exist|no such|"
    r"no longer exists?|unknown|cannot find|can.t find|could not find|couldn.t find|"
    r"不存在|未找到|找不到|没有找到|无此"
)
_NO_SUCH_TASK = re.compile(
    rf"(?<![a-z])(?:{_TASK}|id)s?(?![a-z]).{{0,80}}?(?:{_NO_SUCH})|"
    rf"(?:{_NO_SUCH}).{{0,20}}?(?<![a-z])(?:{_TASK}|id)s?(?![a-z])",
    re.IGNORECASE | re.DOTALL,
)
_OTHER_THING = re.compile(
    r"\b(?:model|channel|route|url|path|page|endpoint|user|token|key|group|host|server|service|"
    r"upstream|account|resource server)\b|模型|渠道|令牌|用户|分组|路由|接口",
    re.IGNORECASE,
)
_RATE = re.compile(
    r"too many requests|rate[ _-]?limit|requests? too (?:frequent|fast)|slow down|"
    r"请求(?:过于|太)?频繁|频率|限流",
    re.IGNORECASE,
)
_QUOTA = re.compile(
    r"额度|余额|欠费|\bquota\b|(?<!load )(?<!load-)\bbalance\b|insufficient[ _](?:credit|fund)|"
    r"\binsufficient_(?:user_)?quota\b|\bout of credits?\b",
    re.IGNORECASE,
)
_LOGIN = re.compile(
    r"未登录|(?:无效|过期|失效|错误|不正确|缺少|未提供)的?令牌|令牌.{0,12}(?:无效|过期|失效|不正确|不可用)|"
    r"\bunauthori[sz]ed\b|\b(?:invalid|incorrect|missing|expired|no|wrong|bad)\b.{0,20}"
    r"\b(?:access |auth |bearer )?(?:token|api[ _-]?key)\b|"
    r"\b(?:token|api[ _-]?key)\b.{0,20}"
    r"\b(?:invalid|incorrect|missing|expired|required|not provided)\b",
    re.IGNORECASE,
)
_REQUEST_ID = re.compile(r"\(request id: ([^()]{0,200})\)")
_MOST_TEXT = 4096


def error_from_response(status: int, fields: Mapping[str, str], body: bytes) -> LumaError:
    """Return the error that a response means: by its content first, by its status second.

    The names of the header `fields` are in lower case, the body is in UTF-8.
    """
    if 300 <= status < 400:
        target = one_line(fields.get("location", "nowhere"))
        redirect = NoSuchRouteError(
            f"status {status}, a redirect; give the base URL that it names: {target}"
        )
        redirect.is_refusal = status != 303  # which may follow a request that was carried out
        return redirect
    text = body.decode("utf-8", "replace").strip()
    code, message = _code_and_message(text)
    found = _REQUEST_ID.search(message[:_MOST_TEXT]) or _REQUEST_ID.search(message[-_MOST_TEXT:])
    message = message[:_MOST_TEXT]
    page = text.startswith("<")
    if status in (404, 405) and (page or message.startswith("Invalid URL")):
        no_route = NoSuchRouteError(
            f"status {status}: {one_line(message)}; check the path of the base URL"
        )
        no_route.certain = not page
        no_route.is_refusal = True
        return no_route
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
    error.in_envelope = error.in_json and _is_envelope(text)
    if isinstance(error, NotFoundError):
        error.about_task = error.in_json and _is_about_task(status, code, message)
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
    """Return the class of an error: its code first, then its words, then its status.

    Words count under 200 to 299, where the status says nothing; those of an account also under
    401 to 403, those about a task under 400 to 499.
    """
    words = f"{code or ''} {message}".replace("_", " ")
    if _is_about_task(status, code, message):
        return NotFoundError
    if status < 300 and _RATE.search(words):
        return RateLimitedError
    if (status in _KEY_REFUSED or status < 300) and _QUOTA.search(words):
        return QuotaError
    if status < 300 and _LOGIN.search(words) and not (code or "").startswith("5"):
        return AuthenticationError
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return BadRequestError if 400 <= status < 500 else RelayError


def _is_about_task(status: int, code: str | None, message: str) -> bool:
    """Whether an error says that the task does not exist: by its code, or in words about a task."""
    if code and _NO_SUCH_CODE.fullmatch(code):
        return True
    if status >= 500 or status in _KEY_REFUSED or _OTHER_THING.search(message):
        return False
    return _NO_SUCH_TASK.search(message) is not None


def _is_envelope(text: str) -> bool:
    """Whether a body has the form of the relay's own errors, not of a proxy's or of upstream's."""
    level = _first_object(text) or {}
    return isinstance(level.get("error"), dict) or {"code", "message"} <= level.keys()


def _first_object(text: str) -> dict[str, Any] | None:
    """Return the first JSON document of a text; None if it is no object."""
    try:
        plain, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", plain) if isinstance(plain, dict) else None


def _code_and_message(text: str) -> tuple[str | None, str]:
    """Return code and message of an error body: its first JSON document, or its text."""
    plain_object = _first_object(text)
    if plain_object is None:
        return None, text
    nested = (
        plain_object[key] for key in ("error", "detail") if isinstance(plain_object.get(key), dict)
    )
    inner = next(nested, plain_object)
    code = inner.get("code") or plain_object.get("code")
    names = ("message", "reason", "detail", "error", "title")
    words = [*map(inner.get, names), plain_object.get("message")]
    message = next((word for word in words if isinstance(word, str) and word), "")
    return (str(code) if isinstance(code, str | int) and code else None), message
