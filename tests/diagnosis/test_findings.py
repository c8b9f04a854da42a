"""`luma-async doctor` names what each relay does: a table of behaviours and findings."""

import asyncio
import gzip
import json
from dataclasses import replace
from typing import Any

import pytest

from luma_async.testing import FakeRelay, Reply
from luma_async.testing.types import IncomingRequest
from tests.diagnosis.examined import (
    MediaRelay,
    examine,
    first_ids,
    found,
    in_order_of_request,
    odd,
    refuses_above,
    with_headers,
    with_link,
)
from tests.odd_relays import (
    OddRelay,
    always,
    capped,
    envelope_with_status,
    kling,
    nested,
    oddities,
    on_batch,
    on_rows,
    renamed,
)

pytestmark = pytest.mark.virtual_time

ODD = {oddity.name: oddity.answer for oddity in oddities()}
PAGE = b"<html><title>Welcome</title></html>"
LONG = {"Content-Security-Policy": "x" * 9000}
SIGNED = "?X-Amz-Date=20200101T000000Z&X-Amz-Expires=3600&X-Amz-Signature=0a"


def ends(relay: FakeRelay, count: int = 30) -> list[str]:
    """Add tasks, half of them completed."""
    return [relay.add(duration=0 if number % 2 else 1000) for number in range(count)]


def row_of_other(_: OddRelay, call: str, __: tuple[str, ...], reply: Reply) -> Reply:
    plain = {
        "data": {"id": "stranger", "state": "completed", "video": {"url": "https://x.example"}}
    }
    return replace(reply, status=200, body=json.dumps(plain).encode()) if call == "get" else reply


def gzipped(label: str | None) -> Any:
    headers = {} if label is None else {"Content-Encoding": label}

    def answer(_: OddRelay, __: str, ___: tuple[str, ...], reply: Reply) -> Reply:
        body = gzip.compress(reply.body)
        return replace(reply, body=body, headers={**reply.headers, **headers})

    return answer


def no_call(status: int, call: str) -> Any:
    return always(status, {"message": "method not allowed"}, call=call)


