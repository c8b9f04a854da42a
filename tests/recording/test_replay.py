"""A round trip: record an odd relay, replay the file, and the same wait ends the same way."""

import ast
import random
from pathlib import Path
from typing import Any

import pytest

from luma_async import LumaSession, NotFoundError, WaitIncomplete
from luma_async.recording.capture_file import Captured, head_line, line, read_capture
from luma_async.recording.recorder import Recorder
from luma_async.testing import FakeRelay, Reply
from tests.diagnosis.examined import examine, first_ids, in_order_of_request, refuses_above
from tests.docs_blocks import blocks
from tests.odd_relays import (
    ODDITIES,
    Oddity,
    OddRelay,
    always,
    capped,
    kling,
    nested,
    on_batch,
    on_rows,
    renamed,
)

pytestmark = pytest.mark.virtual_time

RELAYS: dict[str, Any] = {
    "bare": FakeRelay,
    "wrapped": lambda: FakeRelay(envelope="wrapped"),
    "faults": lambda: FakeRelay(faults={"storm": 0.1, "throttled": 0.1, "not_json": 0.05}),
    "capped": lambda: OddRelay(capped(10)),
    "page": lambda: OddRelay(ODDITIES["a batch is a page of 20 rows"]),
    "ended only": lambda: OddRelay(ODDITIES["a batch has finished tasks alone"]),
    "other words": lambda: OddRelay(ODDITIES["states in other words"]),
    "upper case": lambda: OddRelay(Oddity("", on_rows(renamed))),
    "nested": lambda: OddRelay(Oddity("", on_rows(nested(3)))),
    "Kling": lambda: OddRelay(Oddity("", on_rows(kling))),
    "order of request": lambda: OddRelay(Oddity("", in_order_of_request)),
    "413 above 12": lambda: OddRelay(Oddity("", refuses_above(12, 413))),
    "first 8 ids": lambda: OddRelay(Oddity("", first_ids(8))),
    "no batch call": lambda: OddRelay(Oddity("", always(405, b"", call="tasks"))),
    "no single call": lambda: OddRelay(Oddity("", always(404, b"404 page", call="get"))),
    "envelope of items": lambda: OddRelay(
        Oddity("", on_batch(lambda rows: {"code": 0, "data": {"items": rows, "total": len(rows)}}))
    ),
    "key refused": lambda: OddRelay(Oddity("", always(401, {"message": "无效的令牌"}))),
}
SAME = (
    "single-call", "batch-call", "single-envelope", "batch-envelope", "batch-unknown-id",
    "single-unknown-id", "rows", "order", "names", "key",
)  # fmt: skip


def tasks(relay: FakeRelay) -> list[str]:
    """Add the same tasks to any relay."""
    dice = random.Random(4)
    return [
        relay.add(
            duration=max(0.0, dice.uniform(-40.0, 90.0)),
            ends="failed" if dice.random() < 0.3 else "completed",
        )
        for _ in range(30)
    ]


async def outcome(relay: FakeRelay, record: Path | None = None) -> list[object]:
    """Wait for the tasks; return how each one ended, and how the wait did."""
    ids = [*tasks(relay), "5f0c7a53-0000-4000-8000-000000000000"]
    async with LumaSession(relay.url, api_key=relay.api_key, record=record) as luma:
        try:
            done: Any = await luma.wait_until_done(ids, timeout=1200)
            ended: type | None = None
        except WaitIncomplete as error:
            done, ended = error.done, type(error)
        return [ended, *(done[i].state if i in done else None for i in ids)]


@pytest.mark.parametrize("name", RELAYS)
async def test_the_same_wait_ends_the_same_way(name: str, tmp_path: Path) -> None:
    file = tmp_path / "relay.ndjson"
    async with RELAYS[name]() as relay:
        recorded = await outcome(relay, file)
    async with FakeRelay.replay(file) as again:
        assert await outcome(again) == recorded
    if name != "key refused":
        links = [task for task in again.tasks.values() if task.ends == "completed"]
        assert recorded.count("completed") == len(links)


