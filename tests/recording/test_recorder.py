"""Recording: each shape once, by a thread, and never in the way of the session."""

import asyncio
import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from luma_async import Limits, LumaSession, NotFoundError
from luma_async.protocol.requests import batch_request, single_request
from luma_async.recording import recorder as module
from luma_async.recording.capture_file import Captured, read_capture
from luma_async.recording.recorder import Exchange, Recorder, ShapeFilter, secrets_of
from luma_async.recording.stand_ins import StandIns
from luma_async.testing import FakeRelay, Reply

JSON = {"Content-Type": "application/json"}


def body(*rows: dict[str, Any]) -> bytes:
    return json.dumps(rows).encode()


def row(task_id: str, state: str = "processing", **more: Any) -> dict[str, Any]:
    return {"id": task_id, "state": state, **more}


def added(shapes: ShapeFilter, ids: list[str], answer: bytes, status: int = 200) -> Captured | None:
    return next(iter(shapes.add(Exchange(batch_request(ids), status, JSON, answer))), None)


@pytest.fixture
def shapes() -> ShapeFilter:
    return ShapeFilter(StandIns(b"fixed"))


def test_each_shape_is_passed_once(shapes: ShapeFilter) -> None:
    assert added(shapes, ["a1"], body(row("a1")))
    assert added(shapes, ["b2"], body(row("b2"))) is None
    assert added(shapes, ["b2"], body(row("b2", "completed")))
    assert added(shapes, ["b2"], body(row("b2", video={"url": "https://x.y/z"})))
    assert added(shapes, ["b2"], b"[]")
    assert added(shapes, ["b2"], b'{"message":"q1"}', 500)
    assert added(shapes, ["b2"], b'{"message":"timeout"}', 500)
    assert added(shapes, ["c3"], b'{"message":"q2"}', 500) is None


def test_states_that_come_in_other_combinations_are_no_new_shapes(shapes: ShapeFilter) -> None:
    ids = [f"a{number}" for number in range(8)]
    mixed = [row(i, state) for i, state in zip(ids, ("pending", "processing") * 4, strict=True)]
    assert added(shapes, ids, body(*mixed))
    assert added(shapes, ids, body(*mixed[::2], *mixed[1::2])) is not None, "another order"
    assert added(shapes, ids, body(*(row(i) for i in ids))) is None


def test_of_a_long_list_one_row_of_each_shape_is_kept(shapes: ShapeFilter) -> None:
    ids = [f"a{number}" for number in range(100)]
    captured = added(shapes, ids, body(*(row(i) for i in ids[:-1]), row(ids[-1], "failed")))
    assert captured
    rows = json.loads(captured.body)
    assert [one["state"] for one in rows] == ["processing", "failed"]
    assert (captured.asked, captured.rows.count, captured.rows.order) == (100, 99 + 1, "request")
    assert captured.ids == [one["id"] for one in rows]


def test_rows_that_a_batch_omits_are_classified_by_what_was_seen(shapes: ShapeFilter) -> None:
    first = added(shapes, ["a1", "b2"], body(row("a1")))
    assert first
    assert first.rows.omitted == "unknown"
    single = Exchange(single_request("b2"), 200, JSON, json.dumps(row("b2")).encode())
    _, again = shapes.add(single)
    assert again.rows.omitted == "known"
    assert (again.body, again.call) == (first.body, "tasks")
    assert added(shapes, ["a1", "b2"], body(row("a1"))) is None


def test_ids_in_another_case_are_noted(shapes: ShapeFilter) -> None:
    captured = added(shapes, ["ab-1"], body(row("AB-1")))
    assert captured
    assert captured.rows.case == "upper"
    assert json.loads(captured.body)[0]["id"] == captured.ids[0].upper()