TABLE: list[tuple[str, Any, str, str]] = [
    ("honest", None, "batch-envelope", "ok: the batch call: an array of tasks, without"),
    ("honest", None, "order", "ok: rows come in an order of the relay's own"),
    ("honest", None, "names", "ok: ids come back as they were sent"),
    ("honest", None, "batch-unknown-id", "ok: an unknown id is answered by []"),
    ("honest", None, "single-unknown-id", "ok: an unknown id is answered with status 400"),
    ("honest", None, "clock", "ok: the relay's clock agrees"),
    ("10 rows at most", capped(10).answer, "rows", "note: of 30 ids a batch has 10 rows"),
    ("page", ODD["a batch is a page of 20 rows"], "rows",
     "note: of 30 ids a batch has 20 rows, and the omitted ones come alone: it is a page"),
    ("ended only", ODD["a batch has finished tasks alone"], "rows",
     "note: of 30 ids a batch has 15 rows, all of them ended"),
    ("strangers only", ODD["a batch has strangers alone"], "other-tasks",
     "note: batches contain 20 tasks that were not asked about"),
    ("another's row", row_of_other, "other-tasks", "trouble: the single call answers about"),
    ("upper case", on_rows(renamed), "names", "note: ids come back in another case"),
    ("other order", in_order_of_request, "order", "ok: rows come in the order of the request"),
    ("three envelopes", on_rows(nested(3)), "single-envelope",
     "ok: the single call: a task in {code, message, data} > {code, message, data} >"),
    ("Kling", on_rows(kling), "single-envelope",
     "ok: the single call: a task in {code, message, request_id, data}"),
    ("envelope with id", on_batch(envelope_with_status), "batch-envelope",
     "ok: the batch call: an array of tasks in {id, status, data}"),
    ("unknown word", on_rows(lambda row: {**row, "state": "sublimating"}), "states", "note: the"),
    ("413 above 40", refuses_above(40, 413), "batch-size", "note: a request may have 40 ids"),
    ("400 above 7", refuses_above(7, 400), "batch-size", "note: a request may have 7 ids"),
    ("reads 20 ids", first_ids(20), "batch-size", "note: a request may have 20 ids, not 21: the"),
    ("no batch call", no_call(405, "tasks"), "batch-call", "note: there is no batch call"),
    ("no single call", no_call(405, "get"), "single-call", "note: there is no single call"),
    ("key lacks batch", always(403, {"message": "无权访问"}, call="tasks"), "key",
     "trouble: the key is accepted, but not for the batch call"),
    ("quota", always(401, {"error": {"message": "该令牌额度已用尽"}}), "key",
     "trouble: status 401"),
    ("bare 404", always(404, {"detail": "Not Found"}, call="get"), "single-call", "note: there"),
    ("429", always(429, b""), "rate", "note: "),
    ("503", always(503, {"message": "busy"}, call="tasks"), "relay-errors", "note: "),
    ("HTML", always(200, PAGE), "base-url", "trouble: "),
    ("challenge", always(403, PAGE), "firewall", "trouble: status 403 with a web page"),
    ("rate headers", with_headers({"X-RateLimit-Remaining": "7"}), "rate-headers",
     "note: x-ratelimit-remaining: 7"),
    ("clock", with_headers({"Date": "Sun, 01 Jan 2023 00:00:00 GMT"}), "clock",
     "note: the relay's clock is"),
    ("long line", with_headers(LONG), "headers", "note: the longest header line has 9,0"),
    ("gzip", gzipped("gzip"), "compression", "ok: responses are compressed: gzip"),
    ("gzip, no label", gzipped(None), "compression", "note: Content-Encoding does not say"),
    ("plain as gzip", with_headers({"Content-Encoding": "gzip"}), "compression",
     "note: Content-Encoding does not say"),
    ("private link", with_link(lambda _: "http://10.0.0.7/a.mp4"), "link",
     "trouble: the link does not answer: the link leads to a private address"),
    ("expired", with_link(lambda url: url + SIGNED), "link-expiry", "note: the link expired"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "answer", "check", "expected"), TABLE, ids=[f"{row[0]}: {row[2]}" for row in TABLE]
)
async def test_each_behaviour_is_named(name: str, answer: Any, check: str, expected: str) -> None:
    relay = FakeRelay() if answer is None else odd(answer)
    async with relay:
        diagnosis = await examine(relay, ends(relay))
    assert found(diagnosis, check).startswith(expected), diagnosis.findings
    assert relay.requests + len(relay.media_log) <= diagnosis.requests <= 40


async def test_an_honest_relay_has_no_trouble_and_the_default_settings_fit() -> None:
    for envelope in ("bare", "wrapped"):
        async with FakeRelay(envelope=envelope) as relay:
            diagnosis = await examine(relay, ends(relay))
        assert {f.level for f in diagnosis.findings} == {"ok"}, diagnosis.findings
        assert (diagnosis.python, diagnosis.command_line) == ("", "")


async def test_the_rows_of_the_relays_own_table_are_named() -> None:
    async with FakeRelay(envelope="wrapped") as relay:
        diagnosis = await examine(relay, ends(relay, 4))
    assert "rows of the relay's own table in {code" in found(diagnosis, "batch-envelope")


async def test_settings_that_follow_are_printed_to_copy() -> None:
    async with odd(capped(10).answer) as relay:
        diagnosis = await examine(relay, ends(relay))
    assert diagnosis.python == "limits=Limits(max_batch=10)"
    assert diagnosis.command_line == "--max-batch 10"
    assert not diagnosis.has_trouble


@pytest.mark.parametrize("too_many", ["/v1", "/luma", "/v1/luma", "/luma/generations"])
async def test_a_wrong_base_url_is_corrected(too_many: str) -> None:
    async with FakeRelay() as relay:
        diagnosis = await examine(relay, base_url=relay.url + too_many)
        right = relay.url
    assert found(diagnosis, "base-url").startswith("trouble: ")
    assert diagnosis.command_line == f"--base-url {right}"
    follows = next(f.follows for f in diagnosis.findings if f.check == "base-url")
    assert follows == f"{too_many} is too many; give {right}"


async def test_a_redirect_to_another_host_is_named_and_not_followed() -> None:
    async with FakeRelay() as relay:
        headers = {"Location": "https://other.example/luma/generations/x?token=secret"}
        relay.reply(*[Reply(308, headers=headers)] * 2)
        diagnosis = await examine(relay)
    text = found(diagnosis, "base-url")
    assert "a redirect to https://other.example/luma/generations/x" in text
    assert "secret" not in text
    assert relay.requests == 2


