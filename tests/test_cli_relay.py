"""`luma-async relay`: as a process, and how its arguments are parsed."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from luma_async import LumaSession, NotFoundError, RequestEvent, State
from luma_async.cli import main
from luma_async.cli.commands.relay import faults, port, share, span, tasks, wait
from luma_async.testing import FakeRelay

Capture = pytest.CaptureFixture[str]


@contextmanager
def relay(*arguments: str) -> Generator[tuple[subprocess.Popen[str], str, dict[str, str]]]:
    """Start the command; yield the process, the URL of the relay, and the settings it prints."""
    command = [sys.executable, "-m", "luma_async", "relay", "--port", "0", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr
            printed = process.stderr.readline() + process.stderr.readline()
            url = re.search(r"a relay is at (\S+);", printed)
            assert url, printed
            yield process, url[1], dict(re.findall(r"(LUMA_\w+)=(\S+)", printed))
        finally:
            process.kill()


async def test_the_relay_prints_ids_accepts_submissions_answers_and_exits_at_sigterm() -> None:
    with relay("--tasks", "3", "--seconds", "0.01", "--envelope", "wrapped") as (
        process,
        url,
        settings,
    ):
        assert process.stdout
        ids = [process.stdout.readline().strip() for _ in range(3)]
        assert settings == {"LUMA_BASE_URL": url, "LUMA_API_KEY": "sk-fake"}
        headers = {"Authorization": "Bearer sk-fake"}
        async with aiohttp.ClientSession() as http, LumaSession(url, api_key="sk-fake") as luma:
            body = {"prompt": "a cat"}
            async with http.post(f"{url}/luma/generations", json=body, headers=headers) as answer:
                ids.append((await answer.json())["data"]["task_id"])
            done = await luma.wait_until_done(ids, timeout=20)
            link = done[ids[0]].url
            assert link
            async with http.get(link) as answer:
                assert (answer.status, answer.content_type) == (200, "video/mp4")
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out, err) == (0, "", "")


def test_ctrl_c_stops_the_relay_with_0_and_a_closed_output_pipe_does_not_stop_it() -> None:
    with relay("--tasks", "20000") as (process, url, _):
        assert process.stdout
        assert process.stdout.readline()
        process.stdout.close()
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=20):
            process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0


def test_a_port_in_use_is_exit_code_2_with_the_remedy(capsys: Capture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        assert main(["relay", "--port", str(number)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"port {number} ({os.strerror(98)})" in err
    assert err.endswith("give another --host or --port (0: a free one)\n")


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])
def test_an_address_of_another_host_is_exit_code_2(capsys: Capture, host: str) -> None:
    assert main(["relay", "--port", "0", "--host", host]) == 2
    assert capsys.readouterr().err.endswith("give another --host or --port (0: a free one)\n")


def test_a_key_that_is_invalid_in_a_header_is_exit_code_2_and_is_not_printed(
    capsys: Capture,
) -> None:
    assert main(["relay", "--api-key", "sk-secret key"]) == 2
    err = capsys.readouterr().err
    assert "give plain ASCII" in err
    assert "secret" not in err


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (port, "0", 0),
        (port, "65535", 65535),
        (tasks, "0", 0),
        (tasks, "7", 7),
        (span, "2.5", (2.5, 2.5)),
        (span, "60-180", (60.0, 180.0)),
        (wait, "0", 0.0),
        (share, "1", 1.0),
        (faults, "storm=0.05,reset=0.02", {"storm": 0.05, "reset": 0.02}),
        (faults, "", {}),
    ],
)
def test_option_values_are_parsed(read: Callable[[str], Any], text: str, value: object) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (port, "65536"),
        (port, "-1"),
        (port, "http"),
        (tasks, "-1"),
        (tasks, "100001"),
        (span, "9-3"),
        (span, "-3"),
        (span, "soon"),
        (wait, "nan"),
        (wait, "86401"),
        (share, "1.1"),
        (faults, "storm"),
        (faults, "strom=0.5"),
        (faults, "storm=0.9,reset=0.9"),
    ],
)
def test_invalid_option_values_are_rejected_with_a_remedy(
    read: Callable[[str], Any], text: str
) -> None:
    with pytest.raises(ArgumentTypeError, match=r"give|say one of"):
        read(text)


def test_the_help_shows_the_defaults(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main(["relay", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert '{"user_prompt": "…"}' in text
    for default in ("127.0.0.1", "8000", "60-180", "sk-fake"):
        assert f"(default {default})" in text


def test_the_ids_are_the_same_in_each_run() -> None:
    def first() -> str:
        with relay("--tasks", "1", "--seed", "3") as (process, _, _):
            assert process.stdout
            return process.stdout.readline()

    assert first() == first()


async def test_the_relay_uses_its_seed_failure_share_faults_latency_and_key() -> None:
    key = "sk-$(id);'x"
    options = ("--seed", "3", "--fails", "1", "--faults", "stale=0.5", "--latency", "0.02")
    with relay("--tasks", "1", "--seconds", "0", "--api-key", key, *options) as (
        process,
        url,
        settings,
    ):
        assert shlex.split(settings["LUMA_API_KEY"]) == [key]
        assert process.stdout
        task_id = process.stdout.readline().strip()
        assert task_id == await _first_id(seed=3) != await _first_id(seed=0)
        events: list[RequestEvent] = []
        async with LumaSession(url, api_key=key, on_request=events.append) as luma:
            found: set[State] = set()
            for _ in range(20):
                with suppress(NotFoundError):
                    found.add((await luma.get(task_id)).state)
        assert found == {State.FAILED}
        assert 0 < sum(event.error is not None for event in events) < 20
        assert min(event.seconds for event in events) > 0.015


async def _first_id(seed: int) -> str:
    async with FakeRelay(seed=seed) as one:
        return one.submit()


async def test_the_relay_plays_a_captured_file_back(tmp_path: Path) -> None:
    file = tmp_path / "relay.ndjson"
    async with FakeRelay(envelope="wrapped") as recorded:
        async with LumaSession(recorded.url, api_key=recorded.api_key, record=file) as luma:
            await luma.get_many([recorded.add()])
    with relay("--replay", str(file), "--tasks", "1", "--seconds", "0.01") as (process, url, _):
        assert process.stdout
        task_id = process.stdout.readline().strip()
        async with LumaSession(url, api_key="sk-fake") as luma:
            (done,) = (await luma.wait_until_done([task_id], timeout=20)).values()
            assert done.url == f"{url}/media/{task_id}.mp4"
            assert "task_id" in done.raw


def test_a_file_that_cannot_be_replayed_is_exit_code_2(capsys: Capture, tmp_path: Path) -> None:
    assert main(["relay", "--port", "0", "--replay", str(tmp_path / "none")]) == 2
    assert "No such file or directory" in capsys.readouterr().err
    (tmp_path / "other").write_text("{}")
    assert main(["relay", "--port", "0", "--replay", str(tmp_path / "other")]) == 2
    assert capsys.readouterr().err.endswith("give one that luma-async capture wrote\n")