@pytest.mark.virtual_time
async def test_a_session_records_into_a_file_without_secrets(tmp_path: Path) -> None:
    file = tmp_path / "relay.ndjson"
    async with FakeRelay(api_key="sk-token-user", envelope="wrapped") as relay:
        ids = [relay.add(duration=20.0 * number, prompt="secret prompt") for number in range(5)]
        async with LumaSession(relay.url, api_key=relay.api_key, record=file) as luma:
            await luma.wait_until_done(ids)
            relay.reply(Reply(503, b"<html>busy</html>"))
            with pytest.raises(NotFoundError):
                await luma.get("unknown-id")
    captured = read_capture(file)
    assert {(one.call, one.status) for one in captured} == {
        ("tasks", 200), ("get", 200), ("get", 503), ("get", 400),
    }  # fmt: skip
    text = file.read_text()
    for secret in (*ids, "sk-token-user", "secret prompt", "127.0.0.1", "unknown-id"):
        assert secret not in text
    assert len(captured) < 20


@pytest.mark.virtual_time
async def test_a_file_that_cannot_be_written_is_an_error_at_once(tmp_path: Path) -> None:
    async with FakeRelay() as relay:
        luma = LumaSession(relay.url, api_key="sk-fake", record=tmp_path / "none" / "file")
        with pytest.raises(FileNotFoundError):
            await luma.__aenter__()


@pytest.mark.virtual_time
async def test_what_cannot_be_recorded_is_one_warning_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(module.ShapeFilter, "add", fail)
    async with FakeRelay() as relay:
        task_id = relay.add(duration=60)
        async with LumaSession(relay.url, api_key="sk-fake", record=tmp_path / "a") as luma:
            await luma.wait_until_done(task_id)
    (warning,) = [one.getMessage() for one in caplog.records]
    assert warning.startswith("a response was not recorded: RuntimeError (record=")


def test_observing_never_waits_for_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A pipe that is not read blocks the thread alone; responses are left out then."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    recorder = Recorder(path)
    recorder.start()
    huge = b"<" + b"x" * module.MAX_TEXT
    for number in range(2000):
        recorder.observe(single_request(f"a{number}"), 500 + number % 60, {}, huge)
    assert "some are left out" in caplog.text
    os.set_blocking(reading, True)
    with open(reading, "rb") as stream:
        thread = asyncio.run(_closed_while_read(recorder, stream))
    assert thread
    assert recorder.shapes > 30


async def _closed_while_read(recorder: Recorder, stream: Any) -> bytes:
    reading = asyncio.to_thread(stream.read)
    text, _ = await asyncio.gather(reading, asyncio.to_thread(recorder.close))
    return bytes(text)


@pytest.mark.virtual_time
async def test_a_compressed_response_is_recorded_decoded(tmp_path: Path) -> None:
    file = tmp_path / "a"
    async with FakeRelay() as relay:
        packed = Reply(200, gzip.compress(b"[]"), {**JSON, "Content-Encoding": "gzip"})
        relay.reply(packed)
        limits = Limits(max_batch=10)
        async with LumaSession(relay.url, api_key="sk-fake", record=file, limits=limits) as luma:
            await luma.get_many(["a1"])
    (captured,) = read_capture(file)
    assert (captured.body, captured.headers["content-encoding"]) == ("[]", "gzip")


def test_secrets_of_a_session_are_its_key_host_and_proxy() -> None:
    found = secrets_of("https://relay-7.top/v1", "sk-user", "http://me%40x:pass@proxy-9.lan:3128")
    assert {"relay-7.top", "sk-user", "me%40x", "me@x", "pass", "proxy-9.lan"} >= set(found)
    assert "sk-user" in found


def test_a_file_that_is_no_capture_is_a_value_error(tmp_path: Path) -> None:
    file = tmp_path / "a"
    for text in (b"", b"{}\n", b"[]\n", b'{"luma_async_capture": 2}\n', b"\xff\n"):
        file.write_bytes(text)
        with pytest.raises(ValueError, match="is no captured file"):
            read_capture(file)
    file.write_bytes(b'{"luma_async_capture":1}\n{"call":"put"}\n{}\n')
    with pytest.raises(ValueError, match="line 2 of"):
        read_capture(file)


def test_a_last_line_that_is_cut_short_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "a"
    line = '{"call":"get","status":200,"headers":{},"body":""}\n'
    file.write_text('{"luma_async_capture":1,"version":"0.2"}\n' + line + line[:20])
    assert len(read_capture(file)) == 1
