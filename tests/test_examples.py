"""Each example of docs/examples, run as its reader would run it, against `luma-async relay`."""

import asyncio
import json
import os
import re
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from luma_async import Every, LumaSession
from luma_async.testing import FakeRelay
from luma_async.testing.media import video
from tests import optional
from tests.module_files import load
from tests.subprocesses import EXAMPLES, FEW_PLUGINS, PATIENCE, Started, relay_process, started

PACE = {"PACE": "0.1"}
LISTENING = r"Running on (http://127\.0\.0\.1:\d+)|running on (http://127\.0\.0\.1:\d+)"


def example(name: str) -> str:
    return str(EXAMPLES / name)


@pytest.fixture(scope="module")
def relay_settings() -> Iterator[dict[str, str]]:
    """Start a relay with short tasks; the tests of this module share it."""
    with relay_process("--seconds", "0.2-0.5") as settings:
        yield settings


@pytest.fixture
def settings(relay_settings: dict[str, str]) -> dict[str, str]:
    """Return the settings for the shared relay."""
    return relay_settings | PACE


@pytest.fixture
def own_relay(relay: FakeRelay) -> dict[str, str]:
    """Return the settings for the relay of this test, which controls when its tasks end."""
    return {"LUMA_BASE_URL": relay.url, "LUMA_API_KEY": relay.api_key, **PACE}


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30)) as http:
        yield http


async def service_url(one: Started) -> str:
    """Return the URL that a service prints."""
    found = await asyncio.to_thread(one.until, LISTENING)
    return found[1] or found[2]


def test_there_is_a_test_for_each_example() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    assert all(f'example("{path.name}")' in here for path in EXAMPLES.glob("*.py"))


# many.py


def test_many_submits_tasks_waits_and_prints_a_table(settings: dict[str, str]) -> None:
    with started(example("many.py"), settings=settings) as one:
        assert one.ended() == 0, one.said
    assert len(re.findall(r"^[0-9a-f-]{36}  completed  http://.*mp4$", one.said, re.M)) == 10


async def test_many_prints_the_completed_and_the_open_tasks_at_a_timeout(
    own_relay: dict[str, str], relay: FakeRelay
) -> None:
    done, never = relay.add(), relay.add("never\x1b[2J", ends="never")
    with started(example("many.py"), "--timeout", "0", done, never, settings=own_relay) as one:
        assert await asyncio.to_thread(one.ended) == 1
    assert f"{done}  completed" in one.said
    assert "still open: never?[2J" in one.said
    assert "\x1b" not in one.said


# fastapi_sse.py


async def test_fastapi_streams_results_to_browsers_and_stops_while_one_is_connected(
    settings: dict[str, str], http: aiohttp.ClientSession, port: str
) -> None:
    optional.module("fastapi")
    with started(example("fastapi_sse.py"), port, settings=settings) as one:
        url = await service_url(one)
        async with http.get(f"{url}/events") as events:
            assert events.content_type == "text/event-stream"
            ids = {(await _post(http, f"{url}/videos", "<b>cat"))["id"] for _ in range(3)}
            received = [await _event(events) for _ in range(3)]
            assert {end["data"]["id"] for end in received} == ids
            assert {end["data"]["prompt"] for end in received} == {"<b>cat"}
            resume = {"Last-Event-ID": received[0]["id"]}
            async with http.get(f"{url}/events", headers=resume) as again:
                assert [await _event(again), await _event(again)] == received[1:]
            async with http.get(f"{url}/videos/{received[0]['data']['id']}") as answer:
                assert await answer.json() == received[0]["data"]
            async with http.get(f"{url}/videos/nobody") as answer:
                assert answer.status == 404
            async with http.get(url) as answer:
                assert "innerHTML" not in await answer.text()
            assert await asyncio.to_thread(one.stop, signal.SIGTERM) in (0, -signal.SIGTERM)
    assert "still open: nothing" in one.said
    assert "ERROR" not in one.said
    assert settings["LUMA_API_KEY"] not in one.said


async def test_fastapi_prints_the_open_tasks_when_it_stops(
    http: aiohttp.ClientSession, port: str
) -> None:
    optional.module("fastapi")
    with relay_process("--seconds", "900") as settings:
        with started(example("fastapi_sse.py"), port, settings=settings) as one:
            url = await service_url(one)
            video = await _post(http, f"{url}/videos", "a cat")
            async with http.get(f"{url}/videos") as answer:
                assert await answer.json() == [video]
            assert await asyncio.to_thread(one.stop, signal.SIGTERM) in (0, -signal.SIGTERM)
    assert f"still open: {video['id']}" in one.said