async def test_a_redirect_to_another_path_of_the_host_is_tried() -> None:
    async with FakeRelay(path_prefix="/pro") as relay:
        task_id = relay.add()
        target = f"{relay.url}/luma/generations/{task_id}"
        relay.reply(Reply(301, headers={"Location": target}), Reply(301, headers={}))
        diagnosis = await examine(relay, [task_id], base_url=relay.url.removesuffix("/pro"))
    assert diagnosis.command_line == f"--base-url {relay.url}"


async def test_a_rejected_key_is_trouble_after_two_requests() -> None:
    async with FakeRelay() as relay:
        diagnosis = await examine(relay, ends(relay), key="sk-wrong-key")
    assert found(diagnosis, "key").startswith("trouble: status 401")
    assert diagnosis.requests == 2
    assert "sk-wrong-key" not in json.dumps(diagnosis.plain())


async def test_https_to_a_plain_port_is_tls_trouble() -> None:
    async with FakeRelay() as relay:
        diagnosis = await examine(relay, base_url=relay.url.replace("http:", "https:"))
    assert found(diagnosis, "tls").startswith("trouble: ")


async def test_a_refused_connection_is_trouble() -> None:
    async with FakeRelay() as relay:
        url = relay.url
    diagnosis = await examine(relay, base_url=url)
    assert found(diagnosis, "connection").startswith("trouble: 6 of 6 requests failed")


async def test_a_proxy_that_refuses_is_named_without_its_password() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, FakeRelay() as relay:
        port = server.sockets[0].getsockname()[1]
        proxy = f"http://user:pass-word@127.0.0.1:{port}"
        diagnosis = await examine(relay, base_url=relay.url.replace("http:", "https:"), proxy=proxy)
    assert found(diagnosis, "proxy").startswith("trouble: ")
    assert "pass-word" not in json.dumps(diagnosis.plain())


async def test_files_that_want_the_key_are_trouble() -> None:
    def media(request: IncomingRequest, reply: Reply) -> Reply:
        return reply if "Authorization" in request.headers else Reply(401)

    async with MediaRelay(media) as relay:
        diagnosis = await examine(relay, [relay.add()])
    assert found(diagnosis, "link-key").startswith("trouble: the link wants the key")


@pytest.mark.parametrize(
    ("reply", "check", "expected"),
    [
        (Reply(403), "link", "trouble: the link answers with status 403"),
        (Reply(200, b"no", {"Content-Type": "text/html"}), "link", "trouble: the link answers"),
        (Reply(200, b"no", {"Content-Type": "video/mp4"}), "range", "note: ranges are ignored"),
        (Reply(200, b"no", {"Content-Type": "video/mp4"}), "etag", "note: the link has neither"),
        (Reply(405), "link", "trouble: "),
    ],
)
async def test_what_a_link_does_is_named(reply: Reply, check: str, expected: str) -> None:
    async with MediaRelay(lambda _request, _reply: reply) as relay:
        diagnosis = await examine(relay, [relay.add()])
    assert found(diagnosis, check).startswith(expected), diagnosis.findings


async def test_head_that_is_refused_is_a_note() -> None:
    async with MediaRelay(lambda q, reply: Reply(405) if q.method == "HEAD" else reply) as relay:
        diagnosis = await examine(relay, [relay.add()])
    assert found(diagnosis, "link-head").startswith("note: HEAD is answered with 405")
    assert found(diagnosis, "link").startswith("ok: ")


async def test_requests_keep_the_rate_and_obey_retry_after() -> None:
    loop = asyncio.get_running_loop()
    async with FakeRelay() as relay:
        relay.reply(Reply(429, headers={"Retry-After": "20"}))
        begun = loop.time()
        await examine(relay, ends(relay), max_rate=2.0)
        assert relay.busiest_second() <= 2
        assert relay.log[1].at - begun >= 20.0


async def test_a_long_retry_after_ends_the_examination() -> None:
    async with FakeRelay() as relay:
        relay.reply(Reply(429, headers={"Retry-After": "3600"}))
        diagnosis = await examine(relay, ends(relay))
    assert diagnosis.requests == 1
    assert "with Retry-After 60 min" in found(diagnosis, "rate")
