"""FakeRelay: states over time, bodies, routes, scripted replies, log and arguments."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest

from luma_async.testing import Asked, FakeRelay, Reply

_DATA = Path(__file__).parent.parent / "data"
_KEY = "Bearer sk-fake"

pytestmark = pytest.mark.virtual_time


class Client:
    """Sends requests to a relay with bare aiohttp."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http

    async def ask(
        self, method: str, url: str, body: bytes | None = None, key: str = _KEY
    ) -> tuple[int, str, bytes]:
        """Send a request; return status, content type as sent ("" for none) and body."""
        headers = {"Authorization": key}
        async with self._http.request(method, url, data=body, headers=headers) as response:
            content_type = response.headers.get("Content-Type", "")
            return response.status, content_type, await response.read()

    async def get(self, relay: FakeRelay, task_id: str) -> Any:
        """Send the single GET."""
        _, _, body = await self.ask("GET", f"{relay.url}/luma/generations/{task_id}")
        return json.loads(body)

    async def tasks(self, relay: FakeRelay, *ids: str) -> Any:
        """Send the batch POST."""
        _, _, body = await self.ask("POST", f"{relay.url}/luma/tasks", _batch(*ids))
        return json.loads(body)


def _batch(*ids: str) -> bytes:
    return json.dumps({"ids": ids}).encode()


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with aiohttp.ClientSession(skip_auto_headers=["Content-Type"]) as http:
        yield Client(http)


@pytest.fixture
async def wrapped() -> AsyncIterator[FakeRelay]:
    async with FakeRelay(envelope="wrapped") as relay:
        yield relay


async def _until(second: float) -> None:
    await asyncio.sleep(second - asyncio.get_running_loop().time())


async def test_a_task_is_pending_then_processing_then_completed(
    relay: FakeRelay, client: Client
) -> None:
    task_id = relay.add(queued=10, duration=60)
    seen: list[str] = []
    for second in (0, 9.5, 10, 59.5, 60):
        await _until(second)
        seen.append((await client.get(relay, task_id))["state"])
    assert seen == ["pending", "pending", "processing", "processing", "completed"]


async def test_a_failed_task_has_its_reason(relay: FakeRelay, client: Client) -> None:
    task_id = relay.add(ends="failed", failure_reason="no cats")
    task = await client.get(relay, task_id)
    assert (task["state"], task["failure_reason"]) == ("failed", "no cats")


async def test_a_task_that_never_ends_is_processing_a_year_later(
    relay: FakeRelay, client: Client
) -> None:
    task_id = relay.add(ends="never")
    await asyncio.sleep(365 * 86_400)
    assert (await client.get(relay, task_id))["state"] == "processing"
    assert relay.tasks[task_id].ends_at is None


async def test_the_link_comes_link_after_seconds_later(relay: FakeRelay, client: Client) -> None:
    task_id = relay.add(duration=5, link_after=20)
    await _until(5)
    early = await client.get(relay, task_id)
    await _until(25)
    late = await client.get(relay, task_id)
    assert (early["state"], early["video"]["url"], early["video_raw"]) == ("completed", "", None)
    assert task_id in late["video"]["download_url"]


async def test_a_task_is_unknown_before_it_is_visible(relay: FakeRelay, client: Client) -> None:
    task_id = relay.add(duration=60, visible_after=3)
    assert await client.tasks(relay, task_id) == []
    assert (await client.get(relay, task_id))["code"] == "task_not_exist"
    await _until(3)
    assert (await client.get(relay, task_id))["state"] == "processing"


async def test_finish_completes_or_fails_a_task_now(relay: FakeRelay, client: Client) -> None:
    task_id = relay.add(ends="never", queued=60)
    await asyncio.sleep(7)
    relay.finish(task_id, "failed")
    assert (await client.get(relay, task_id))["state"] == "failed"
    assert relay.tasks[task_id].ends_at == 7.0
    with pytest.raises(ValueError, match=r"failed already"):
        relay.finish(task_id)


