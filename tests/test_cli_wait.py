"""`luma-async wait` and `get`: standard output, standard error, exit codes and files."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from luma_async import Learned, Limits, LumaSession
from luma_async.cli import _parser, main  # pyright: ignore[reportPrivateUsage]
from luma_async.cli.commands.wait import WaitCommand
from luma_async.cli.options.id_parser import MAX_LINE
from luma_async.cli.options.ids import CHUNK_SIZE, NO_IDS
from luma_async.cli.options.session import session_of
from luma_async.cli.runtime import kept_signal_handlers
from luma_async.testing import Reply
from tests.relay_thread import Served, served

Capture = pytest.CaptureFixture[str]
AGAIN = "; run it again with the same ids to continue\n"
HASTE = ("--interval", "0.05", "--max-rate", "500")


@pytest.fixture
def relay(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    with served() as one:
        monkeypatch.setenv("LUMA_BASE_URL", one.url)
        monkeypatch.setenv("LUMA_API_KEY", "sk-fake")
        yield one


def lines(capture: Capture) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capture.readouterr().out.splitlines()]


@pytest.fixture
def grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the grace period to zero: an unknown id is missing at once."""
    hasty = partial(LumaSession, missing_grace=0.0)
    monkeypatch.setattr("luma_async.cli.options.session.LumaSession", hasty)


def test_wait_prints_a_line_for_each_task_in_the_order_in_which_they_end(
    relay: Served, capsys: Capture
) -> None:
    late, soon = relay.add(duration=1.0), relay.add(duration=0.0)
    assert main(["wait", late, soon, late, *HASTE]) == 0
    printed = lines(capsys)
    assert [one["id"] for one in printed] == [soon, late]
    assert {one["state"] for one in printed} == {"completed"}
    assert all(one["ended"] and one["url"].startswith("http") for one in printed)
    assert printed[0]["generation"]["id"] == soon


@pytest.mark.usefixtures("grace")
def test_the_exit_code_is_0_only_if_all_tasks_are_completed(relay: Served, capsys: Capture) -> None:
    good, bad = relay.add(), relay.add(ends="failed", failure_reason="moderated")
    assert main(["wait", good, *HASTE]) == 0
    assert main(["wait", good, bad, *HASTE]) == 1
    assert main(["wait", good, "nobody", *HASTE]) == 1
    assert main(["get", good]) == 0
    assert main(["get", good, bad]) == 1
    assert main(["get", "nobody"]) == 1
    printed = {one["id"]: one for one in lines(capsys)}
    assert printed[bad]["failure_reason"] == "moderated"
    assert printed["nobody"]["state"] == "missing"


def test_get_prints_an_open_task_as_not_ended(relay: Served, capsys: Capture) -> None:
    task_id = relay.add(duration=100)
    assert main(["get", task_id]) == 0
    (printed,) = lines(capsys)
    assert (printed["state"], printed["ended"]) == ("processing", False)


def test_ids_are_read_from_a_file_and_from_a_pipe_while_it_is_written(
    relay: Served, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = (relay.add() for _ in range(3))
    (tmp_path / "ids").write_text(f"\ufeff{first}\r\n\n  \n")
    reading, writing = os.pipe()
    with open(reading) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)

        def write() -> None:
            os.write(writing, f"{second}\n".encode())
            until_asked(relay, second)
            os.write(writing, third.encode())
            os.close(writing)

        thread = threading.Thread(target=write)
        thread.start()
        assert main(["wait", "-", "--file", str(tmp_path / "ids"), *HASTE]) == 0
        thread.join()
    assert {one["id"] for one in lines(capsys)} == {first, second, third}
    (tmp_path / "none").touch()
    for command in ("wait", "get"):
        assert main([command, "--file", str(tmp_path / "none")]) == 0
        assert capsys.readouterr() == ("", f"luma-async: {NO_IDS}\n")


