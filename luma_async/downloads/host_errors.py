"""What the error of a host means for a link.

The code in the body decides, then its words, then the status: S3 answers 400 to an expired link and
to a request that was too slow, 403 to a file that does not exist. Pure.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, cast
from urllib.parse import parse_qsl

from msgspec import Struct

from luma_async.protocol.headers import http_date
from luma_async.text import one_line

MAX_ERROR_BODY = 2**14  # bytes


class Meaning(Enum):
    """What an error says of a link."""

    EXPIRED = "the link is no longer valid: ask the relay for another one"
    NOT_YET = "the file is not there yet, or the page passes: try the link again"
    NEEDS_KEY = "the link is valid for requests with a key only"
    UNAVAILABLE = "the host has a transient error: send the request again"
    FINAL = "no other request will succeed"


class HostError(Struct, frozen=True):
    """The error of a host: what it means, the status, and the host's code for it, or None."""

    meaning: Meaning
    status: int
    code: str | None = None

    def __str__(self) -> str:
        return f"status {self.status}" + (f" {one_line(self.code)}" if self.code else "")


_CODES = {
    Meaning.EXPIRED: """
        ExpiredToken TokenExpired TokenRefreshRequired ExpiredRequest RequestExpired InvalidToken
        SecurityTokenExpired InvalidSecurityToken SecurityTokenMalformed RequestTimeTooSkewed
        SignatureDoesNotMatch InvalidSignature SignatureExpired InvalidAccessKeyId MissingKey
        AuthenticationFailed AuthorizationQueryParametersError InvalidQueryParameterValue
        MalformedPolicy InvalidPolicyDocument LinkExpired UrlExpired
    """,
    Meaning.NOT_YET: """
        NoSuchKey NoSuchVersion NoSuchUpload BlobNotFound ResourceNotFound ContainerNotFound
        BlobNotYetAvailable PendingCopyOperation notFound not_found 1020 1010
    """,
    Meaning.NEEDS_KEY: """
        NoAuthenticationInformation PublicAccessNotPermitted AuthenticationRequired
        UserProjectMissing required unauthenticated unauthorized
    """,
    Meaning.UNAVAILABLE: """
        SlowDown Slow_Down SlowDownRead Throttling ThrottlingException RequestLimitExceeded
        TooManyRequests ServerBusy ServiceUnavailable InternalError InternalServerError
        RequestTimeout OperationTimedOut OperationAborted backendError internal rateLimitExceeded
        userRateLimitExceeded QpsLimitExceeded BandwidthLimitExceeded TotalQpsLimitExceeded
        DownloadTrafficRateLimitExceeded 1015 1033
    """,
    Meaning.FINAL: """
        InvalidObjectState BlobArchived BlobBeingRehydrated AllAccessDisabled AccountProblem
        AccountIsDisabled UserDisable NoSuchBucket InvalidBucketName MethodNotAllowed
    """,
}
"""The codes of S3, R2, GCS, Azure, OSS, COS and Cloudflare; others leave it to words and status."""

_STATUSES = {
    Meaning.EXPIRED: (410,),
    Meaning.NOT_YET: (200, 202, 206, 403, 404, 423),
    Meaning.NEEDS_KEY: (401,),
    Meaning.UNAVAILABLE: (408, 425, 429, 499),
}
_EXPIRED_WORDS = re.compile(
    r"expired|out of date|no longer valid|not valid in the specified time frame|bad token"
    r"|token auth failed|过期|失效",
    re.IGNORECASE,
)
_KEY_WORDS = re.compile(
    r"anonymous caller|authentication (?:is )?required|no credentials", re.IGNORECASE
)
_TIME_FRAME = re.compile(r"Start \[([^]]+)\].*?Current \[([^]]+)\]", re.DOTALL)
_XML_CODE = re.compile(r"<Code>\s*([^<\s][^<]{0,99}?)\s*</Code>")
_CLOUDFLARE_CODE = re.compile(r"error code:?\s+(\d{4})\b", re.IGNORECASE)
_CODE = re.compile(r"[\w .:-]{1,60}")  # without the signs of a URL: no code repeats a link
_CODE_HEADERS = ("x-ms-error-code", "x-amz-error-code")
_WORD_HEADERS = ("x-tengine-error", "www-authenticate", "x-amz-error-message")
_JSON_CODES = ("code", "Code", "errorCode", "error_code", "status", "reason", "error")


def _key(code: str) -> str:
    return re.sub(r"[^a-z0-9]", "", code.lower())


