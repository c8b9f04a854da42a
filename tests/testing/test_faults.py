"""The faults of a FakeRelay: what a client sees, how often, and what the log contains."""

import asyncio
import gzip
import json
import random
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest

from luma_async import DecodeError, LumaSession, State
from luma_async.testing import FAULTS, Asked, Breakage, FakeRelay, Fault, Reply
from luma_async.testing.faults import choose_fault
from luma_async.testing.simulation import ENVELOPES, Envelope
from luma_async.testing.types import BREAKAGES
from tests.docs_blocks import blocks

_BODY = json.dumps([{"id": str(number), "state": "pending"} for number in range(20)]).encode()
_WITHOUT_STATUS = ("reset", "half_closed", "black_hole", "garbage")
_AUTHORIZED = {"Authorization": "Bearer sk-fake"}
_STORM = {408, 500, 502, 503, 504}

pytestmark = pytest.mark.virtual_time


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Check that aiohttp and asyncio log nothing, except that a callback was slow."""
    yield
    records = caplog.get_records("call")
    records = [record for record in records if record.name.startswith(("aiohttp", "asyncio"))]
    assert [record for record in records if not record.msg.startswith("Executing")] == []


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(headers=_AUTHORIZED, timeout=timeout) as http:
        yield http


async def batch(relay: FakeRelay, http: aiohttp.ClientSession, *ids: str) -> Any:
    async with http.post(f"{relay.url}/luma/tasks", json={"ids": ids}) as response:
        return json.loads(await response.read())


async def single(relay: FakeRelay, http: aiohttp.ClientSession, task_id: str) -> Any:
    async with http.get(f"{relay.url}/luma/generations/{task_id}") as response:
        return json.loads(await response.read())


@asynccontextmanager
async def raw_request(relay: FakeRelay) -> AsyncGenerator[asyncio.StreamReader]:
    """Send a request over a bare socket; yield the reader of the response."""
    reader, writer = await _opened(relay)
    try:
        yield reader
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def _opened(relay: FakeRelay) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(relay.url.rpartition(":")[2]))
    writer.write(b"GET /luma/generations/x HTTP/1.1\r\nHost: x\r\n\r\n")
    return reader, writer


async def _head_and_body(reader: asyncio.StreamReader) -> tuple[list[str], bytes]:
    head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
    return head.decode().split("\r\n"), body


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_reset_resets_the_connection_without_a_byte(relay: FakeRelay) -> None:
    relay.reply(Reply(breakage="reset"))
    async with raw_request(relay) as reader:
        with pytest.raises(ConnectionResetError):
            await reader.read()


async def test_half_closed_ends_without_a_byte_and_the_relay_continues_to_read(
    relay: FakeRelay,
) -> None:
    relay.reply(Reply(breakage="half_closed"))
    reader, writer = await _opened(relay)
    assert await reader.read() == b""
    for _ in range(3):
        await asyncio.sleep(60)
        writer.write(b"still here")
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def test_truncated_announces_the_body_and_sends_half_of_it(relay: FakeRelay) -> None:
    relay.reply(Reply(body=_BODY, breakage="truncated"))
    async with raw_request(relay) as reader:
        head, body = await _head_and_body(reader)
    assert head[0] == "HTTP/1.1 200 OK"
    assert {"Content-Type: application/json", f"Content-Length: {len(_BODY)}"} <= set(head)
    assert body == _BODY[: len(_BODY) // 2]


async def test_truncated_is_a_payload_error_to_aiohttp(
    relay: FakeRelay, http: aiohttp.ClientSession
) -> None:
    relay.reply(Reply(body=_BODY, breakage="truncated"))
    with pytest.raises(aiohttp.ClientPayloadError):
        await batch(relay, http)


async def test_drip_sends_the_body_with_one_byte_every_five_seconds(
    relay: FakeRelay,
) -> None:
    relay.reply(Reply(body=_BODY, breakage="drip"))
    async with raw_request(relay) as reader:
        head = await reader.readuntil(b"\r\n\r\n")
        assert f"Content-Length: {len(_BODY)}".encode() in head
        body, times = bytearray(), list[float]()
        while byte := await reader.read(2):
            body += byte
            times.append(now())
    assert body == _BODY
    assert times == [5.0 * number for number in range(len(_BODY))]


@pytest.mark.parametrize("body", [b"", b"[]", _BODY])
async def test_a_client_with_a_timeout_of_30_s_never_gets_a_whole_drip(
    relay: FakeRelay, http: aiohttp.ClientSession, body: bytes
) -> None:
    relay.reply(Reply(body=body, breakage="drip"))
    async with http.post(relay.url) as response:
        assert response.status == 200
        with pytest.raises(TimeoutError):
            await response.read()


async def test_a_black_hole_sends_nothing_and_ends_when_its_client_disconnects(
    relay: FakeRelay,
) -> None:
    relay.reply(Reply(breakage="black_hole"))
    async with raw_request(relay) as reader:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(86_400):
                await reader.read(1)
    await asyncio.sleep(1)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_garbage_is_not_http_and_closes_the_connection(relay: FakeRelay) -> None:
    relay.reply(Reply(breakage="garbage"))
    async with raw_request(relay) as reader:
        received = await reader.read()
    assert received
    assert not received.startswith(b"HTTP")


async def test_garbage_is_a_response_error_to_aiohttp(
    relay: FakeRelay, http: aiohttp.ClientSession
) -> None:
    relay.reply(Reply(breakage="garbage"))
    with pytest.raises(aiohttp.ClientResponseError):
        await batch(relay, http)


@pytest.mark.parametrize("body", [b"[]", _BODY])
async def test_wrong_length_cuts_the_json_and_sends_the_rest_behind_it(
    relay: FakeRelay, body: bytes
) -> None:
    relay.reply(Reply(body=body, breakage="wrong_length"))
    async with raw_request(relay) as reader:
        head, body_sent = await _head_and_body(reader)
    (length,) = [line for line in head if line.startswith("Content-Length")]
    cut = body_sent[: int(length.split()[1])]
    assert body_sent.lstrip() == body
    assert len(cut) < len(body_sent)
    with pytest.raises(ValueError, match="Expecting|Unterminated"):
        json.loads(cut)


async def test_a_gzip_bomb_is_small_until_it_is_decompressed(relay: FakeRelay) -> None:
    relay.reply(Reply(status=503, breakage="gzip_bomb"))
    async with aiohttp.ClientSession(auto_decompress=False) as http:
        async with http.get(relay.url) as response:
            body = await response.read()
    assert (response.status, response.content_type) == (200, "application/json")
    assert response.headers["Content-Encoding"] == "gzip"
    assert len(body) < 2**15
    assert gzip.decompress(body) == b" " * 2**24


async def test_no_session_reads_a_gzip_bomb_to_its_end(relay: FakeRelay, luma: LumaSession) -> None:
    relay.faults = {"gzip_bomb": 1.0}
    with pytest.raises(DecodeError, match="longer than 8388608 bytes"):
        await luma.get(relay.add())


async def test_a_breakage_comes_after_the_delay(relay: FakeRelay) -> None:
    relay.reply(Reply(breakage="garbage", delay=7.0))
    async with raw_request(relay) as reader:
        await reader.read()
    assert now() == 7.0


async def test_storm_has_five_statuses_and_bodies_of_relays_and_proxies(
    relay: FakeRelay, http: aiohttp.ClientSession
) -> None:
    relay.faults = {"storm": 1.0}
    seen: Counter[int] = Counter()
    for _ in range(100):
        async with http.post(f"{relay.url}/luma/tasks", json={"ids": ["x"]}) as response:
            text = await response.text()
        if response.content_type == "text/html":
            assert f"<h1>{response.status} " in text
        else:
            assert str(response.status) in json.loads(text)["error"]["message"]
        seen[response.status] += 1
        seen[len(response.content_type)] += 1
    assert set(seen) == _STORM | {len("text/html"), len("application/json")}


async def test_throttled_has_a_retry_after(relay: FakeRelay, http: aiohttp.ClientSession) -> None:
    relay.faults = {"throttled": 1.0}
    async with http.post(f"{relay.url}/luma/tasks", json={"ids": ["x"]}) as response:
        assert (response.status, response.headers["Retry-After"]) == (429, "1")
        assert (await response.json())["message"]


async def test_latency_is_1_to_10_s_and_the_states_are_those_at_the_arrival(
    relay: FakeRelay, http: aiohttp.ClientSession
) -> None:
    relay.faults = {"latency": 1.0}
    late: list[float] = []
    for _ in range(20):
        asked_at, task_id = now(), relay.add(duration=1)
        assert (await single(relay, http, task_id))["state"] == "processing"
        late.append(now() - asked_at)
    assert 1 <= min(late) < 3 < 8 < max(late) <= 10


async def test_latency_is_added_to_that_of_the_relay(http: aiohttp.ClientSession) -> None:
    async with FakeRelay(latency=15.0, faults={"latency": 1.0}) as relay:
        await single(relay, http, relay.add())
    assert 16 <= now() <= 25.1


@pytest.mark.parametrize("envelope", ENVELOPES)
@pytest.mark.parametrize("known", [True, False])
async def test_not_json_is_a_complete_response_with_half_of_the_json(
    http: aiohttp.ClientSession, envelope: Envelope, known: bool
) -> None:
    async with FakeRelay(envelope=envelope, faults={"not_json": 1.0}) as relay:
        ids = [relay.add() if known else "unknown"]
        async with http.post(f"{relay.url}/luma/tasks", json={"ids": ids}) as response:
            batch_body = await response.read()
        async with http.get(f"{relay.url}/luma/generations/{ids[0]}") as other:
            single_body = await other.read()
    assert (response.status, other.status) == (200, 200)
    for body in (batch_body, single_body):
        with pytest.raises(ValueError, match="Expecting|Unterminated"):
            json.loads(body)


async def test_a_stale_batch_leaves_out_about_half(
    relay: FakeRelay, http: aiohttp.ClientSession
) -> None:
    relay.faults = {"stale": 1.0}
    ids = [relay.add() for _ in range(400)]
    tasks = [each["id"] for each in await batch(relay, http, *ids)]
    assert 150 < len(tasks) < 250
    assert tasks == [task_id for task_id in ids if task_id in tasks]


@pytest.mark.parametrize("envelope", ENVELOPES)
async def test_a_stale_batch_may_be_empty(http: aiohttp.ClientSession, envelope: Envelope) -> None:
    async with FakeRelay(envelope=envelope, faults={"stale": 1.0}) as relay:
        task_id = relay.add()
        responses = [await batch(relay, http, task_id) for _ in range(20)]
    empty: Any = {"code": "success", "message": "", "data": None} if envelope == "wrapped" else []
    assert 0 < responses.count(empty) < 20


async def test_stale_makes_the_task_of_a_single_get_unknown(
    relay: FakeRelay, http: aiohttp.ClientSession
) -> None:
    relay.faults = {"stale": 1.0}
    assert (await single(relay, http, relay.add()))["code"] == "task_not_exist"
    assert relay.log[0].status == 400


@pytest.mark.parametrize("envelope", ENVELOPES)
async def test_strangers_come_first_and_the_others_in_reverse_with_one_twice(
    http: aiohttp.ClientSession, envelope: Envelope
) -> None:
    async with FakeRelay(envelope=envelope, faults={"strangers": 1.0}) as relay:
        ids = [relay.add() for _ in range(3)]
        response = await batch(relay, http, *ids)
    rows = response if envelope == "bare" else [row["data"] for row in response["data"]]
    stranger, *others = [row["id"] for row in rows]
    assert stranger not in ids
    assert others == [ids[2], ids[2], ids[1], ids[0]]


async def test_strangers_come_even_for_unknown_ids_and_not_in_single_gets(
    relay: FakeRelay, http: aiohttp.ClientSession
) -> None:
    relay.faults = {"strangers": 1.0}
    task_id = relay.add()
    assert len(await batch(relay, http, "unknown")) == 1
    assert (await single(relay, http, task_id))["id"] == task_id


@pytest.mark.parametrize("fault", ["stale", "strangers"])
async def test_a_wrong_key_gets_no_task_from_a_fault(relay: FakeRelay, fault: Fault) -> None:
    relay.faults = {fault: 1.0}
    async with aiohttp.ClientSession() as http:
        response = await batch(relay, http, relay.add())
    assert set(response) == {"error"}
    assert (relay.log[0].status, relay.log[0].fault) == (401, fault)


async def test_a_request_with_a_wrong_key_meets_faults_too(relay: FakeRelay) -> None:
    relay.faults = {"throttled": 1.0}
    async with aiohttp.ClientSession() as http:
        await single(relay, http, "x")
    assert relay.log[0].status == 429


async def test_unknown_routes_meet_no_fault(relay: FakeRelay, http: aiohttp.ClientSession) -> None:
    relay.faults = {"throttled": 1.0}
    async with http.get(f"{relay.url}/luma/tasks") as response:
        assert response.status == 404
    assert relay.log[0].fault is None


async def test_scripted_replies_come_first_and_meet_no_fault(
    relay: FakeRelay, http: aiohttp.ClientSession
) -> None:
    relay.faults = {"throttled": 1.0}
    relay.reply(Reply(body=b"[1]"), Reply(body=b"[2]"))
    assert [await batch(relay, http) for _ in range(2)] == [[1], [2]]
    await batch(relay, http)
    assert [(asked.status, asked.fault) for asked in relay.log] == [
        (200, None),
        (200, None),
        (429, "throttled"),
    ]


async def test_faults_are_switched_on_and_off_while_the_relay_runs(
    relay: FakeRelay, http: aiohttp.ClientSession
) -> None:
    on: dict[Fault, float] = {"throttled": 1.0}
    for faults in (None, on, {}, on, None):
        relay.faults = faults
        await batch(relay, http)
    assert [asked.status for asked in relay.log] == [200, 429, 200, 429, 200]


@pytest.mark.parametrize("breakage", BREAKAGES)
@pytest.mark.parametrize("scripted", [True, False])
async def test_the_log_has_the_breakage_and_the_status_if_one_was_sent(
    relay: FakeRelay, http: aiohttp.ClientSession, breakage: Breakage, scripted: bool
) -> None:
    relay.faults = {} if scripted else {breakage: 1.0}
    relay.reply(*[Reply(breakage=breakage)] * scripted)
    with suppress(aiohttp.ClientError, TimeoutError, ValueError):
        await batch(relay, http)
    status = None if breakage in _WITHOUT_STATUS else 200
    assert relay.log == [Asked(0.0, "POST", "/luma/tasks", (), status, breakage)]


async def test_the_log_has_the_fault_before_the_response(relay: FakeRelay) -> None:
    relay.faults = {"latency": 1.0}
    async with raw_request(relay):
        await asyncio.sleep(0.5)
        assert [(asked.status, asked.fault) for asked in relay.log] == [(None, "latency")]


def test_each_fault_has_its_probability() -> None:
    rates: dict[Fault, float] = {"reset": 0.3, "storm": 0.1, "stale": 0.05, "drip": 0.0}
    rng = random.Random(1)
    seen = Counter(choose_fault(rates, rng.random()) for _ in range(2000))
    assert set(seen) == {"reset", "storm", "stale", None}
    for fault in ("reset", "storm", "stale"):
        assert abs(seen[fault] / 2000 - rates[fault]) < 0.025


def test_probability_1_is_always_and_probability_0_is_never() -> None:
    assert (
        choose_fault({"reset": 1.0}, 0.0) == choose_fault({"reset": 1.0}, 1.0 - 2**-53) == "reset"
    )
    assert choose_fault({"drip": 0.0, "reset": 1.0}, 0.0) == "reset"
    assert choose_fault({"reset": 0.5}, 0.5) is None


async def test_the_same_seed_gives_the_same_faults(
    http: aiohttp.ClientSession,
) -> None:
    faults: dict[Fault, float] = {"storm": 0.3, "throttled": 0.3, "not_json": 0.3}

    async def faults_met(seed: int) -> list[tuple[Fault | None, int | None]]:
        async with FakeRelay(seed=seed, faults=faults) as relay:
            for _ in range(40):
                with suppress(ValueError):
                    await batch(relay, http, "x")
            return [(asked.fault, asked.status) for asked in relay.log]

    assert await faults_met(7) == await faults_met(7) != await faults_met(8)


async def test_faults_do_not_change_the_ids_that_are_created(
    relay: FakeRelay, http: aiohttp.ClientSession
) -> None:
    async with FakeRelay(faults={"storm": 0.5, "stale": 0.5}) as faulty:
        ids: list[str] = []
        for _ in range(5):
            ids.append(faulty.add())
            with suppress(ValueError):
                await batch(faulty, http, *ids)
    assert ids == [relay.add() for _ in range(5)]


@pytest.mark.parametrize(
    ("faults", "error"),
    [
        ({"rest": 0.1}, ValueError),
        ({1: 0.1}, ValueError),
        ({"reset": -0.1}, ValueError),
        ({"reset": 1.1}, ValueError),
        ({"reset": float("nan")}, ValueError),
        ({"reset": 0.6, "drip": 0.5}, ValueError),
        ({"reset": "0.1"}, TypeError),
        ({"reset": True}, TypeError),
        ({"reset": None}, TypeError),
        (["reset"], TypeError),
        (0.1, TypeError),
    ],
)
def test_invalid_faults_are_refused_and_the_old_ones_stay(
    faults: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match=r"[:;] give "):
        FakeRelay(faults=faults)
    relay = FakeRelay(faults={"storm": 0.2})
    with pytest.raises(error, match=r"[:;] give "):
        relay.faults = faults
    assert relay.faults == {"storm": 0.2}


def test_all_faults_may_have_equal_probabilities() -> None:
    faults = dict.fromkeys(FAULTS, 1 / len(FAULTS))
    assert FakeRelay(faults=faults).faults == faults


def test_the_faults_cannot_be_changed_one_by_one() -> None:
    given: dict[Fault, float] = {"storm": 0.2}
    relay = FakeRelay(faults=given)
    shown: Any = relay.faults
    with pytest.raises(TypeError):
        shown["storm"] = 0.3
    given["storm"] = 0.4
    assert relay.faults == {"storm": 0.2}


@pytest.mark.parametrize("breakage", ["storm", "", 1, True])
def test_an_unknown_breakage_is_refused(breakage: Any) -> None:
    with pytest.raises(ValueError, match=r": give None or one of reset, "):
        Reply(breakage=breakage)


async def test_close_does_not_wait_for_drips_and_black_holes(relay: FakeRelay) -> None:
    relay.reply(*[Reply(body=_BODY, breakage=each) for each in ("drip", "black_hole")] * 5)
    async with asyncio.TaskGroup() as clients:
        for _ in range(10):
            clients.create_task(_read_to_the_end(relay))
        await asyncio.sleep(12)
        await relay.close()
    assert now() < 13
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def _read_to_the_end(relay: FakeRelay) -> bytes:
    async with raw_request(relay) as reader:
        return await reader.read()


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_close_leaves_no_task_in_real_time_either(breakage: Breakage) -> None:
    async def ask_and_close() -> set["asyncio.Task[Any]"]:
        async with FakeRelay(faults={breakage: 1.0}) as relay:
            client = asyncio.create_task(_read_to_the_end(relay))
            while not relay.requests:  # noqa: ASYNC110 - there is no event for an arrival
                await asyncio.sleep(0.001)
        with suppress(ConnectionResetError):
            await client
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert asyncio.run(ask_and_close()) == set()


@pytest.mark.parametrize("breakage", BREAKAGES)
@pytest.mark.parametrize("tasks", [1, 3])
async def test_a_wait_survives_each_breakage_three_times_in_a_row(
    relay: FakeRelay, luma: LumaSession, breakage: Breakage, tasks: int
) -> None:
    ids = [relay.add(duration=20) for _ in range(tasks)]
    relay.reply(*[Reply(body=_BODY, breakage=breakage)] * 3)
    done = await luma.wait_until_done(ids)
    assert [done[task_id].state for task_id in ids] == [State.COMPLETED] * tasks
    assert [asked.fault for asked in relay.log[:4]] == [breakage] * 3 + [None]


async def test_the_example_with_faults_on_the_testing_page_passes() -> None:
    names: dict[str, Any] = {}
    exec(blocks("docs/testing.md", "python")[-1], names)
    await names["test_a_wait_survives_the_faults_of_a_relay"]()