def until_asked(relay: Served, task_id: str) -> None:
    deadline = time.monotonic() + 30
    while not any(task_id in asked.ids for asked in relay.do(lambda: relay.relay.log)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_timeout_prints_the_open_tasks_and_how_to_continue(
    relay: Served, capsys: Capture, tmp_path: Path
) -> None:
    done, still = relay.add(), relay.add("it's open", duration=100)
    page = tmp_path / "page.html"
    waiting = ["wait", done, still, "--timeout", "0.5s", "--report", str(page), *HASTE]
    assert main(waiting) == 124
    out, err = capsys.readouterr()
    printed = [json.loads(line) for line in out.splitlines()]
    assert [(one["id"], one["ended"]) for one in printed] == [(done, True), (still, False)]
    assert printed[1]["state"] == "processing"
    expected = f"luma-async: the timeout of 0.5 s is over: 1 of 2 is still open{AGAIN}"
    assert err == expected
    assert "not finished yet" in page.read_text()


@pytest.mark.parametrize(
    ("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]
)
def test_a_signal_prints_the_open_tasks(relay: Served, sign: signal.Signals, code: int) -> None:
    done, still = relay.add(), relay.add(duration=100)
    command = [sys.executable, "-m", "luma_async", "wait", done, still, *HASTE]
    default = partial(signal.signal, sign, signal.SIG_DFL)  # may be ignored
    with subprocess.Popen(
        command,
        stdout=-1,
        stderr=-1,
        text=True,
        preexec_fn=default,  # noqa: PLW1509
    ) as process:
        try:
            assert process.stdout
            first = json.loads(process.stdout.readline())
            process.send_signal(sign)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == code
    assert (first["id"], first["ended"]) == (done, True)
    assert (json.loads(out)["id"], json.loads(out)["ended"]) == (still, False)
    assert err == f"luma-async: 1 of 2 is still open{AGAIN}"


def test_a_rejected_key_aborts_the_wait_with_exit_code_3(
    relay: Served, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUMA_API_KEY", "sk-another-s3cret")
    task_id = relay.add()
    assert main(["wait", task_id, *HASTE]) == 3
    assert main(["get", task_id]) == 3
    out, err = capsys.readouterr()
    printed = [json.loads(line) for line in out.splitlines()]
    assert [(one["state"], one["ended"]) for one in printed] == [(None, False)] * 2
    assert "the wait cannot continue: status 401" in err
    assert f"1 of 1 is still open{AGAIN}" in err
    assert "401" in err.splitlines()[-1]
    assert err.endswith("check the key and --base-url\n")
    assert "s3cret" not in out + err


def test_a_key_in_the_arguments_is_warned_about(
    relay: Served, capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("LUMA_API_KEY")
    task_id = relay.add()
    assert main(["get", task_id, "--api-key", "sk-fake"]) == 0
    assert "shows in ps; set LUMA_API_KEY, or --api-key-file" in capsys.readouterr().err
    (tmp_path / "key").write_text("sk-fake\n")
    assert main(["get", task_id, "--api-key-file", str(tmp_path / "key")]) == 0
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["wait"], "or --file FILE"),
        (["get"], "or --file FILE"),
        (["wait", "a", "--report", "/nowhere/at/all.html"], "in a directory that is there"),
        (["wait", "a", "--base-url", "ftp://x"], "give a URL such as https://relay.example"),
        (["wait", "--file", "/nowhere/ids"], "No such file or directory: '/nowhere/ids'"),
        (["wait", "a", "--api-key-file", "/nowhere/key"], "'/nowhere/key'"),
        (["wait", "a", "--download", "/proc/no/where"], "'/proc/no'"),
        (["wait", ""], "give the id that the relay returned at submission"),
        (["get", ""], "give the id that the relay returned at submission"),
    ],
)
@pytest.mark.usefixtures("relay")
def test_a_command_that_cannot_run_names_the_argument_to_give(
    arguments: list[str], remedy: str, capsys: Capture
) -> None:
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert remedy in line


def test_a_pipe_without_ids_is_reported_at_the_timeout(
    relay: Served, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    with open(reading) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert main(["wait", "-", "--timeout", "0.05", *HASTE]) == 124
        os.close(writing)
    assert capsys.readouterr().err == (
        "luma-async: the timeout of 50 ms is over: no ids came; run it again to continue\n"
    )


def test_without_a_key_or_a_base_url_the_error_names_the_variable_to_set(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LUMA_BASE_URL", raising=False)
    monkeypatch.delenv("LUMA_API_KEY", raising=False)
    assert main(["wait", "a"]) == 2
    assert main(["wait", "a", "--base-url", "https://relay.example"]) == 2
    err = capsys.readouterr().err
    assert err.splitlines() == [
        "luma-async: no base URL; give --base-url or set LUMA_BASE_URL",
        "luma-async: no API key; give --api-key-file or set LUMA_API_KEY",
    ]


def test_control_characters_in_texts_are_escaped_in_the_json_lines(
    relay: Served, capsys: Capture
) -> None:
    evil = 'x\n{"id":"forged"}\x1b[31m\u202e\x9b'
    task_id = relay.add(f"{evil}", ends="failed", failure_reason=evil)
    assert main(["wait", task_id, *HASTE]) == 1
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert out[:-1].isprintable()
    assert json.loads(out)["failure_reason"] == evil
    assert json.loads(out)["id"] == evil


def test_a_closed_output_pipe_is_not_an_error(relay: Served) -> None:
    ids = [relay.add() for _ in range(3)]
    command = f"{sys.executable} -m luma_async wait {' '.join(ids)} {' '.join(HASTE)} | head -n 1"
    run = subprocess.run(
        command, shell=True, capture_output=True, text=True, timeout=20, check=True
    )
    assert json.loads(run.stdout)["ended"]
    assert "Traceback" not in run.stderr


def test_a_closed_output_pipe_stops_a_wait_without_downloads_or_report(relay: Served) -> None:
    first, second, still = relay.add(), relay.add(duration=100.0), relay.add(duration=100.0)
    command = [sys.executable, "-m", "luma_async", "wait", first, second, still, *HASTE]
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True) as process:
        try:
            assert process.stdout
            assert json.loads(process.stdout.readline())["id"] == first
            process.stdout.close()
            relay.do(lambda: relay.relay.finish(second))
            assert process.wait(20) == 0
            assert process.stderr
            assert process.stderr.read() == ""
        finally:
            process.kill()


@pytest.mark.parametrize("data", [b"\xff\xfe\n", b"a\0b\n", b"x" * (MAX_LINE + 1)])
def test_binary_data_in_a_file_of_ids_is_rejected(
    relay: Served, capsys: Capture, tmp_path: Path, data: bytes
) -> None:
    (tmp_path / "data").write_bytes(data)
    assert main(["wait", "--file", str(tmp_path / "data"), "--timeout", "5s", *HASTE]) == 2
    assert "give ids as UTF-8" in capsys.readouterr().err
    assert relay.relay.requests == 0


def test_binary_data_after_many_ids_stops_the_wait_and_the_known_tasks_are_printed(
    relay: Served, capsys: Capture, tmp_path: Path
) -> None:
    done, still = relay.add(), relay.add(duration=100)
    (tmp_path / "ids").write_bytes(f"{done}\n{still}\n".encode() + b"x\n" * CHUNK_SIZE + b"\xff\n")
    page = tmp_path / "page.html"
    waiting = ["wait", "--file", str(tmp_path / "ids"), "--report", str(page), *HASTE]
    assert main(waiting) == 2
    out, err = capsys.readouterr()
    assert {done, still} <= {json.loads(line)["id"] for line in out.splitlines()}
    assert "give ids as UTF-8" in err
    assert ", and not all ids were read" in err
    assert still in page.read_text()


def test_get_stops_at_sigterm_and_prints_no_error(relay: Served) -> None:
    task_id = relay.add()
    command = [sys.executable, "-m", "luma_async", "get", task_id, "-", *HASTE]
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, text=True) as process:
        try:
            until_asked(relay, task_id)
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 143
            assert process.stdout
            assert json.loads(process.stdout.read())["id"] == task_id
            assert process.stderr
            assert process.stderr.read() == ""
        finally:
            process.kill()


def test_an_interrupted_get_prints_the_tasks_that_it_has(
    relay: Served, capsys: Capture, tmp_path: Path
) -> None:
    task_id = relay.add()
    (tmp_path / "ids").write_bytes(b"x\n" * CHUNK_SIZE + b"\xff\n")
    assert main(["get", task_id, "--file", str(tmp_path / "ids")]) == 2
    assert lines(capsys)[0]["id"] == task_id


def test_the_rate_limit_and_proxy_options_are_used(relay: Served, capsys: Capture) -> None:
    ids = [relay.add() for _ in range(6)]
    slow = ["--max-batch", "2", "--max-rate", "5", "--max-in-flight", "1", "--interval", "0.05"]
    assert main(["wait", *ids, *slow]) == 0
    log = relay.do(lambda: relay.relay.log)
    assert {len(asked.ids) for asked in log} == {2}
    assert log[2].at - log[0].at > 0.35, "at 10 a second it would be 0.21"
    assert main(["get", ids[0], "--proxy", "http://127.0.0.1:1"]) == 3
    assert "127.0.0.1:1" in capsys.readouterr().err
    assert len(relay.do(lambda: relay.relay.log)) == 3
    luma = session_of(_parser().parse_args(["wait", "a", *slow]))
    assert luma._limits == Limits(max_batch=2, max_rate=5.0, max_in_flight=1)  # pyright: ignore[reportPrivateUsage]
    assert luma._pace == Learned(0.05)  # pyright: ignore[reportPrivateUsage]


def test_a_dead_link_is_requested_from_the_relay_again(
    relay: Served, capsys: Capture, tmp_path: Path
) -> None:
    task_id = relay.add()
    relay.do(lambda: relay.relay.reply(Reply(410), on="media"))
    saving = ["--download", str(tmp_path), "--allow-host", "127.0.0.1"]
    assert main(["wait", task_id, *saving, *HASTE]) == 1
    error = lines(capsys)[0]["error"]
    assert "status 410" in error
    assert error.endswith("the relay has no other link; try again in some minutes")
    asked = relay.do(lambda: [one.method for one in relay.relay.log])
    assert asked[-1] == "GET"


def test_a_closed_output_pipe_does_not_stop_downloads(relay: Served, tmp_path: Path) -> None:
    ids = [relay.add(duration=0.1 * number) for number in range(4)]
    saving = f"--download {tmp_path} --allow-host 127.0.0.1"
    command = f"{sys.executable} -m luma_async wait {' '.join(ids)} {saving} {' '.join(HASTE)}"
    subprocess.run(
        f"{command} | head -n 1", shell=True, capture_output=True, timeout=20, check=True
    )
    assert {one.name for one in tmp_path.iterdir()} == {f"{task_id}.mp4" for task_id in ids}


def test_a_report_replaces_only_files_and_symbolic_links(
    relay: Served, capsys: Capture, tmp_path: Path
) -> None:
    (tmp_path / "real.html").write_text("old")
    (tmp_path / "link.html").symlink_to("real.html")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    task_id = relay.add()
    assert main(["wait", task_id, "--report", str(tmp_path / "pipe"), *HASTE]) == 2
    assert main(["wait", task_id, "--report", str(tmp_path / "folder"), *HASTE]) == 2
    assert capsys.readouterr().err.count("cannot be written; give a file") == 2
    assert main(["wait", task_id, "--report", str(tmp_path / "link.html"), *HASTE]) == 0
    assert not (tmp_path / "link.html").is_symlink()
    assert task_id in (tmp_path / "link.html").read_text()
    assert (tmp_path / "real.html").read_text() == "old"


@pytest.mark.parametrize("command", ["wait", "get"])
def test_a_closed_standard_output_does_not_change_the_exit_code(
    relay: Served, command: str
) -> None:
    line = f"{sys.executable} -m luma_async {command} {relay.add()} >&-"
    run = subprocess.run(
        line, shell=True, stderr=subprocess.PIPE, text=True, timeout=20, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")


def test_with_a_closed_standard_error_no_warning_is_written_to_standard_output(
    relay: Served,
) -> None:
    line = f"{sys.executable} -m luma_async wait {relay.add()} --api-key sk-fake 2>&-"
    run = subprocess.run(
        line, shell=True, stdout=subprocess.PIPE, text=True, timeout=20, check=True
    )
    assert json.loads(run.stdout)["ended"]


def test_ids_are_read_from_a_nonblocking_pipe(relay: Served) -> None:
    task_id = relay.add()
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    command = [sys.executable, "-m", "luma_async", "wait", "-", *HASTE]
    process = subprocess.Popen(command, stdin=reading, stdout=subprocess.PIPE)
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        os.write(writing, f"{task_id}\n".encode())
    finally:
        os.close(writing)
    out, _ = process.communicate(timeout=20)
    os.close(reading)
    assert json.loads(out)["id"] == task_id


def test_a_standard_input_that_cannot_be_read_is_reported(relay: Served) -> None:
    line = f"{sys.executable} -m luma_async wait {relay.add()} - {' '.join(HASTE)} 0>/dev/null"
    run = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=20, check=False)
    assert run.returncode == 2
    assert "Bad file descriptor" in run.stderr
    assert "not all ids were read" in run.stderr


def test_a_number_too_long_for_python_is_printed_as_the_relay_sent_it(
    relay: Served, capsys: Capture
) -> None:
    body = b'{"id": "a", "state": "completed", "odd": %s}' % (b"1" * 5000)
    relay.do(lambda: relay.relay.reply(Reply(body=body), on=None))
    assert main(["get", "a"]) == 0
    assert "1" * 5000 in lines(capsys)[0]["generation"]


def test_each_video_is_saved_when_its_task_is_completed(
    relay: Served, capsys: Capture, tmp_path: Path
) -> None:
    ids, videos = [relay.add() for _ in range(3)], tmp_path / "videos"
    page = tmp_path / "page.html"
    saving = ["--download", str(videos), "--report", str(page), *HASTE]
    assert main(["wait", *ids, *saving]) == 1
    assert all(
        "name the host by --allow-host" in one["error"] and one["ended"] for one in lines(capsys)
    )
    assert main(["wait", *ids, *saving, "--allow-host", "127.0.0.1"]) == 0
    assert sorted(one["file"] for one in lines(capsys)) == sorted(
        str(videos / f"{task_id}.mp4") for task_id in ids
    )
    assert (videos / f"{ids[0]}.mp4").read_bytes()[4:8] == b"ftyp"
    assert f'src="videos/{ids[0]}.mp4"' in page.read_text()
    (tmp_path / ".parts").touch()
    full = ["--download", str(tmp_path), "--allow-host", "127.0.0.1"]
    assert main(["wait", *ids[:2], *full]) == 1
    assert all("File exists" in one["error"] and one["ended"] for one in lines(capsys))
    assert main(["wait", ids[0], "--report", str(page), "--allow-host", "127.0.0.1"]) == 0
    assert f'src="{relay.url}/media/{ids[0]}.mp4"' in page.read_text()


def test_a_timeout_cancels_a_download_and_reports_it(
    relay: Served, capsys: Capture, tmp_path: Path
) -> None:
    task_id = relay.add()
    relay.do(lambda: relay.relay.reply(Reply(delay=30), on="media"))
    saving = ["--download", str(tmp_path), "--allow-host", "127.0.0.1", "--timeout", "0.5s"]
    assert main(["wait", task_id, *saving, *HASTE]) == 124
    out, err = capsys.readouterr()
    assert (json.loads(out)["state"], json.loads(out)["file"]) == ("completed", None)
    assert err == (
        "luma-async: the timeout of 0.5 s is over: 0 of 1 are still open, "
        f"1 video is not saved{AGAIN}"
    )


def test_version_lists_the_dependencies(capsys: Capture) -> None:
    assert main(["version"]) == 0
    out = capsys.readouterr().out
    for part in ("luma-async", "python", "aiohttp", "anyio", "msgspec", "rich"):
        assert f"{part} " in out


def test_a_failed_request_is_reported_on_standard_error(relay: Served) -> None:
    task_id = relay.add()
    relay.do(lambda: relay.relay.reply(Reply(status=502), on=None))
    command = [sys.executable, "-m", "luma_async", "wait", task_id, *HASTE]
    run = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    assert json.loads(run.stdout)["state"] == "completed"
    assert run.stderr.startswith("luma-async: a request failed: status 502")
    assert run.stderr.count("\n") == 1


def test_an_ascii_terminal_shows_the_table(relay: Served) -> None:
    import pty

    bad = relay.add(ends="failed", failure_reason="内容")
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "luma_async", "wait", bad, *HASTE]
    environ = {**os.environ, "TERM": "xterm", "PYTHONIOENCODING": "ascii"}
    process = subprocess.Popen(command, stdout=child, stderr=child, env=environ)
    os.close(child)
    seen = io.BytesIO()
    with suppress(OSError):
        while data := os.read(parent, 65536):
            seen.write(data)
    os.close(parent)
    assert process.wait(10) == 1
    assert "1 failed; " in seen.getvalue().decode("ascii")


