"""Error responses of hosts, after the public documentation of each, and what they mean.

Keys and names in them are made up. Bodies are as hosts send them, with byte order marks, namespaces
and line ends.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from luma_async.downloads.host_errors import Meaning

M = Meaning
XML = "application/xml"
JSON = "application/json"
HTML = "text/html"


@dataclass(frozen=True)
class Sample:
    """One error response, and what it means."""

    name: str
    status: int
    body: str
    meaning: Meaning
    code: str | None = None
    kind: str = XML
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def data(self) -> bytes:
        return self.body.encode()


def s3(
    name: str, status: int, code: str, message: str, meaning: Meaning, more: str = "", **any_: Any
) -> Sample:
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code>'
        f"<Message>{message}</Message>{more}<RequestId>4442587FB7D0A2F9</RequestId></Error>"
    )
    return Sample(name, status, body, meaning, code, **any_)


def azure(name: str, status: int, code: str, message: str, meaning: Meaning) -> Sample:
    body = (
        f'\ufeff<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code>'
        f"<Message>{message}\nRequestId:6ec9a0ff\nTime:2026-11-20T10:00:00.0000000Z</Message></Error>"
    )
    return Sample(name, status, body, meaning, code, headers={"x-ms-error-code": code})


def page(name: str, status: int, body: str, meaning: Meaning, code: str | None = None) -> Sample:
    return Sample(name, status, body, meaning, code, HTML)


def nginx(status: int, reason: str, meaning: Meaning) -> Sample:
    body = (
        f"<html>\r\n<head><title>{status} {reason}</title></head>\r\n<body>\r\n"
        f"<center><h1>{status} {reason}</h1></center>\r\n<hr><center>nginx</center>\r\n</body>"
    )
    return page(f"nginx: {reason}", status, body, meaning)


def data(
    name: str, status: int, body: str, meaning: Meaning, code: str | None = None, **headers: str
) -> Sample:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return Sample(name, status, body, meaning, code, JSON, named)


FRAME = (
    "Signature not valid in the specified time frame: Start [{}] - Expiry "
    "[Fri, 20 Nov 2026 09:00:00 GMT] - Current [Fri, 20 Nov 2026 10:00:00 GMT]"
)
GCS_ANONYMOUS = "Anonymous caller does not have storage.objects.get access to the object."
EXPIRES = "<Expires>2026-11-20T09:00:00Z</Expires><ServerTime>2026-11-20T10:00:00Z</ServerTime>"

SAMPLES = (
    s3("S3: expired link", 403, "AccessDenied", "Request has expired", M.EXPIRED, EXPIRES),
    s3("S3: expired token", 400, "ExpiredToken", "The provided token has expired.", M.EXPIRED),
    s3("S3: invalid token", 400, "InvalidToken", "The provided token is malformed.", M.EXPIRED),
    s3("S3: wrong signature", 403, "SignatureDoesNotMatch", "Check your key", M.EXPIRED),
    s3("S3: deleted key", 403, "InvalidAccessKeyId", "The key does not exist.", M.EXPIRED),
    s3("S3: clock skew", 403, "RequestTimeTooSkewed", "The difference is too large.", M.EXPIRED),
    s3("S3: no file yet", 404, "NoSuchKey", "The specified key does not exist.", M.NOT_YET),
    s3("S3: no file yet, no right to list", 403, "AccessDenied", "Access Denied", M.NOT_YET),
    s3("S3: too many requests", 503, "SlowDown", "Please reduce your rate.", M.UNAVAILABLE),
    s3("S3: slow request", 400, "RequestTimeout", "Your socket was idle.", M.UNAVAILABLE),
    s3("S3: internal error", 500, "InternalError", "Please try again.", M.UNAVAILABLE),
    s3("S3: internal error with 200", 200, "InternalError", "Please try again.", M.UNAVAILABLE),
    s3("S3: archived", 403, "InvalidObjectState", "The object is archived.", M.FINAL),
    s3("R2: expired link", 400, "ExpiredRequest", "Request has expired", M.EXPIRED),
    s3("R2: no credentials", 401, "Unauthorized", "Unauthorized", M.NEEDS_KEY),
    s3("R2: no file yet", 404, "NoSuchKey", "The specified key does not exist.", M.NOT_YET),
    page("R2: public bucket without the file", 404, "<h1>Object not found</h1>", M.NOT_YET),
    s3(
        "GCS: expired link", 400, "ExpiredToken", "Invalid argument.", M.EXPIRED,
        "<Details>Request signature expired at: 2026-11-20T09:00:00+00:00</Details>",
    ),
    s3("GCS: no key", 403, "AccessDenied", "Access denied.", M.NEEDS_KEY, GCS_ANONYMOUS),
    s3("GCS: no file yet", 404, "NoSuchKey", "The specified key does not exist.", M.NOT_YET),
    data(
        "GCS JSON: no key", 401,
        f'{{"error": {{"code": 401, "message": "{GCS_ANONYMOUS}", "errors": [{{"message": '
        f'"{GCS_ANONYMOUS}", "domain": "global", "reason": "required"}}]}}}}',
        M.NEEDS_KEY, "required",
    ),
    data(
        "GCS JSON: too many requests", 429,
        '{"error": {"code": 429, "errors": [{"reason": "rateLimitExceeded"}]}}', M.UNAVAILABLE,
        "rateLimitExceeded",
    ),
    data(
        "GCS JSON: no file yet", 404,
        '{"error": {"code": 404, "errors": [{"reason": "notFound"}]}}', M.NOT_YET, "notFound",
    ),
    azure(
        "Azure: expired link", 403, "AuthenticationFailed",
        FRAME.format("Fri, 20 Nov 2026 08:00:00 GMT"), M.EXPIRED,
    ),
    azure(
        "Azure: link of a clock that is ahead", 403, "AuthenticationFailed",
        FRAME.format("Fri, 20 Nov 2026 10:00:07 GMT"), M.NOT_YET,
    ),
    azure("Azure: wrong signature", 403, "AuthenticationFailed", "did not match", M.EXPIRED),
    azure("Azure: no file yet", 404, "BlobNotFound", "The blob does not exist.", M.NOT_YET),
    azure("Azure: no container yet", 404, "ContainerNotFound", "Does not exist.", M.NOT_YET),
    azure("Azure: no link", 401, "NoAuthenticationInformation", "No header", M.NEEDS_KEY),
    azure("Azure: private", 409, "PublicAccessNotPermitted", "Not permitted", M.NEEDS_KEY),
    azure("Azure: busy", 503, "ServerBusy", "The server is busy.", M.UNAVAILABLE),
    azure("Azure: archived", 409, "BlobArchived", "The blob is archived.", M.FINAL),
    s3("CloudFront: expired or no file", 403, "AccessDenied", "Access denied", M.NOT_YET),
    s3("CloudFront: no signature", 403, "MissingKey", "Missing Key-Pair-Id", M.EXPIRED),
    page("CloudFront: blocked", 403, "<H1>403 ERROR</H1> Request blocked.", M.NOT_YET),
    s3("OSS: expired link", 403, "AccessDenied", "Request has expired.", M.EXPIRED, EXPIRES),
    s3("OSS: expired token", 403, "SecurityTokenExpired", "The token is expired.", M.EXPIRED),
    s3("OSS: too much traffic", 503, "DownloadTrafficRateLimitExceeded", "", M.UNAVAILABLE),
    s3("OSS: account not paid", 403, "UserDisable", "UserDisable", M.FINAL),
    page("Aliyun CDN: expired link or no file", 403, "<h1>403 Forbidden</h1>", M.NOT_YET),
    Sample(
        "Aliyun CDN: expired link, in a header", 403, "<h1>403 Forbidden</h1>", M.EXPIRED, None,
        HTML, {"x-tengine-error": "denied by req auth: expired timestamp"},
    ),
    s3("COS: expired link", 403, "AccessDenied", "Request has expired", M.EXPIRED),
    s3("COS: wrong signature", 403, "SignatureDoesNotMatch", "does not match", M.EXPIRED),
    data("Qiniu: expired link", 401, '{"error":"expired token"}', M.EXPIRED, "expired token"),
    data("Qiniu: old link", 401, '{"error":"token out of date"}', M.EXPIRED, "token out of date"),
    data(
        "Qiniu: wrong link", 401, '{"error":"download token auth failed"}', M.EXPIRED,
        "download token auth failed",
    ),
    data(
        "Qiniu: no file yet", 404, '{"error":"Document not found"}', M.NOT_YET,
        "Document not found",
    ),
    page("Cloudflare: blocked", 403, "error code: 1020", M.NOT_YET, "1020"),
    page("Cloudflare: rate limit", 429, "error code: 1015", M.UNAVAILABLE, "1015"),
    page("Cloudflare: origin is down", 521, "error code: 521", M.UNAVAILABLE),
    page("Cloudflare: no tunnel", 530, "error code: 1033", M.UNAVAILABLE, "1033"),
    page("Cloudflare: challenge", 403, "<title>Just a moment...</title>", M.NOT_YET),
    page("Cloudflare: challenge with 200", 200, "<title>Just a moment...</title>", M.NOT_YET),
    nginx(403, "Forbidden", M.NOT_YET),
    nginx(404, "Not Found", M.NOT_YET),
    nginx(410, "Gone", M.EXPIRED),
    nginx(401, "Authorization Required", M.NEEDS_KEY),
    nginx(502, "Bad Gateway", M.UNAVAILABLE),
    nginx(504, "Gateway Time-out", M.UNAVAILABLE),
    nginx(400, "Bad Request", M.FINAL),
    nginx(405, "Not Allowed", M.FINAL),
    data("an application: expired", 403, '{"code":"link_expired"}', M.EXPIRED, "link_expired"),
    data("an application: expired, in words", 404, '{"message":"链接已过期"}', M.EXPIRED),
    data("an application: expired, status 200", 200, '{"message":"it has expired"}', M.EXPIRED),
    data(
        "OAuth: expired token", 401, "", M.EXPIRED,
        www_authenticate='Bearer error="invalid_token", error_description="The token expired"',
    ),
    data("any host: no body", 404, "", M.NOT_YET),
    data("any host: accepted", 202, '{"status":"processing"}', M.NOT_YET, "processing"),
    data("any host: deep JSON", 403, "[" * 50_000, M.NOT_YET),
    data("any host: an unusual status", 418, "I'm a teapot", M.FINAL),
)  # fmt: skip
