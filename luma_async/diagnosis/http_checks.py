"""Findings about HTTP: limits on the rate, clock, compression, header sizes, latency."""

from collections.abc import Iterator
from statistics import median

from luma_async.diagnosis.findings import Finding, Subject
from luma_async.diagnosis.questions import Answer, Answers
from luma_async.errors import RateLimitedError, RelayError
from luma_async.protocol.headers import http_date
from luma_async.text import format_precisely, one_line

MAX_CLOCK_ERROR = 5.0  # seconds
SLOW = 5.0  # seconds
AIOHTTP_LINE = 8190  # bytes: the limit of aiohttp and of many proxies
_RATE_WORDS = ("ratelimit", "rate-limit", "retry-after")


def rate(answers: Answers, subject: Subject) -> Iterator[Finding]:
    """Find limits on the rate: 429, Retry-After, and headers with what is left."""
    relay = answers.of_relay()
    limited = [a for a in relay if isinstance(a.error, RateLimitedError)]
    if limited:
        slower = max(subject.max_rate / 2, 0.1)
        pause = limited[-1].error.retry_after if limited[-1].error else None
        said = f", with Retry-After {format_precisely(pause)}" if pause else ", no Retry-After"
        yield Finding(
            "rate", "note", f"{len(limited)} of {len(relay)} requests were too many{said}",
            f"set Limits(max_rate={slower:g})", limits={"max_rate": slower},
        )  # fmt: skip
    failed = [a for a in relay if isinstance(a.error, RelayError)]
    if failed:
        text = f"{len(failed)} of {len(relay)} requests: {one_line(str(failed[-1].error))}"
        yield Finding("relay-errors", "note", text, "such requests are retried")
    named = {
        name: value
        for a in relay
        for name, value in a.headers.items()
        if any(word in name for word in _RATE_WORDS)
    }
    if named:
        shown = ", ".join(f"{name}: {one_line(value)}" for name, value in sorted(named.items()))
        follows = "Retry-After is obeyed" if "retry-after" in named else ""
        yield Finding("rate-headers", "note", shown, follows)


def clock(answers: Answers, _: Subject) -> Iterator[Finding]:
    """Find how far the relay's clock is from ours."""
    errors = [e for a in answers.of_relay() if (e := _clock_error(a)) is not None]
    if not errors:
        if any(a.status is not None for a in answers.of_relay()):
            follows = "the age of a task is counted from when it is first watched"
            yield Finding("clock", "note", "responses have no Date", follows)
        return
    error = median(errors)
    if abs(error) <= MAX_CLOCK_ERROR:
        yield Finding("clock", "ok", "the relay's clock agrees with ours")
        return
    direction = "ahead of" if error > 0 else "behind"
    yield Finding(
        "clock", "note", f"the relay's clock is {format_precisely(abs(error))} {direction} ours",
        "ages of tasks are counted by the relay's own clock; check yours",
    )  # fmt: skip


def _clock_error(answer: Answer) -> float | None:
    """Return by how many seconds the relay's clock is ahead."""
    if (date := http_date(answer.headers.get("date"))) is None:
        return None
    return date.timestamp() - (answer.received_at - answer.seconds / 2)


def compression(answers: Answers, _: Subject) -> Iterator[Finding]:
    """Find whether responses are compressed, and whether their headers say so rightly."""
    wrong = [a for a in answers.of_relay() if _is_mislabelled(a)]
    if wrong:
        yield Finding(
            "compression", "note", "Content-Encoding does not say what the body is",
            "the body is decoded by its first bytes; check the proxy in front of the relay",
        )  # fmt: skip
        return
    used = {a.headers.get("content-encoding", "") for a in answers.of_relay() if a.rows} - {""}
    if used:
        yield Finding("compression", "ok", f"responses are compressed: {', '.join(sorted(used))}")
    elif any(a.rows for a in answers.of_relay()):
        yield Finding("compression", "ok", "responses are not compressed")


def _is_mislabelled(answer: Answer) -> bool:
    """Whether a body with Content-Encoding was plain, or one without it was compressed."""
    length = answer.headers.get("content-length", "")
    if not length.isdigit() or answer.status is None or not answer.body:
        return False
    encoded = answer.headers.get("content-encoding", "identity").lower() not in ("", "identity")
    return encoded == (int(length) == len(answer.body))


def headers(answers: Answers, _: Subject) -> Iterator[Finding]:
    """Find how long the headers of responses are."""
    sizes = [
        len(f"{name}: {value}") for a in answers.of_relay() for name, value in a.headers.items()
    ]
    if not sizes:
        return
    if max(sizes) > AIOHTTP_LINE:
        yield Finding(
            "headers", "note", f"the longest header line has {max(sizes):,} bytes",
            "lines of up to 65,536 bytes are accepted; other clients and proxies may refuse them",
        )  # fmt: skip
    else:
        yield Finding("headers", "ok", f"the longest header line has {max(sizes):,} bytes")


def latency(answers: Answers, _: Subject) -> Iterator[Finding]:
    """Find how long requests take."""
    times = [a.seconds for a in answers.of_relay() if a.status is not None]
    if not times:
        return
    text = f"half of {len(times)} requests within {format_precisely(median(times))}, "
    text += f"all within {format_precisely(max(times))}"
    if median(times) < SLOW:
        yield Finding("latency", "ok", text)
        return
    yield Finding(
        "latency", "note", text, "more requests in flight keep up: set Limits(max_in_flight=8)",
        limits={"max_in_flight": 8},
    )  # fmt: skip


def request_count(answers: Answers, subject: Subject) -> Iterator[Finding]:
    """Find whether all questions were asked."""
    if len(answers) >= subject.max_requests:
        text = f"{len(answers)} requests were sent, the most that are allowed"
        yield Finding("requests", "note", text, "some questions were not asked; run it again later")