def test_a_terminal_shows_the_table(relay: Served) -> None:
    import pty

    good, bad = relay.add(), relay.add(ends="failed", failure_reason="mo[red]derated\x1b[31m")
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "luma_async", "wait", good, bad, *HASTE]
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    process = subprocess.Popen(command, stdout=child, stderr=child, env=environ)
    os.close(child)
    seen = io.BytesIO()
    while True:
        try:
            seen.write(os.read(parent, 65536))
        except OSError:
            break
    assert process.wait(10) == 1
    text = seen.getvalue().decode()
    assert "1 completed, 1 failed; " in text
    assert f"/media/{good}.mp4\x1b[0m\r\n" in text
    assert "mo[red]derated\ufffd[31m" in text


def test_nothing_is_kept_of_a_task_whose_line_was_printed(relay: Served, capsys: Capture) -> None:
    done, still = relay.add(), relay.add(duration=100.0)
    arguments = _parser().parse_args(["wait", done, still, "--timeout", "1", *HASTE])
    command = WaitCommand(arguments)
    with kept_signal_handlers():
        assert command.run() == 124
    rows = command._board.rows  # pyright: ignore[reportPrivateUsage]
    assert (rows[done].details, rows[done].stored) == (None, None)
    assert rows[still].details is None, "it is on disk while the task is open"
    assert json.loads(capsys.readouterr().out.splitlines()[1])["generation"]["id"] == still


