"""What callers may give: every error here ends with what to do instead."""

import inspect
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from math import inf, isnan
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


MAX_ID_BYTES = 4096

_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def positive(name: str, value: object) -> float:
    """Return a number above zero; infinity is one."""
    number = _number(name, value)
    if not number > 0:
        raise ValueError(f"{name}={value!r}; give a number above zero")
    return number


def not_negative(name: str, value: object) -> float:
    """Return a number of at least zero; infinity is one."""
    number = _number(name, value)
    if not number >= 0:
        raise ValueError(f"{name}={value!r}; give a number of at least zero")
    return number


def whole(name: str, value: object) -> int:
    """Return a whole number of at least one."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {_a(value)}; give a whole number")
    if value < 1:
        raise ValueError(f"{name}={value}; give a whole number of at least 1")
    return value


def instance(name: str, value: T, kind: type | tuple[type, ...], remedy: str) -> T:
    """Return a value of the kind that is wanted."""
    if not isinstance(value, kind) or isinstance(value, type):
        raise TypeError(f"{name} is {_a(value)}; give {remedy}")
    return value


def text(name: str, value: object) -> str:
    """Return text; it is not repeated in the error."""
    if not isinstance(value, str):
        raise TypeError(f"{name} is {_a(value)}; give it as text")
    return value


def unicode_text(name: str, value: object) -> str:
    """Return text that can be sent as UTF-8; it is not repeated in the error."""
    given = text(name, value)
    try:
        given.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} is not valid text; give it as UTF-8") from None
    return str.__str__(given)


def hook(name: str, value: F | None) -> F | None:
    """Return a plain function, or None."""
    remedy = "give a plain function; what it has to await, start as a task"
    if value is None:
        return None
    if not callable(value):
        raise TypeError(f"{name} is {_a(value)}; {remedy}")
    if any(map(inspect.iscoroutinefunction, (value, getattr(value, "__call__", None)))):  # noqa: B004
        raise TypeError(f"{name} is a coroutine function, which is never awaited; {remedy}")
    return value


def timeout(value: object) -> float | None:
    """Return the seconds of a wait; None means without end."""
    return None if value is None or value == inf else not_negative("timeout", value)


def task_id(value: object) -> str:
    """Return one task id as a plain str: text of 1 to 4,096 bytes in UTF-8."""
    if not isinstance(value, str):
        raise TypeError(f"a task id is text, not {_a(value)}; give the id as str")
    if not value:
        raise ValueError("a task id is empty; give the id that the relay returned at submission")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise ValueError(f"task id {value!r} is not valid text; give the id as UTF-8") from None
    if size > MAX_ID_BYTES:
        raise ValueError(
            f"a task id has {size} bytes ({value[:32]!r}…); give one of up to {MAX_ID_BYTES} bytes"
        )
    return str.__str__(value)


def ids(value: object) -> tuple[object, ...]:
    """Return what is given as task ids, each still to be checked; one text is one id."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, bytes | bytearray) or not isinstance(value, Iterable):
        raise TypeError(f"ids are {_a(value)}; give a str or an iterable of str")
    return tuple(cast("Iterable[object]", value))


def task_ids(value: object) -> tuple[str, ...]:
    """Return the task ids in the order given, each once; one text is one id."""
    return tuple(dict.fromkeys(map(task_id, ids(value))))


def base_url(value: object) -> str:
    """Return the relay's base URL without a slash at its end; it may have a path."""
    if value is None or value == "":
        raise ValueError("no base URL; pass base_url or set LUMA_BASE_URL")
    return http_url("base_url", value, plain=True).rstrip("/")


def http_url(name: str, value: object, *, plain: bool) -> str:
    """Return an http or https URL; a plain one carries no user, query or fragment.

    A URL that is refused is not repeated in the error: it may carry a password.
    """
    remedy = "give a URL such as https://relay.example"
    if not isinstance(value, str):
        raise TypeError(f"{name} is {_a(value)}; {remedy}")
    try:
        parts = urlsplit(value)
        whole_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ValueError(f"{name} is no URL; {remedy}") from None
    if not whole_url or any(sign.isspace() or not sign.isprintable() for sign in value):
        raise ValueError(f"{name} is no http URL; {remedy}")
    if plain and "@" in parts.netloc:
        raise ValueError(f"{name} carries a user or password; remove it and pass api_key")
    if plain and ("?" in value or "#" in value):
        raise ValueError(f"{name} carries a query or a fragment; give it without them")
    return value


def hosts(name: str, value: object) -> tuple[str, ...]:
    """Return a list of host names or IP addresses."""
    remedy = "give a list of hosts"
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise TypeError(f"{name} is {_a(value)}; {remedy}")
    return tuple(text(name, host) for host in cast("Iterable[object]", value))


def headers(name: str, value: object, *, reserved: Collection[str]) -> dict[str, str]:
    """Return header fields; `reserved` are those that cannot be given. No error repeats a value."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} is {_a(value)}; give a dict")
    fields: dict[str, str] = {}
    for key, one in cast("Mapping[object, object]", value).items():
        field, content = text(name, key), text(name, one)
        if not _FIELD_NAME.fullmatch(field) or field.lower() in reserved:
            raise ValueError(f"{name} contains a field that cannot be sent; give another name")
        if not content.isascii() or not content.isprintable():
            raise ValueError(f"{name}[{field!r}] has a line end or a sign outside ASCII; remove it")
        fields[field] = content
    return fields


def api_key(value: object) -> str:
    """Return the key untouched; no error ever repeats it."""
    if value is None or value == "":
        raise ValueError("no API key; pass api_key or set LUMA_API_KEY")
    key = text("api_key", value)
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("api_key holds a space, a line end or a sign outside ASCII; remove it")
    return key


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is {_a(value)}; give a number")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"{name} is too large; give a smaller number") from None
    if isnan(number):
        raise ValueError(f"{name} is not a number (nan); give a number")
    return number


def _a(value: object) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"
