"""Findings about the link of a completed task: does it answer, for whom, and for how long."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

from luma_async.diagnosis.findings import Finding, Subject
from luma_async.diagnosis.questions import Answer, Answers
from luma_async.protocol.headers import http_date
from luma_async.text import format_duration, one_line

_LIFETIMES = ("x-amz-expires", "x-goog-expires", "x-oss-expires", "x-tos-expires", "x-cos-expires")
_SIGNED_AT = ("x-amz-date", "x-goog-date", "x-oss-date", "x-tos-date")
_UNTIL = ("expires", "expire", "exp", "e", "se", "x-expires", "auth_expires", "q-sign-time")
_MOMENT = range(1_000_000_000, 10_000_000_000)  # unix time in seconds


def link(answers: Answers, _: Subject) -> Iterator[Finding]:
    """Find whether the link of a completed task answers, and whether it wants a key."""
    head = next(iter(answers.of("link", "head")), None)
    first = next(iter(answers.of("link", "range")), None)
    if head is None or first is None:
        return
    keyed = next(iter(answers.of("link", "with key")), None)
    if keyed is not None and keyed.status in (200, 206):
        yield Finding(
            "link-key", "trouble", f"the link wants the key: status {first.status} without it",
            "downloads send no key; download with a client of your own that sends it",
        )  # fmt: skip
    elif first.error is not None:
        yield Finding("link", "trouble", f"the link does not answer: {first.error}", _allow(first))
    elif first.status not in (200, 206):
        yield Finding(
            "link", "trouble", f"the link answers with status {first.status}, without a key",
            "it may have expired, or wants a key; ask the relay's operator",
        )  # fmt: skip
    else:
        yield from _answering(head, first)
    yield _expiry(first)


def _allow(answer: Answer) -> str:
    host = urlsplit(answer.question.url).hostname or ""
    if "private address" in str(answer.error):
        return f"if that is intended, give --allow-host {one_line(host)}"
    return "check whether this machine can reach the host of the link"


def _answering(head: Answer, first: Answer) -> Iterator[Finding]:
    """Find what a link that answers can do: HEAD, Range, ETag."""
    kind = first.headers.get("content-type", "no Content-Type")
    if kind.startswith(("text/", "application/json")):
        text = f"the link answers with {one_line(kind)}, not with a video"
        yield Finding("link", "trouble", text, "ask the relay's operator")
        return
    yield Finding("link", "ok", f"the link answers without a key: {one_line(kind)}")
    if head.status not in (200, 204):
        text = f"HEAD is answered with {head.status or head.error}, though GET works"
        yield Finding("link-head", "note", text, "downloads use GET alone")
    if first.status == 206:
        yield Finding("range", "ok", "ranges work: interrupted downloads are resumed")
    else:
        text = "ranges are ignored"
        yield Finding("range", "note", text, "an interrupted download begins again")
    version = first.headers.get("etag") or first.headers.get("last-modified")
    if version is None:
        text = "the link has neither ETag nor Last-Modified"
        yield Finding("etag", "note", text, "a file that changes is noticed by its length alone")
    else:
        yield Finding("etag", "ok", "the version of the file is known (ETag or Last-Modified)")


def _expiry(answer: Answer) -> Finding:
    lifetime, until = expiry(answer.question.url)
    if until is None and lifetime is None:
        return Finding("link-expiry", "ok", "the link names no time at which it expires")
    left = lifetime
    if until is not None:
        sent_at = http_date(answer.headers.get("date"))
        now = sent_at or datetime.fromtimestamp(answer.received_at, UTC)
        left = (until - now).total_seconds()
    assert left is not None
    if left <= 0:
        return Finding(
            "link-expiry", "note", f"the link expired {format_duration(-left)} ago",
            "poll the task again for a new link",
        )  # fmt: skip
    return Finding(
        "link-expiry", "note", f"the link expires in {format_duration(left)}",
        "download soon; store the file, not the link",
    )  # fmt: skip


def expiry(url: str) -> tuple[float | None, datetime | None]:
    """Return for how many seconds a link is signed, and when it expires; None if unknown.

    Read from its query: X-Amz-Date and X-Amz-Expires and their kin, Expires, exp, se.
    """
    query = {name.lower(): value for name, value in parse_qsl(urlsplit(url).query)}
    lifetimes = (query[name] for name in _LIFETIMES if query.get(name, "").isdigit())
    lifetime = next((float(value) for value in lifetimes if len(value) < 10), None)
    signed = next((query[name] for name in _SIGNED_AT if name in query), "")
    if lifetime is not None:
        try:
            begun = datetime.strptime(signed, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        except ValueError:
            return lifetime, None
        return lifetime, begun + timedelta(seconds=lifetime)
    moments = (query[name].rpartition(";")[2] for name in _UNTIL if name in query)
    return None, next(filter(None, map(_moment, moments)), None)


def _moment(text: str) -> datetime | None:
    if text.isdigit() and len(text) < 14:
        seconds = int(text) if int(text) in _MOMENT else int(text) // 1000
        return datetime.fromtimestamp(seconds, UTC) if seconds in _MOMENT else None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