def test_a_video_that_waits_for_its_turn_is_reported_if_the_wait_ends_before(
    relay: Served, capsys: Capture, tmp_path: Path
) -> None:
    ids = [relay.add() for _ in range(9)]
    for _ in range(4):
        relay.do(lambda: relay.relay.reply(Reply(delay=30), on="media"))
    saving = ["--download", str(tmp_path), "--allow-host", "127.0.0.1", "--timeout", "1"]
    assert main(["wait", *ids, *saving, *HASTE]) == 124
    out, err = capsys.readouterr()
    reported = [json.loads(line) for line in out.splitlines()]
    assert {(one["id"], one["generation"]["id"], one["file"]) for one in reported} == {
        (task_id, task_id, None) for task_id in ids
    }
    assert "9 videos are not saved" in err


def test_more_videos_than_are_saved_at_a_time_are_saved(
    relay: Served, capsys: Capture, tmp_path: Path
) -> None:
    ids = [relay.add(duration=0.02 * number) for number in range(25)]
    saving = ["--download", str(tmp_path), "--allow-host", "127.0.0.1"]
    assert main(["wait", *ids, *saving, *HASTE]) == 0
    assert sorted(one["id"] for one in lines(capsys)) == sorted(ids)
    assert len(list(tmp_path.iterdir())) == 25


