"""Sessions under aioresponses, as in a user's mocked test, with the fix that aioresponses needs."""

import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import aiohttp
import pytest
from aioresponses import aioresponses
from yarl import URL

from luma_async import Every, LumaSession, QuotaError, RelayError, State, SubmitUnknown
from tests.docs_blocks import fenced
from tests.subprocesses import FEW_PLUGINS

pytestmark = pytest.mark.virtual_time

BASE = "https://relay.example/vip"
LINK = {"url": "https://cdn.example/a.mp4"}


def session() -> LumaSession:
    return LumaSession(BASE, api_key="sk-test", pace=Every(0.01))


async def test_a_wait_for_one_task_uses_the_mocked_single_request(mocked: Any) -> None:
    for answer in (
        {"payload": {"id": "a", "state": "pending"}},
        {"status": 502},
        {"exception": aiohttp.ServerDisconnectedError()},
        {"exception": TimeoutError()},
        {"payload": {"id": "a", "state": "completed", "video": LINK}},
    ):
        mocked.get(f"{BASE}/luma/generations/a", **answer)
    async with session() as luma:
        assert (await luma.wait_until_done("a")).url == LINK["url"]
        assert luma.stats.errors == 3


async def test_a_wait_for_two_tasks_uses_the_mocked_batch_request(mocked: Any) -> None:
    rows = [{"id": "b", "state": "failed"}, {"id": "a", "state": "completed", "video": LINK}]
    mocked.post(f"{BASE}/luma/tasks", payload=rows)
    async with session() as luma:
        done = await luma.wait_until_done(["a", "b"])
    assert [generation.state for generation in done.values()] == [State.COMPLETED, State.FAILED]
    ((call,),) = mocked.requests.values()
    assert call.kwargs["data"] == b'{"ids":["a","b"]}'
    assert ("POST", URL(f"{BASE}/luma/tasks")) in mocked.requests


async def test_a_mocked_error_body_raises_the_error_of_its_meaning(mocked: Any) -> None:
    said = {"error": {"message": "该令牌额度已用尽 (request id: 7)", "type": "new_api_error"}}
    mocked.get(f"{BASE}/luma/generations/a", status=401, payload=said)
    async with session() as luma:
        with pytest.raises(QuotaError) as caught:
            await luma.get("a")
    assert (caught.value.status, caught.value.request_id) == (401, "7")


async def test_a_mocked_error_message_is_in_the_exception(mocked: Any) -> None:
    mocked.get(f"{BASE}/luma/generations/a", status=503, payload={"detail": "no channel"})
    async with session() as luma:
        with pytest.raises(RelayError, match="no channel"):
            await luma.get("a")
        assert luma.stats.errors == 3


async def test_a_submission_uses_the_mocked_request(mocked: Any) -> None:
    mocked.post(f"{BASE}/luma/generations", payload={"id": "a", "state": "pending"})
    async with session() as luma:
        assert (await luma.create("a cat", loop=True)).id == "a"
    ((call,),) = mocked.requests.values()
    assert call.kwargs["data"] == b'{"user_prompt":"a cat","loop":true}'


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 504},
        {"status": 500, "payload": {"code": "insert_task_failed", "message": ""}},
        {"body": b"<html>"},
        {"exception": aiohttp.ServerDisconnectedError()},
        {"exception": aiohttp.ClientOSError()},
        {"exception": TimeoutError()},
    ],
    ids=str,
)
async def test_a_mocked_loss_of_the_answer_is_an_unknown_submission(
    mocked: Any, answer: dict[str, Any]
) -> None:
    mocked.post(f"{BASE}/luma/generations", **answer)
    async with session() as luma:
        with pytest.raises(SubmitUnknown):
            await luma.create("a cat")


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 429},
        {"status": 503, "payload": {"error": {"message": "no channel"}}},
        {"exception": aiohttp.ClientConnectorError(Mock(ssl=True), OSError(111, "refused"))},
    ],
    ids=["429", "503", "no connection"],
)
async def test_a_mocked_submission_that_was_not_taken_is_sent_again(
    mocked: Any, answer: dict[str, Any]
) -> None:
    mocked.post(f"{BASE}/luma/generations", **answer)
    mocked.post(f"{BASE}/luma/generations", payload={"id": "a", "state": "pending"})
    async with session() as luma:
        assert (await luma.create("a cat")).id == "a"


def test_the_fixture_and_the_test_of_the_testing_page_pass_in_another_project(
    tmp_path: Path,
) -> None:
    here = f"tests/{Path(__file__).name}"
    shown = [one for one in fenced("python") if one.run_by == here]
    assert [one.page for one in shown] == ["docs/testing.md"] * 2
    for name, block in zip(("conftest.py", "test_pasted.py"), shown, strict=True):
        (tmp_path / name).write_text(block.text)
    options = [*FEW_PLUGINS, "-q", "-o", "asyncio_mode=auto"]
    command = [sys.executable, "-m", "pytest", *options, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "1 passed" in run.stdout, run.stdout + run.stderr


async def test_aioresponses_still_needs_the_patched_response() -> None:
    """When this fails, remove PatchedResponse in conftest and the fixture in docs/testing.md."""
    given: dict[str, Any] = {"status": 200, "body": b"[]"}
    with aioresponses() as unpatched:
        mocked: Any = unpatched
        mocked.get("https://relay.example", **given)
        async with aiohttp.ClientSession() as http:
            with pytest.raises(TypeError, match="stream_writer"):
                await http.get("https://relay.example")