async def test_a_forgotten_task_is_unknown_and_its_id_can_be_used_again(
    relay: FakeRelay, client: Client
) -> None:
    task_id = relay.add("x")
    assert (await client.get(relay, task_id))["state"] == "completed"
    relay.forget(task_id)
    assert await client.tasks(relay, task_id) == []
    relay.add("x", ends="failed")
    assert (await client.get(relay, task_id))["state"] == "failed"


async def test_the_single_get_has_the_published_fields(relay: FakeRelay, client: Client) -> None:
    task = await client.get(relay, relay.add())
    assert _kinds(task) == _kinds(json.loads((_DATA / "get-completed.json").read_text()))


async def test_the_batch_post_has_the_published_fields(relay: FakeRelay, client: Client) -> None:
    response = await client.tasks(relay, relay.add())
    assert _kinds(response) == _kinds(json.loads((_DATA / "tasks-completed.json").read_text()))


def _kinds(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _kinds(each) for key, each in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_kinds(each) for each in cast("Sequence[Any]", value)]
    return type(value).__name__


async def test_a_table_row_has_an_integer_id(wrapped: FakeRelay, client: Client) -> None:
    task_id = wrapped.add(queued=5, duration=60)
    response = await client.tasks(wrapped, task_id)
    (row,) = response["data"]
    assert response["code"] == "success"
    assert type(row["id"]) is int
    assert (row["task_id"], row["data"]["id"]) == (task_id, task_id)


async def test_a_table_row_has_unix_seconds_and_0_for_not_yet(
    wrapped: FakeRelay, client: Client
) -> None:
    task_id = wrapped.add(queued=5, duration=60)
    rows: list[Any] = []
    for second in (0, 5, 60):
        await _until(second)
        rows.append((await client.get(wrapped, task_id))["data"])
    assert [row["status"] for row in rows[1:]] == ["IN_PROGRESS", "SUCCESS"]
    assert rows[0]["status"] in ("NOT_START", "SUBMITTED", "QUEUED")
    assert [row["finish_time"] for row in rows[:2]] == [0, 0]
    assert rows[2]["finish_time"] - rows[2]["submit_time"] == 60
    assert rows[0]["start_time"] == 0
    assert rows[1]["start_time"] - rows[1]["submit_time"] == 5


async def test_a_failed_row_has_its_reason(wrapped: FakeRelay, client: Client) -> None:
    row = (await client.get(wrapped, wrapped.add(ends="failed")))["data"]
    assert (row["status"], row["fail_reason"]) == ("FAILURE", "Advanced moderation failed")


async def test_created_at_is_a_time_of_today(relay: FakeRelay, client: Client) -> None:
    task = await client.get(relay, relay.add(ends="never"))
    created = datetime.fromisoformat(task["created_at"])
    assert abs((datetime.now(created.tzinfo) - created).total_seconds()) < 60


async def test_unknown_ids_are_left_out_of_a_batch(relay: FakeRelay, client: Client) -> None:
    task_id = relay.add()
    response = await client.tasks(relay, "unknown", task_id)
    assert [each["id"] for each in response] == [task_id]


async def test_a_batch_of_unknown_ids_is_null_in_the_envelope(
    wrapped: FakeRelay, client: Client
) -> None:
    response = await client.tasks(wrapped, "unknown")
    assert response == {"code": "success", "message": "", "data": None}


async def test_a_batch_is_in_order_of_submission_with_each_task_once(
    relay: FakeRelay, client: Client
) -> None:
    first, second = relay.add("z"), relay.add("a")
    response = await client.tasks(relay, second, first, second)
    assert [each["id"] for each in response] == [first, second]


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b'{"ids":"x"}', b'{"ids":[1]}', b'{"ids":["\xff"]}', b'{"ids":null}'],
)
async def test_a_batch_without_a_list_of_texts_is_refused(
    relay: FakeRelay, client: Client, body: bytes
) -> None:
    status, _, _ = await client.ask("POST", f"{relay.url}/luma/tasks", body)
    assert status == 400
    assert relay.log[0].ids == ()