@pytest.mark.parametrize("command", ["wait", "get"])
def test_the_fields_of_a_line_are_those_that_are_named(
    relay: Served, capsys: Capture, command: str
) -> None:
    task_id = relay.add(ends="failed", failure_reason="moderated")
    assert main([command, task_id, "--fields", "state, id,failure_reason,id"]) == 1
    expected = {"state": "failed", "id": task_id, "failure_reason": "moderated"}
    (out,) = capsys.readouterr().out.splitlines()
    assert list(json.loads(out).items()) == list(expected.items())


def test_csv_has_a_header_and_quotes_what_needs_it(
    relay: Served, capsys: Capture, tmp_path: Path
) -> None:
    bad = relay.add('a"b', ends="failed", failure_reason="moderated,\n\x1b[31m")
    assert main(["wait", bad, "--csv", *HASTE]) == 1
    out = capsys.readouterr().out
    assert out.splitlines() == [
        "id,state,ended,url,failure_reason,file,error",
        '"a""b",failed,true,,"moderated,\\n\\u001b[31m",,',
    ]
    assert main(["get", bad, "--csv", "--fields", "generation,id"]) == 1
    header, line = csv.reader(capsys.readouterr().out.splitlines())
    assert header == ["generation", "id"]
    assert json.loads(line[0])["id"] == line[1] == 'a"b'
    (tmp_path / "none").touch()
    assert main(["wait", "--file", str(tmp_path / "none"), "--csv", "--fields", "id"]) == 0
    assert capsys.readouterr().out == "id\n"


