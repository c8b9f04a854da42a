"""Whether a partial file may be continued, and where the bytes of a response belong. Pure.

Bytes of two responses are joined only if a strong validator (RFC 9110, 8.8) says that they are of
one version of one file: a strong ETag, or a Last-Modified that is certainly older than the
response. It is sent as If-Range; a host whose file has changed then sends all of it.

    response                                         the partial file
    200                                              is written again from its start
    206, the bytes from its end, same version        is continued
    206, anything else; 416                          is set aside; the next request has no Range
"""

import hashlib
import re
from collections.abc import Mapping

from msgspec import Struct
from yarl import URL

from luma_async.protocol.headers import http_date

ENCODINGS = frozenset(("gzip", "x-gzip", "deflate", "br", "zstd"))
MIN_AGE = 60.0  # seconds between Last-Modified and Date: both clocks may differ by less

_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]+"')
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")
_UNSATISFIED_RANGE = re.compile(r"bytes \*/(\d{1,18})")


class PartRecord(Struct, frozen=True):
    """What is known of the bytes of a partial file; it is stored beside it.

    `source` identifies the link without its query. `validator` is the strong validator of the
    version, or None. `total` is the size of the complete file, or None if it is unknown;
    `is_complete` is set when it is complete all the same.
    """

    source: str
    validator: str | None
    total: int | None
    is_complete: bool = False

    def is_whole(self, size: int) -> bool:
        """Return whether a partial file of this size is the complete file."""
        return size > 0 and (self.is_complete or size == self.total)


class Received(Struct, frozen=True):
    """Where the bytes of a response belong: from `start` to `end`, None if that is unknown."""

    start: int
    end: int | None
    record: PartRecord


def source_of(url: URL) -> str:
    """Return a digest of a link without its query, which has a new signature in each link."""
    parts = f"{url.scheme}://{url.raw_host}:{url.port}{url.raw_path}"
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


def range_headers(record: PartRecord | None, size: int, source: str) -> dict[str, str]:
    """Return the headers of a request that continues a partial file; none for a whole file."""
    if not size or record is None or record.validator is None or record.source != source:
        return {}
    return {"Range": f"bytes={size}-", "If-Range": record.validator}


def validator_of(headers: Mapping[str, str]) -> str | None:
    """Return the strong validator of a response, or None. Header names are in lower case.

    A date is one only if there is no ETag (RFC 9110, 13.1.5), and if the response is at least
    `MIN_AGE` younger: the file may have changed again in the same second (8.8.2.2).
    """
    if (etag := headers.get("etag")) is not None:
        return etag if _STRONG_ETAG.fullmatch(etag) else None
    modified = headers.get("last-modified", "")
    sent_at, modified_at = http_date(headers.get("date")), http_date(modified)
    if sent_at is None or modified_at is None or not modified.isascii():
        return None
    return modified if (sent_at - modified_at).total_seconds() >= MIN_AGE else None


def whole_response(headers: Mapping[str, str], length: int | None, source: str) -> Received:
    """Return where the bytes of a response with status 200 belong; `length` is its length."""
    return Received(0, length, PartRecord(source, validator_of(headers), length))


def partial_response(
    headers: Mapping[str, str], start: int, record: PartRecord | None, source: str
) -> Received | None:
    """Return where the bytes of a response with status 206 belong.

    `start` is the first byte that was requested, `record` that of the partial file. Returns None if
    the response is not exactly what was requested.
    """
    found = _CONTENT_RANGE.fullmatch(headers.get("content-range", "").strip())
    if found is None or headers.get("content-type", "").lower().startswith("multipart/"):
        return None
    total = None if found[3] == "*" else int(found[3])
    if start == 0 or record is None:
        record = PartRecord(source, validator_of(headers), total)
    elif not _is_same_version(headers, total, record):
        return None
    total = record.total if record.total is not None else total
    first, end = int(found[1]), int(found[2]) + 1
    if first != start or total is None or not first < end <= total:
        return None
    return Received(first, end, PartRecord(record.source, record.validator, total))


def confirms_size(headers: Mapping[str, str], size: int, record: PartRecord | None) -> bool:
    """Return whether a response with status 416 says that a partial file is the complete one."""
    found = _UNSATISFIED_RANGE.fullmatch(headers.get("content-range", "").strip())
    if found is None or record is None or record.validator is None:
        return False
    is_of_size = int(found[1]) == size and record.total in (None, size)
    return is_of_size and headers.get("etag") == record.validator


def encoding_of(content_encoding: str) -> str | None:
    """Return the encoding of a body by its Content-Encoding; None if the bytes are the file's own.

    What is no encoding is ignored: aws-chunked, which is one of uploads, identity, UTF-8, blanks.
    """
    names = (name.strip().lower() for name in content_encoding.split(","))
    return next((name for name in names if name in ENCODINGS), None)


def _is_same_version(headers: Mapping[str, str], total: int | None, record: PartRecord) -> bool:
    """Return whether a response is of the same version as a partial file.

    One without the validator is not: its host may have ignored If-Range.
    """
    name = "etag" if (record.validator or "").startswith('"') else "last-modified"
    is_same = record.validator is not None and headers.get(name) == record.validator
    return is_same and (record.total is None or total in (None, record.total))