_MEANINGS = {_key(code): meaning for meaning, codes in _CODES.items() for code in codes.split()}


def read_error(
    status: int, headers: Mapping[str, str], body: bytes, query: str, now: datetime
) -> HostError:
    """Return what an error response means.

    The names of `headers` are in lower case; `body` is the first `MAX_ERROR_BODY` bytes. `query` is
    that of the link, which may say when the link expires; `now` is used if there is no Date.
    """
    text = body.decode("utf-8", "replace")
    code = _code_of(headers, text)
    meaning = _MEANINGS.get(_key(code or ""))
    words = " ".join([text, *(headers.get(name, "") for name in _WORD_HEADERS)])
    if meaning is Meaning.EXPIRED and _begins_later(text):
        meaning = Meaning.NOT_YET
    if meaning is None and status < 500 and status not in _STATUSES[Meaning.UNAVAILABLE]:
        meaning = _of_words(words)
    if meaning is None:
        meaning = _of_status(status)
    if meaning in (Meaning.NOT_YET, Meaning.NEEDS_KEY, Meaning.FINAL):
        expires_at = signature_expires_at(query)
        if expires_at is not None and (http_date(headers.get("date", "")) or now) >= expires_at:
            meaning = Meaning.EXPIRED
    return HostError(meaning, status, code)


def signature_expires_at(query: str) -> datetime | None:
    """Return when the signature in the query of a link expires; None if it does not say so."""
    with suppress(ValueError, OverflowError, OSError):  # OSError: a year beyond those of C
        fields = {name.lower(): value for name, value in parse_qsl(query, max_num_fields=200)}
        for vendor in ("amz", "goog", "oss", "tos", "obs"):
            if (seconds := fields.get(f"x-{vendor}-expires")) is not None:
                signed_at = fields.get(f"x-{vendor}-date", "")
                return _utc(signed_at, "%Y%m%dT%H%M%SZ") + timedelta(seconds=int(seconds))
        if "sig" in fields and "se" in fields:
            ends_at = datetime.fromisoformat(fields["se"].replace("Z", "+00:00"))
            return ends_at.astimezone(UTC) if ends_at.tzinfo else ends_at.replace(tzinfo=UTC)
        if "q-sign-time" in fields:
            return datetime.fromtimestamp(int(fields["q-sign-time"].rpartition(";")[2]), UTC)
        at = fields.get("expires") or fields.get("e" if "token" in fields else "expires", "")
        if re.fullmatch(r"\d{10}", at):
            return datetime.fromtimestamp(int(at), UTC)
    return None


def _of_words(words: str) -> Meaning | None:
    if _EXPIRED_WORDS.search(words):
        return Meaning.NOT_YET if _begins_later(words) else Meaning.EXPIRED
    return Meaning.NEEDS_KEY if _KEY_WORDS.search(words) else None


def _of_status(status: int) -> Meaning:
    if status >= 500:
        return Meaning.UNAVAILABLE
    found = (meaning for meaning, statuses in _STATUSES.items() if status in statuses)
    return next(found, Meaning.FINAL)


def _begins_later(text: str) -> bool:
    """Return whether Azure says that the signature becomes valid later: its clock is behind."""
    found = _TIME_FRAME.search(text)
    start, current = (http_date(found[1]), http_date(found[2])) if found else (None, None)
    return start is not None and current is not None and current < start


def _code_of(headers: Mapping[str, str], text: str) -> str | None:
    return next((code for code in _codes(headers, text) if _CODE.fullmatch(code)), None)


def _codes(headers: Mapping[str, str], text: str) -> Iterator[str]:
    for name in _CODE_HEADERS:
        yield headers.get(name, "")
    if match := _XML_CODE.search(text) or _CLOUDFLARE_CODE.search(text):
        yield match[1]
    with suppress(ValueError, RecursionError):
        yield from _codes_in(json.loads(text))


def _codes_in(value: Any) -> Iterator[str]:
    """Yield the codes in the JSON of an error, the most specific ones first."""
    if not isinstance(value, dict):
        return
    fields = cast("dict[str, Any]", value)
    for name in ("error", "errors"):
        match fields.get(name):
            case [first, *_]:
                yield from _codes_in(first)
            case inner:
                yield from _codes_in(inner)
    for name in _JSON_CODES:
        code = fields.get(name)
        if isinstance(code, str):
            yield code


def _utc(text: str, form: str) -> datetime:
    return datetime.strptime(text, form).replace(tzinfo=UTC)