async def test_an_unknown_id_is_400_for_the_single_get(relay: FakeRelay, client: Client) -> None:
    status, _, body = await client.ask("GET", f"{relay.url}/luma/generations/unknown")
    assert status == 400
    assert json.loads(body) == {"code": "task_not_exist", "message": "task_not_exist", "data": None}


@pytest.mark.parametrize("key", ["", "sk-fake", "Bearer sk-other", "Bearer sk-fake "])
async def test_a_wrong_key_is_401_and_not_repeated(
    relay: FakeRelay, client: Client, key: str
) -> None:
    status, _, body = await client.ask("POST", f"{relay.url}/luma/tasks", _batch(), key=key)
    assert status == (200 if key.strip() == _KEY else 401)
    assert b"sk-" not in body


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/luma/tasks"),
        ("POST", "/luma/generations/x"),
        ("GET", "/luma/generations/"),
        ("GET", "/luma/generations/x/y"),
        ("POST", "/luma/tasks/"),
        ("GET", "/"),
    ],
)
async def test_any_other_route_is_404(
    relay: FakeRelay, client: Client, method: str, path: str
) -> None:
    status, _, body = await client.ask(method, relay.url + path)
    assert status == 404
    assert json.loads(body)["error"]["message"] == f"Invalid URL ({method} {path})"


async def test_an_id_may_need_percent_signs_in_the_path(relay: FakeRelay, client: Client) -> None:
    task_id = relay.add("a/b c%é")
    task = await client.get(relay, "a%2Fb%20c%25%C3%A9")
    assert task["id"] == task_id
    assert "a%2Fb%20c%25%C3%A9" in task["video"]["url"]


async def test_the_path_prefix_is_part_of_the_url(client: Client) -> None:
    async with FakeRelay(path_prefix="/pro/v1") as relay:
        task_id = relay.add()
        assert relay.url.endswith("/pro/v1")
        assert (await client.get(relay, task_id))["id"] == task_id
        outside = relay.url.removesuffix("/pro/v1")
        status, _, _ = await client.ask("GET", f"{outside}/luma/generations/{task_id}")
        assert status == 404


async def test_after_the_latency_the_states_are_those_at_the_arrival(client: Client) -> None:
    async with FakeRelay(latency=2.0) as relay:
        task_id = relay.add(duration=1)
        assert (await client.get(relay, task_id))["state"] == "processing"
        assert asyncio.get_running_loop().time() == 2.0


async def test_a_scripted_reply_is_sent_unchanged_and_once(
    relay: FakeRelay, client: Client
) -> None:
    relay.reply(Reply(503, b"<html>", {"Content-Type": "text/html", "Retry-After": "7"}))
    url = f"{relay.url}/luma/generations/{relay.add()}"
    assert await client.ask("GET", url) == (503, "text/html", b"<html>")
    assert (await client.ask("GET", url))[0] == 200


async def test_a_reply_may_have_no_content_type_and_no_body(
    relay: FakeRelay, client: Client
) -> None:
    relay.reply(Reply(429, headers={}), Reply(200, b"text", headers={}))
    assert await client.ask("GET", relay.url) == (429, "", b"")
    assert await client.ask("GET", relay.url) == (200, "", b"text")


async def test_a_reply_may_be_for_one_endpoint(relay: FakeRelay, client: Client) -> None:
    relay.reply(Reply(405), on="tasks")
    task_id = relay.add()
    assert (await client.get(relay, task_id))["state"] == "completed"
    status, _, _ = await client.ask("POST", f"{relay.url}/luma/tasks", _batch(task_id))
    assert status == 405


async def test_a_reply_may_have_a_delay(relay: FakeRelay, client: Client) -> None:
    relay.reply(Reply(504, delay=60.0))
    assert (await client.ask("GET", relay.url))[0] == 504
    assert asyncio.get_running_loop().time() == 60.0


