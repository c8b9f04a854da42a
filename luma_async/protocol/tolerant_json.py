"""JSON as it really comes: in odd encodings, not quite JSON, or with a part that makes no sense.

Nothing here knows what a task is. A reader tries msgspec's strict decoder first, because that is
fast, and comes here where it fails.
"""

import json
import re
from contextlib import suppress
from functools import cache
from math import isfinite
from types import UnionType
from typing import Any, TypeVar, get_args

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import fields

S = TypeVar("S", bound=Struct)

_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.IGNORECASE)
_QUADRATIC = ("idna", "punycode")
MAX_DIGITS = 4_000  # of a whole number; Python refuses more than 4,300


def to_utf8(body: bytes, content_type: str) -> bytes:
    """Return a text in UTF-8 without a byte order mark, whatever it came in.

    Its first bytes decide. The charset of its Content-Type counts only if it is not UTF-8: relays
    name one and send another.
    """
    encoding: str = json.detect_encoding(body)
    if encoding == "utf-8":
        named = _CHARSET.search(content_type)
        if named is None or named[1].lower() in ("utf-8", "utf8", *_QUADRATIC) or _is_utf8(body):
            return body
        encoding = named[1]
    with suppress(LookupError, ValueError):
        return body.decode(encoding, "replace").encode("utf-8", "replace")
    return body


def _is_utf8(body: bytes) -> bool:
    with suppress(UnicodeDecodeError):
        body.decode()
        return True
    return False


def normalize_json(text: bytes) -> bytes:
    """Write JSON again, without what strict readers reject; ValueError if it is no JSON.

    That is bytes that are not UTF-8, half a surrogate pair, infinity, a number too large.
    """
    plain = json.loads(
        text.decode("utf-8", "replace"),
        parse_float=_finite,
        parse_int=_readable,
        parse_constant=lambda _: None,
    )
    return json.dumps(plain, ensure_ascii=False).encode("utf-8", "replace")


def _readable(digits: str) -> int | None:
    return int(digits) if len(digits) < MAX_DIGITS else None


def _finite(digits: str) -> float | None:
    return float(digits) if isfinite(float(digits)) else None


def decode_lenient(kind: type[S], text: bytes | Raw) -> S:
    """Build a struct of the fields that make sense; one of the wrong type costs itself alone."""
    decoder: msgspec.json.Decoder[S] = _decoder(kind)
    try:
        return decoder.decode(text)
    except (ValueError, RecursionError):
        pass
    with suppress(ValueError, RecursionError):
        text = normalize_json(bytes(text))
        return decoder.decode(text)
    return _kept(kind, text)


@cache
def _decoder(kind: type[Any]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind, strict=False)


def _kept(kind: type[S], text: bytes | Raw) -> S:
    kept: dict[str, Any] = {}
    with suppress(ValueError, RecursionError):
        parts = msgspec.json.decode(text, type=dict[str, Raw])
        for field in fields(kind):
            if field.encode_name in parts:
                with suppress(ValueError, RecursionError):
                    kept[field.name] = recover(field.type, parts[field.encode_name])
    return kind(**kept)


def recover(kind: Any, part: bytes | Raw) -> Any:
    """Return what makes sense of one value; None, ValueError or RecursionError if nothing does.

    A bare link that stands where an object with a `url` belongs is that.
    """
    with suppress(ValueError, RecursionError):
        return msgspec.json.decode(part, type=kind, strict=False)
    opening = bytes(part).lstrip()[:1]
    for option in get_args(kind) if isinstance(kind, UnionType) else (kind,):
        if isinstance(option, type) and issubclass(option, Struct):
            if opening == b"{":
                return decode_lenient(option, part)
            if opening == b'"' and "url" in option.__struct_fields__:
                link = msgspec.json.decode(part, type=str)
                if "://" in link:
                    return option(url=link)
    return None