def test_the_relays_text_is_not_kept_if_no_line_shows_it(relay: Served) -> None:
    arguments = _parser().parse_args(["wait", relay.add(), "--fields", "id"])
    command = WaitCommand(arguments)
    assert not command._output.shows_original  # pyright: ignore[reportPrivateUsage]


def test_ids_are_read_from_a_table(relay: Served, capsys: Capture, tmp_path: Path) -> None:
    first, second = relay.add(), relay.add()
    table = tmp_path / "tasks.csv"
    table.write_text(f'task_id,prompt\n{first},"a cat,\nasleep"\n{second},a dog\n')
    assert main(["wait", "--file", str(table), *HASTE]) == 0
    out, err = capsys.readouterr()
    assert {json.loads(line)["id"] for line in out.splitlines()} == {first, second}
    assert err == f"luma-async: {table}: the ids are in the column task_id\n"


def test_what_a_wait_printed_is_read_as_ids(relay: Served, capsys: Capture, tmp_path: Path) -> None:
    done, still = relay.add(), relay.add(duration=100)
    assert main(["wait", done, still, "--timeout", "0.5", *HASTE]) == 124
    (tmp_path / "ends.ndjson").write_text(capsys.readouterr().out)
    assert main(["get", "--file", str(tmp_path / "ends.ndjson")]) == 0
    assert {one["id"] for one in lines(capsys)} == {done, still}


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ("sk-fake\r\n".encode("utf-16"), None),
        ("\ufeff sk-fake\u200b\n".encode(), None),
        ("sk-fake".encode("utf-16-le"), "is not valid text; save it as UTF-8"),
        (b"\xffsk-fake", "is not valid text; save it as UTF-8"),
        (b"\n", "is empty; write the API key into it"),
    ],
)
def test_a_key_file_is_read_in_its_encoding_or_refused_by_name(
    relay: Served, capsys: Capture, tmp_path: Path, data: bytes, problem: str | None
) -> None:
    path = tmp_path / "key"
    path.write_bytes(data)
    code = main(["get", relay.add(), "--api-key-file", str(path)])
    err = capsys.readouterr().err
    assert code == (2 if problem else 0), err
    if problem:
        assert f"{path} {problem}" in err
        assert "sk-" not in err


@pytest.mark.parametrize("fields", ["", "id,state,nope", "ID"])
def test_an_unknown_field_is_refused_with_those_there_are(capsys: Capture, fields: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["wait", "a", "--fields", fields])
    assert caught.value.code == 2
    assert "names no fields; give some of id, state, ended, url," in capsys.readouterr().err


def test_get_at_a_wrong_base_url_says_which_part_to_remove(relay: Served, capsys: Capture) -> None:
    wrong = f"{relay.url}/luma"
    assert main(["get", relay.add(), "--base-url", wrong]) == 3
    out, err = capsys.readouterr()
    assert json.loads(out)["state"] is None
    assert err.startswith("luma-async: status 404: Invalid URL (GET /luma/luma/generations/")
    assert err.endswith(f"; the base URL is {wrong}; remove /luma from its end\n")
    assert len(err.splitlines()) == 1