@pytest.mark.parametrize("name", [name for name in RELAYS if name != "faults"])
async def test_a_replayed_relay_has_the_findings_of_the_recorded_one(
    name: str, tmp_path: Path
) -> None:
    recorder = Recorder(tmp_path / "relay.ndjson")
    recorder.start()
    async with RELAYS[name]() as relay:
        first = await examine(relay, tasks(relay), observer=recorder.observe)
    recorder.close()
    async with FakeRelay.replay(recorder.path) as again:
        second = await examine(again, tasks(again))
    found = [
        {f.check: (f.level, f.text.replace(" ", "")) for f in diagnosis.findings if f.check in SAME}
        for diagnosis in (first, second)
    ]
    assert found[1] == found[0]


async def test_links_of_replayed_tasks_work_and_times_are_those_of_the_tasks(
    tmp_path: Path,
) -> None:
    file = tmp_path / "relay.ndjson"
    async with FakeRelay(envelope="wrapped") as relay:
        async with LumaSession(relay.url, api_key=relay.api_key, record=file) as luma:
            await luma.wait_until_done(relay.add())
    async with FakeRelay.replay(file) as again:
        task_id = again.add(prompt="another")
        async with LumaSession(again.url, api_key=again.api_key) as luma:
            done = await luma.wait_until_done(task_id)
    assert done.url == f"{again.url}/media/{task_id}.mp4"
    assert done.created_at is not None
    assert abs(done.created_at.timestamp() - again.tasks[task_id].created) < 1


async def test_each_captured_error_is_played_once(tmp_path: Path) -> None:
    file = tmp_path / "relay.ndjson"
    async with FakeRelay() as relay:
        async with LumaSession(relay.url, api_key=relay.api_key, record=file) as luma:
            task_id = relay.add()
            await luma.get(task_id)
            relay.reply(Reply(503, b'{"message":"busy"}'), Reply(429, headers={"Retry-After": "3"}))
            await luma.get(task_id)
    async with FakeRelay.replay(file) as again:
        async with LumaSession(again.url, api_key=again.api_key) as luma:
            task_id = again.add()
            for _ in range(20):
                await luma.get(task_id)
    statuses = [asked.status for asked in again.log]
    assert [status for status in statuses if status != 200] == [503, 429]


async def test_a_state_that_was_not_captured_is_as_luma_sends_it(tmp_path: Path) -> None:
    file = tmp_path / "relay.ndjson"
    async with FakeRelay() as relay:
        async with LumaSession(relay.url, api_key=relay.api_key, record=file) as luma:
            await luma.get(relay.add(duration=100))
    async with FakeRelay.replay(file) as again:
        async with LumaSession(again.url, api_key=again.api_key) as luma:
            done = await luma.wait_until_done([again.add(ends="failed"), again.add()])
            with pytest.raises(NotFoundError):
                await luma.get("unknown")
    assert [one.state for one in done.values()] == ["failed", "completed"]


def test_an_empty_file_and_one_that_is_no_capture_are_value_errors(tmp_path: Path) -> None:
    file = tmp_path / "relay.ndjson"
    file.write_bytes(head_line())
    with pytest.raises(ValueError, match="has no responses; capture with ids"):
        FakeRelay.replay(file)
    file.write_text("[]")
    with pytest.raises(ValueError, match="is no captured file"):
        FakeRelay.replay(file)
    file.write_bytes(head_line() + line(Captured(call="get", status=418, headers={}, body="{")))
    assert len(read_capture(file)) == 1
    FakeRelay.replay(file)


async def test_the_block_of_the_page_on_relays_waits_at_a_replayed_relay(tmp_path: Path) -> None:
    """The block of docs/relays.md."""
    (text,) = blocks("docs/relays.md", "python")
    file = tmp_path / "relay.ndjson"
    async with FakeRelay() as relay:
        async with LumaSession(relay.url, api_key=relay.api_key, record=file) as luma:
            await luma.wait_until_done(relay.add(duration=20))
    code = compile(text, "docs/relays.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names: dict[str, Any] = {"file": file}
    await eval(code, names)
    assert names["relay"].requests > 1
