"""Findings about the way to the relay: connection, base URL, API key."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from luma_async.diagnosis.findings import Finding, Level, Subject
from luma_async.diagnosis.questions import Answer, Answers
from luma_async.errors import QuotaError, RequestTimeout, TransportError
from luma_async.text import one_line

_PROXY = ("ClientProxyConnectionError", "ClientHttpProxyError")
_TLS = (
    "ClientConnectorCertificateError", "ClientConnectorSSLError", "ClientSSLError", "SSLError",
    "ServerFingerprintMismatch",
)  # fmt: skip
_DNS = ("ClientConnectorDNSError",)
_LONG_LINE = ("LineTooLong",)
_ENCODING = ("BadEncoding",)


def connection(answers: Answers, _: Subject) -> Iterator[Finding]:
    """Find why requests have no complete response: proxy, TLS, DNS, timeouts."""
    relay = answers.of_relay()
    failed = [a for a in relay if isinstance(a.error, TransportError)]
    if not failed:
        if relay:
            yield Finding("connection", "ok", "all requests were answered")
        return
    check, text, follows = _cause(failed[-1])
    level: Level = "trouble" if len(failed) * 2 >= len(relay) or check != "connection" else "note"
    yield Finding(check, level, f"{len(failed)} of {len(relay)} requests failed: {text}", follows)


def _cause(answer: Answer) -> tuple[str, str, str]:
    """Return the name of the check, what happened, and what to do."""
    words = str(answer.error)
    for check, names, follows in (
        ("proxy", _PROXY, "check --proxy, its user and its password"),
        ("tls", _TLS, "check the certificate of the relay, and https or http in the base URL"),
        ("dns", _DNS, "check the host name in the base URL"),
        ("headers", _LONG_LINE, "a header line is longer than 64 KiB; ask the relay's operator"),
        ("compression", _ENCODING, "the body is not what Content-Encoding says; check proxies"),
    ):
        if words.startswith(names):
            return check, words, follows
    if isinstance(answer.error, RequestTimeout):
        return "connection", words, "raise request_timeout, or ask the relay's operator"
    return "connection", words, "check the host, the port and the scheme of the base URL"


def base_url(answers: Answers, subject: Subject) -> Iterator[Finding]:
    """Find whether the base URL is right, and which one is meant."""
    first = next(iter(answers.of("get", "first")), None)
    if first is None or isinstance(first.error, TransportError):
        return
    tried = answers.of("get", "alternative")
    right = next((a.question.base_url for a in tried if a.works), None)
    if right is not None:
        yield Finding(
            "base-url", "trouble", f"{subject.base_url} is wrong: {_symptom(first)}",
            _difference(subject.base_url, right), options={"--base-url": right},
        )  # fmt: skip
    elif first.is_wrong_route and not any(a.works for a in answers.of_relay()):
        yield Finding(
            "base-url", "trouble", f"{subject.base_url} is no relay with these calls: "
            f"{_symptom(first)}", _remedy(first),
        )  # fmt: skip
    elif any(a.works for a in answers.of_relay()):
        yield Finding("base-url", "ok", f"the calls are there below {subject.base_url}")
    elif not (first.is_key_error or first.is_transient):
        yield Finding(
            "base-url", "trouble", f"{subject.base_url} answers, but not with tasks: "
            f"{_symptom(first)}", "check the base URL; if it is right, send a captured file",
        )  # fmt: skip
    if is_challenge(first):
        yield Finding(
            "firewall", "trouble", f"status {first.status} with a web page: a firewall is in "
            "front of the relay", "ask the operator to let this address and this client pass",
        )  # fmt: skip


def is_challenge(answer: Answer) -> bool:
    """Whether a web page refuses the request: a firewall, or a test for browsers."""
    return answer.status in (401, 403, 429, 503) and answer.body.lstrip().startswith(b"<")


def _symptom(answer: Answer) -> str:
    if answer.status is not None and 300 <= answer.status < 400:
        return f"status {answer.status}, a redirect to {_target(answer)}"
    if answer.body.lstrip().startswith(b"<"):
        return f"status {answer.status} with a web page"
    return one_line(str(answer.error))


def _target(answer: Answer) -> str:
    parts = urlsplit(answer.headers.get("location", "nowhere"))
    return one_line(parts._replace(query="", fragment="").geturl())


def _remedy(answer: Answer) -> str:
    if answer.status is not None and 300 <= answer.status < 400:
        return "redirects are not followed; give the URL that it names, if you trust that host"
    return "check the path of the base URL: the part before /luma"


def _difference(given: str, right: str) -> str:
    """Say what is too many or different in the base URL that was given."""
    if given.startswith(right):
        return f"{given.removeprefix(right)} is too many; give {right}"
    return f"give {right}"


def key(answers: Answers, _: Subject) -> Iterator[Finding]:
    """Find whether the API key is accepted."""
    relay = answers.of_relay()
    refused = [a for a in relay if a.is_key_error]
    if any(a.works for a in relay):
        accepted = [a for a in relay if a.works]
        if not refused:
            yield Finding("key", "ok", "the key is accepted")
        else:
            yield from _partly_refused(refused, accepted)
    elif refused:
        last = refused[-1]
        quota = isinstance(last.error, QuotaError)
        yield Finding(
            "key", "trouble", one_line(str(last.error)),
            "the quota is used up; the submitted tasks continue to run, pay and wait again" if quota
            else "the key is rejected; check the key, its group and its allowed addresses",
        )  # fmt: skip


def _partly_refused(refused: list[Answer], accepted: list[Answer]) -> Iterator[Finding]:
    calls = {a.question.call for a in refused} - {a.question.call for a in accepted}
    names = {"get": "the single call", "tasks": "the batch call"}
    if calls:
        what = names[min(calls)]
        text = f"the key is accepted, but not for {what}: {refused[-1].error}"
        follows = f"the key's group needs the right to use {what}"
    else:
        ids = {one_line(a.question.ids[0]) for a in refused}
        text = f"some requests are refused ({', '.join(sorted(ids)[:3])}): {refused[-1].error}"
        follows = "these ids belong to another account or group; waits for them are aborted"
    yield Finding("key", "trouble", one_line(text), follows)