async def _post(http: aiohttp.ClientSession, url: str, prompt: str) -> Any:
    async with http.post(url, json={"prompt": prompt}) as answer:
        assert answer.status == 202, await answer.text()
        return await answer.json()


async def _event(events: aiohttp.ClientResponse) -> dict[str, Any]:
    """Read the next event of a stream: its fields, with the data decoded from JSON."""
    text = (await events.content.readuntil(b"\n\n")).decode()
    fields = dict(line.split(": ", 1) for line in text.strip().splitlines())
    return {**fields, "data": json.loads(fields["data"])}


@asynccontextmanager
async def _studio(
    relay: FakeRelay, patch: pytest.MonkeyPatch, **settings: float
) -> AsyncGenerator[Any, None]:
    """Yield the waiting Studio of the FastAPI example, with these settings in its module."""
    optional.module("fastapi")
    module = load(Path(example("fastapi_sse.py")))
    for name, value in settings.items():
        patch.setattr(module, name, value)
    patch.setenv("LUMA_BASE_URL", relay.url)
    patch.setenv("LUMA_API_KEY", relay.api_key)
    async with LumaSession(relay.url, api_key=relay.api_key, pace=Every(0.02)) as luma:
        studio = module.Studio(luma)
        waiting = asyncio.create_task(studio.wait())
        yield studio
        waiting.cancel()
        await asyncio.wait([waiting])


