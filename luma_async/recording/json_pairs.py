"""JSON that is written again as it was: numbers as text, keys that come twice, any documents."""

import json
from typing import Any

from luma_async.protocol.task_fields import as_list


class Number(str):
    """A number as JSON writes it."""

    __slots__ = ()


class Pairs(list[tuple[str, Any]]):
    """A JSON object as its pairs, in order, with keys that come twice."""


def json_documents(body: str) -> list[Any] | None:
    """Return the JSON documents that a body consists of; None if it is no JSON."""
    decoder = json.JSONDecoder(
        object_pairs_hook=Pairs, parse_int=Number, parse_float=Number, parse_constant=Number
    )
    documents: list[Any] = []
    rest = body.strip()
    if rest[:1] not in ("{", "[", "n"):
        return None
    try:
        while rest:
            document, end = decoder.raw_decode(rest)
            documents.append(document)
            rest = rest[end:].lstrip()
    except (ValueError, RecursionError):
        return None
    return documents


def dump(value: Any, *, ascii_only: bool) -> str:
    """Write a JSON value, numbers and pairs of an object as they were."""
    if isinstance(value, Pairs):
        pairs = (
            f"{json.dumps(key, ensure_ascii=ascii_only)}:{dump(one, ascii_only=ascii_only)}"
            for key, one in value
        )
        return f"{{{','.join(pairs)}}}"
    if (items := as_list(value)) is not None:
        return f"[{','.join(dump(one, ascii_only=ascii_only) for one in items)}]"
    if isinstance(value, Number):
        return str(value)
    return json.dumps(value, ensure_ascii=ascii_only)
