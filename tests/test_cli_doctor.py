"""`luma-async doctor`: what it prints to which stream, and its exit codes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from luma_async.cli import main
from luma_async.recording.capture_file import read_capture
from tests.relay_thread import Served, served

Capture = pytest.CaptureFixture[str]
HASTE = ("--max-rate", "500", "--allow-host", "127.0.0.1")


@pytest.fixture
def relay(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    with served() as one:
        monkeypatch.setenv("LUMA_BASE_URL", one.url)
        monkeypatch.setenv("LUMA_API_KEY", "sk-fake")
        yield one


def test_each_request_is_named_on_standard_error_and_the_findings_are_printed(
    relay: Served, capsys: Capture
) -> None:
    assert main(["doctor", relay.add(), relay.add(duration=100), *HASTE]) == 0
    out, err = capsys.readouterr()
    named = err.splitlines()
    assert named[0].startswith("luma-async: request 1 of 40 at most: single GET, is the base URL")
    sent = relay.do(lambda: relay.relay.requests + len(relay.relay.media_log))
    assert len(named) == sent
    assert "ok       batch-call        the batch call answers" in out
    assert "The default settings fit.\n" in out
    assert out.splitlines()[-1].startswith(f"{sent} requests; ")


def test_no_task_is_submitted(relay: Served) -> None:
    main(["doctor", *HASTE])
    asked = relay.do(lambda: relay.relay.log)
    assert {one.path for one in asked if one.method == "POST"} == {"/luma/tasks"}


def test_trouble_is_exit_code_1_and_json_is_one_object(relay: Served, capsys: Capture) -> None:
    wrong = f"{relay.url}/v1"
    assert main(["doctor", "--base-url", wrong, "--json", *HASTE]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["trouble"] is True
    assert printed["options"] == f"--base-url {relay.url}"
    assert {"check": "key", "level": "ok", "text": "the key is accepted", "follows": ""} in printed[
        "findings"
    ]


def test_a_terminal_shows_a_table(
    relay: Served, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["doctor", "--base-url", f"{relay.url}/v1", *HASTE]) == 1
    out = capsys.readouterr().out
    assert "trouble" in out
    assert "→ /v1 is too many" in out


def test_what_cannot_be_used_is_exit_code_2(
    relay: Served, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LUMA_API_KEY")
    assert main(["doctor"]) == 2
    assert capsys.readouterr().err.endswith("pass api_key or set LUMA_API_KEY\n")
    monkeypatch.setenv("LUMA_API_KEY", "sk-fake")
    assert main(["doctor", "--base-url", "ftp://x"]) == 2
    assert capsys.readouterr().err.endswith("give a URL such as https://relay.example\n")


def test_capture_writes_a_file_without_secrets(
    relay: Served, capsys: Capture, tmp_path: Path
) -> None:
    task_id, file = relay.add(prompt="a secret prompt"), tmp_path / "relay.ndjson"
    assert main(["capture", "--out", str(file), task_id, *HASTE]) == 0
    shapes = len(read_capture(file))
    assert shapes >= 4
    out, err = capsys.readouterr()
    assert out == f"{shapes} shapes of responses are in {file}\n"
    assert "request 1 of 40" in err
    for secret in (task_id, "a secret prompt", "sk-fake", "127.0.0.1"):
        assert secret not in file.read_text()


@pytest.mark.parametrize("command", ["wait", "get", "doctor"])
def test_the_option_capture_records_beside_the_work(
    relay: Served, command: str, tmp_path: Path
) -> None:
    file = tmp_path / "relay.ndjson"
    options = () if command == "get" else ("--max-rate", "500")
    assert main([command, relay.add(), "--capture", str(file), *options]) in (0, 1)
    assert read_capture(file)


def test_a_file_that_cannot_be_written_is_exit_code_2(
    relay: Served, capsys: Capture, tmp_path: Path
) -> None:
    assert main(["capture", "--out", str(tmp_path / "none" / "file")]) == 2
    assert "No such file or directory" in capsys.readouterr().err
    assert relay.do(lambda: relay.relay.requests) == 0