async def test_a_slow_browser_is_disconnected_and_no_result_is_lost(
    relay: FakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _studio(relay, monkeypatch, AHEAD=2) as studio:
        with studio.listening() as slow, studio.listening() as quick:
            for _ in range(5):
                await studio.submit("a cat")
                await quick.get()
            assert slow.qsize() == 2
            slow.get_nowait()
            assert slow.get_nowait() is None
        assert len(studio.ended) == 5


async def test_a_rejected_key_loses_no_video(
    relay: FakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _studio(relay, monkeypatch, AGAIN=0.05) as studio:
        with studio.listening() as results:
            video = await studio.submit("a cat")
            key, relay.api_key = relay.api_key, "sk-other"
            await _until(lambda: relay.requests >= 4)
            assert list(studio.open) == [video.id]
            relay.api_key = key
            assert (await results.get())[1].state == "completed"


# aiohttp_service.py


async def test_aiohttp_answers_when_the_task_ends_or_at_the_timeout_of_the_client(
    own_relay: dict[str, str], http: aiohttp.ClientSession, port: str
) -> None:
    async with FakeRelay(durations=(900, 900)) as relay:
        own_relay["LUMA_BASE_URL"] = relay.url
        with started(example("aiohttp_service.py"), port, settings=own_relay) as one:
            url = await service_url(one)
            task_id = (await _post(http, f"{url}/videos", "a cat"))["id"]
            async with http.get(f"{url}/videos/{task_id}") as answer:
                assert (answer.status, (await answer.json())["id"]) == (202, task_id)
            relay.finish(task_id)
            async with http.get(f"{url}/videos/{task_id}?wait=30") as answer:
                assert (answer.status, (await answer.json())["state"]) == (200, "completed")
            for path, status in (("nobody", 404), (f"{task_id}?wait=soon", 400)):
                async with http.get(f"{url}/videos/{path}") as answer:
                    assert answer.status == status
            async with http.post(f"{url}/videos", data=b"[]") as answer:
                assert answer.status == 400
            assert await asyncio.to_thread(one.stop, signal.SIGTERM) == 0
        assert "Error" not in one.said


@pytest.fixture
async def service(
    relay: FakeRelay, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[web.AppRunner, LumaSession, str]]:
    """Yield the service in the event loop of the test: its runner, its session and its URL."""
    module = load(Path(example("aiohttp_service.py")))
    monkeypatch.setenv("LUMA_BASE_URL", relay.url)
    monkeypatch.setenv("LUMA_API_KEY", relay.api_key)
    app = module.application()
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner, app[module.LUMA], f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_aiohttp_answers_waiting_clients_with_503_when_it_stops(
    service: tuple[web.AppRunner, LumaSession, str], relay: FakeRelay, http: aiohttp.ClientSession
) -> None:
    runner, luma, url = service
    url = f"{url}/videos/{relay.add(ends='never')}?wait=60"
    client = asyncio.create_task(_status(http, url))
    await _until(lambda: luma.stats.open == 1)
    await runner.cleanup()
    assert await client == 503


async def test_aiohttp_cancels_the_wait_of_a_disconnected_client(
    service: tuple[web.AppRunner, LumaSession, str], relay: FakeRelay, http: aiohttp.ClientSession
) -> None:
    _, luma, url = service
    url = f"{url}/videos/{relay.add(ends='never')}?wait=60"
    client = asyncio.create_task(_status(http, url))
    await _until(lambda: luma.stats.open == 1)
    client.cancel()
    await _until(lambda: luma.stats.open == 0)


async def _status(http: aiohttp.ClientSession, url: str) -> int:
    async with http.get(url) as answer:
        return answer.status


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - another process or task changes it
            await asyncio.sleep(0.01)


# worker_service.py


async def test_a_killed_shop_loses_no_order(
    settings: dict[str, str], http: aiohttp.ClientSession, tmp_path: Path, port: str
) -> None:
    optional.module("nats")
    settings["LUMA_DATA"] = str(tmp_path / "data")
    worker = ["-m", "luma_async", "worker", "--interval", "0.1"]
    with started(example("worker_service.py"), port, settings=settings) as one:
        url = await service_url(one)
        first = (await _post(http, f"{url}/orders", "a cat"))["id"]
        async with http.get(f"{url}/orders/{first}") as answer:
            assert (await answer.json())["state"] == "open"
        one.process.kill()
    with started(*worker, settings=settings) as worker_process:
        with started(example("worker_service.py"), port, settings=settings) as one:
            url = await service_url(one)
            second = (await _post(http, f"{url}/orders", "a dog"))["id"]
            for task_id in (first, second):
                await asyncio.to_thread(one.until, f"{task_id}' completed")
                async with http.get(f"{url}/orders/{task_id}") as answer:
                    received = await answer.json()
                assert (received["state"], received["url"].endswith(f"{task_id}.mp4")) == (
                    "completed",
                    True,
                )
            async with http.get(f"{url}/orders/nobody") as answer:
                assert answer.status == 404
            assert await asyncio.to_thread(one.stop, signal.SIGTERM) == 0
        assert await asyncio.to_thread(worker_process.stop, signal.SIGTERM) == 0
    assert "Traceback" not in one.said


# traced.py


async def test_each_request_is_a_span_and_no_span_contains_the_key(
    own_relay: dict[str, str], relay: FakeRelay
) -> None:
    optional.module("opentelemetry.instrumentation.aiohttp_client")
    ids = [relay.add(ends="never") for _ in range(3)]
    with started(example("traced.py"), *ids, settings=own_relay) as one:
        await _until(lambda: relay.requests >= 2)
        for task_id in ids:
            relay.finish(task_id)
        assert await asyncio.to_thread(one.ended) == 0, one.said
    *requests, last = [line.split()[2:] for line in one.said.splitlines()]
    assert requests == [
        [asked.method, asked.method, f"{relay.url}{asked.path}", "200"] for asked in relay.log
    ]
    assert last[0] == "wait"
    assert "'luma.done': 3" in one.said
    assert relay.api_key not in one.said


# prometheus_stats.py


async def test_prometheus_receives_the_figures_of_the_session(
    own_relay: dict[str, str], relay: FakeRelay, http: aiohttp.ClientSession, port: str
) -> None:
    optional.module("prometheus_client")
    with started(example("prometheus_stats.py"), port, settings=own_relay) as one:
        url = await service_url(one)
        assert (await _figures(http, url))["luma_requests_total"] == 0
        task_id = relay.add(ends="never")
        async with http.post(f"{url}/wait", data=task_id) as answer:
            assert answer.status == 202
        await _until(lambda: relay.requests >= 2)
        assert (await _figures(http, url))["luma_open"] == 1
        relay.finish(task_id)
        await asyncio.to_thread(one.until, f"{task_id}' completed")
        figures = await _figures(http, url)
        assert figures['luma_ends_total{state="completed"}'] == 1
        assert figures["luma_open"] == 0
        assert figures["luma_requests_total"] == relay.requests
        answered = 'luma_request_seconds_count{call="get",outcome="answered"}'
        assert figures[answered] == relay.requests
        assert figures["luma_lag_seconds_count"] == 1
        assert await asyncio.to_thread(one.stop, signal.SIGTERM) == 0


async def _figures(http: aiohttp.ClientSession, url: str) -> dict[str, float]:
    async with http.get(f"{url}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
    return {name: float(value) for name, value in pairs}


# test_my_service.py


def test_the_tests_of_the_service_example_pass_in_another_project(tmp_path: Path) -> None:
    pasted = tmp_path / "test_my_service.py"
    pasted.write_text(Path(example("test_my_service.py")).read_text(encoding="utf-8"))
    scope = "asyncio_default_fixture_loop_scope=function"
    options = [*FEW_PLUGINS, "-q", "-W", "error", "-o", scope]
    with started("-m", "pytest", *options, str(pasted), cwd=tmp_path) as one:
        assert one.ended() == 0, one.said
    assert re.search(r"\b6 passed", one.said)


# test_my_endpoint.py and partial_results.py


def test_the_tests_of_the_endpoint_example_pass_in_another_project(tmp_path: Path) -> None:
    optional.module("httpx", "examples")
    for name in (example("test_my_endpoint.py"), example("partial_results.py")):
        (tmp_path / Path(name).name).write_text(Path(name).read_text(encoding="utf-8"))
    with started("-m", "pytest", *FEW_PLUGINS, "-q", str(tmp_path), cwd=tmp_path) as one:
        assert one.ended() == 0, one.said
    assert re.search(r"\b3 passed", one.said)


# csv_to_sqlite.py


async def test_ids_of_a_csv_are_in_sqlite_as_they_end_and_after_kill_9(
    own_relay: dict[str, str], relay: FakeRelay, tmp_path: Path
) -> None:
    ended = [relay.add(ends="failed" if n % 10 == 9 else "completed") for n in range(400)]
    running = [relay.add(ends="never") for _ in range(100)]
    ids, results = tmp_path / "ids.csv", tmp_path / "results.db"
    lines = [f"{task_id},a cat" for task_id in (*ended, *running)]
    ids.write_text("\n".join(["\ufeffid,prompt", *lines, ""]))
    command = [example("csv_to_sqlite.py"), str(ids), str(results)]
    with started(*command, settings=own_relay) as one:
        await asyncio.to_thread(one.until, "waiting for 500 tasks")
        await asyncio.to_thread(wait_for_results, results, 300)
        await asyncio.to_thread(one.stop, signal.SIGKILL)
    saved = count_results(results)
    for task_id in running:
        relay.finish(task_id)
    with started(*command, settings=own_relay) as one:
        assert await asyncio.to_thread(one.ended) == 0, one.said
    assert f"waiting for {500 - saved} tasks" in one.said
    with closing(sqlite3.connect(results)) as database:
        states = Counter(state for (state,) in database.execute("SELECT state FROM tasks"))
        (links,) = database.execute("SELECT count(url) FROM tasks").fetchone()
    assert states == {"completed": 460, "failed": 40}
    assert links == 460


def wait_for_results(results: Path, count: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while count_results(results) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def count_results(results: Path) -> int:
    with closing(sqlite3.connect(results)) as database:
        query = "SELECT count(*) FROM tasks WHERE state IS NOT NULL"
        return int(database.execute(query).fetchone()[0])


# files.py


async def test_files_saves_each_video_and_prints_the_failed_tasks(
    own_relay: dict[str, str], relay: FakeRelay, tmp_path: Path
) -> None:
    good, bad = relay.add(), relay.add(ends="failed", failure_reason="no cats")
    options = [str(tmp_path), good, bad, "--allow-host", "127.0.0.1"]
    with started(example("files.py"), *options, settings=own_relay) as one:
        assert await asyncio.to_thread(one.ended) == 1
    assert "failed: 'no cats'" in one.said
    assert (tmp_path / f"{good}.mp4").read_bytes() == video(good)


async def test_files_requests_no_private_host_that_is_not_allowed(
    own_relay: dict[str, str], relay: FakeRelay, tmp_path: Path
) -> None:
    with started(example("files.py"), str(tmp_path), relay.add(), settings=own_relay) as one:
        assert await asyncio.to_thread(one.ended) == 1
    assert "127.0.0.1" in one.said
    assert os.listdir(tmp_path) == []
    assert relay.media_log == []