async def test_the_log_has_each_request_in_order_of_arrival(
    relay: FakeRelay, client: Client
) -> None:
    task_id = relay.add("x")
    await client.get(relay, task_id)
    await asyncio.sleep(3)
    await client.tasks(relay, "y", task_id, "y")
    assert relay.log == [
        Asked(0.0, "GET", "/luma/generations/x", ("x",), 200),
        Asked(3.0, "POST", "/luma/tasks", ("y", "x", "y"), 200),
    ]
    assert relay.requests == 2


async def test_a_request_of_a_disconnected_client_has_no_status_and_leaves_no_task(
    client: Client,
) -> None:
    async with FakeRelay(latency=60.0) as relay:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await client.get(relay, relay.add())
        await asyncio.sleep(1)
        assert [asked.status for asked in relay.log] == [None]
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_the_busiest_second_excludes_its_end(relay: FakeRelay, client: Client) -> None:
    assert relay.busiest_second() == 0
    for second in (0, 0.5, 1, 1.25, 1.5, 5):
        await _until(second)
        await client.tasks(relay)
    assert relay.busiest_second() == 3


async def test_close_does_not_wait_for_a_slow_answer(client: Client) -> None:
    async with FakeRelay() as relay:
        relay.reply(Reply(delay=600.0), on="tasks")
        slow = asyncio.create_task(client.tasks(relay, "x"))
        await asyncio.sleep(1)
    assert asyncio.get_running_loop().time() < 2
    with pytest.raises(aiohttp.ClientConnectionError):
        await slow


async def test_close_may_be_called_twice_and_before_start() -> None:
    relay = FakeRelay()
    await relay.close()
    await relay.start()
    await relay.close()
    await relay.close()


async def test_a_second_start_is_refused(relay: FakeRelay) -> None:
    with pytest.raises(RuntimeError, match=r"close it first$"):
        await relay.start()


def test_url_before_start_is_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"first$"):
        _ = FakeRelay().url


def test_add_without_an_event_loop_is_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"from a coroutine$"):
        FakeRelay().add()


async def test_the_repr_shows_the_state_and_never_the_key(relay: FakeRelay, client: Client) -> None:
    assert "not started" in repr(FakeRelay())
    relay.add(duration=1)
    relay.add(ends="never")
    await _until(1)
    await client.tasks(relay)
    assert repr(relay) == f"<FakeRelay {relay.url}: 1 open, 1 ended, 1 requests>"
    assert "sk-" not in repr(relay)


async def test_the_same_seed_gives_the_same_ids() -> None:
    one, same, other = FakeRelay(seed=7), FakeRelay(seed=7), FakeRelay(seed=8)
    assert one.add() == same.add() != other.add()


@pytest.mark.parametrize(
    "arguments",
    [
        {"api_key": ""},
        {"api_key": None},
        {"envelope": "paper"},
        {"latency": -1},
        {"latency": float("nan")},
        {"latency": "1"},
        {"path_prefix": "pro"},
        {"path_prefix": "/pro/"},
        {"port": -1},
        {"port": "80"},
        {"port": True},
    ],
)
def test_invalid_arguments_of_the_relay_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=r"[:;] give "):
        FakeRelay(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"task_id": ""},
        {"task_id": b"x"},
        {"task_id": "taken"},
        {"ends": "well"},
        {"duration": float("inf")},
        {"duration": -1},
        {"queued": 2, "duration": 1},
        {"visible_after": "soon"},
        {"link_after": True},
    ],
)
async def test_an_invalid_task_is_refused_and_not_added(arguments: dict[str, Any]) -> None:
    relay = FakeRelay()
    relay.add("taken")
    with pytest.raises((ValueError, TypeError)):
        relay.add(**arguments)
    assert list(relay.tasks) == ["taken"]


@pytest.mark.parametrize(
    "arguments",
    [{"status": 99}, {"status": "200"}, {"body": "text"}, {"delay": -1}, {"headers": {"a": "\n"}}],
)
def test_a_reply_that_http_cannot_send_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        Reply(**arguments)


def test_a_reply_for_an_unknown_endpoint_is_refused() -> None:
    endpoint: Any = "post"
    with pytest.raises(ValueError, match=r'"get", .* or None$'):
        FakeRelay().reply(Reply(), on=endpoint)
