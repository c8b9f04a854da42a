"""The command line: what it prints to which stream, its exit codes and its usage errors."""

import asyncio
import re
import runpy
import signal
import subprocess
import sys
from collections.abc import Coroutine
from typing import Any

import pytest

from luma_async import __main__ as module
from luma_async import __version__
from luma_async.cli import main
from luma_async.cli.display.table import shares
from luma_async.testing import run_virtual
from luma_async.text import format_precisely

DEMO = ["demo", "--tasks", "50", "--seconds", "5", "--interval", "0.5"]
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the colour and terminal settings of the machine that runs the tests."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def virtual(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the command in virtual time."""
    monkeypatch.setattr(asyncio, "run", run_virtual)


@pytest.fixture
def terminal(virtual: None, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> Capture:
    """Make standard output a terminal of 80 columns, and return the captured output."""
    monkeypatch.setattr(_class_of(sys.stdout), "isatty", _yes)  # pytest replaces the object
    return capsys


def _class_of(value: object) -> type[object]:
    return type(value)


def _yes(_: object) -> bool:
    return True


def usage_error(capsys: Capture, *argv: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.usefixtures("virtual")
def test_a_pipe_receives_only_plain_lines(capsys: Capture) -> None:
    assert main(DEMO) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    first, *more = err.splitlines()
    assert first == "luma-async: 50 tasks will end within 5 s; the report follows"
    assert all(line.endswith(" of 50 ended") for line in more)
    assert out.isascii()
    assert "\x1b" not in out
    assert [line.split("  ")[0] for line in lines if not line.startswith(" ")] == [
        "Tasks",
        "Requests",
        "Delay",
    ]
    completed, failed = int(lines[1].split()[1]), int(lines[2].split()[1])
    assert (completed + failed, failed > 0) == (50, True)


@pytest.mark.usefixtures("virtual")
def test_a_pipe_receives_no_live_table_even_with_forced_colours(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert main(DEMO) == 0
    assert "requests in" not in capsys.readouterr().out


def test_a_terminal_shows_progress_and_then_the_report(terminal: Capture) -> None:
    assert main(DEMO) == 0
    out = terminal.readouterr().out
    live, report = out[: out.rindex("requests in")], out[out.rindex("requests in") :]
    for word in ("completed", "failed", "processing", "pending", "of 50 ended"):
        assert word in live
    assert "one GET per task" in report
    assert "\x1b[?25h" in report, "the cursor is shown again"


def test_a_dumb_terminal_shows_only_the_report(
    terminal: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert main(DEMO) == 0
    out = terminal.readouterr().out
    assert "requests in" not in out
    assert "one shared poller" in out


def interrupted(coro: Coroutine[Any, Any, list[str]]) -> list[str]:
    async def press_ctrl_c() -> list[str]:
        running = asyncio.ensure_future(coro)
        await asyncio.sleep(1.0)
        signal.raise_signal(signal.SIGINT)
        return await running

    return run_virtual(press_ctrl_c())


def test_ctrl_c_prints_one_line_and_exits_with_130(
    terminal: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asyncio, "run", interrupted)
    assert main(DEMO) == 130
    out, err = terminal.readouterr()
    assert err == "luma-async: stopped by ctrl-C before all had ended\n"
    assert "\x1b[?25h" in out, "the cursor is shown again"


def test_without_rich_the_error_is_one_line_that_ends_with_the_remedy(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert main(["demo"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert re.search(r"which is missing; \S*pip install 'rich\S+'\n$", err)


def test_help_needs_no_rich() -> None:
    code = "import sys; sys.modules['rich'] = None; from luma_async.cli import main; main(['-h'])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("usage: luma-async")


def test_python_m_luma_async_runs_the_command() -> None:
    argv = [sys.executable, "-m", "luma_async", "--version"]
    ran = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == (f"luma-async {__version__}\n", "")


def test_python_m_luma_async_exits_with_the_code_of_the_command(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.setattr(sys, "argv", ["luma-async", "demo"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(module.__file__, run_name="__main__")
    assert ended.value.code == 2
    assert "rich" in capsys.readouterr().err


def test_the_help_of_the_demo_names_each_option_and_its_default(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for option in ("--tasks", "--seconds", "--interval", "--seed"):
        assert f"{option} N" in text
    for default in ("1000", "20", "1", "0"):
        assert f"(default {default})" in text
    assert "About 8% of the tasks fail" in text


def test_a_missing_command_is_a_usage_error_that_names_one(capsys: Capture) -> None:
    assert usage_error(capsys).endswith("try luma-async demo\n")


@pytest.mark.parametrize("tasks", ["0", "-1", "100001"])
def test_a_number_of_tasks_out_of_range_is_a_usage_error(capsys: Capture, tasks: str) -> None:
    error = usage_error(capsys, "demo", f"--tasks={tasks}")
    assert f"--tasks: {tasks} is out of range" in error
    assert error.endswith("give a whole number from 1 to 100000\n")


@pytest.mark.parametrize("option", ["--tasks", "--seed"])
@pytest.mark.parametrize("text", ["many", "1.5", "", "1e3"])
def test_text_instead_of_a_whole_number_is_a_usage_error(
    capsys: Capture, option: str, text: str
) -> None:
    error = usage_error(capsys, "demo", f"{option}={text}")
    assert f"{text!r} is no whole number; give a whole number " in error


@pytest.mark.parametrize("option", ["--seconds", "--interval"])
@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e-9", "soon", ""])
def test_a_duration_out_of_range_is_a_usage_error(capsys: Capture, option: str, text: str) -> None:
    error = usage_error(capsys, "demo", f"{option}={text}")
    assert f"argument {option}:" in error
    assert error.endswith("give seconds from 0.01 to 86400\n")


def test_abbreviated_options_are_rejected(capsys: Capture) -> None:
    assert "--task=5" in usage_error(capsys, "demo", "--task=5")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 ms"),
        (0.0271, "27 ms"),
        (0.0994, "99 ms"),
        (0.0999, "0.1 s"),
        (0.926, "0.93 s"),
        (1.0, "1 s"),
        (9.994, "9.99 s"),
        (9.999, "10 s"),
        (20.13, "20.1 s"),
        (119.9, "119.9 s"),
        (119.99, "2 min 0 s"),
        (200.4, "3 min 20 s"),
        (86400.0, "1,440 min 0 s"),
    ],
)
def test_a_duration_is_printed_with_the_usual_units(seconds: float, text: str) -> None:
    assert format_precisely(seconds) == text


@pytest.mark.parametrize(
    ("counts", "cells"),
    [
        ([0, 0, 0, 0], [0, 0, 0, 0]),
        ([1000, 0, 0, 0], [76, 0, 0, 0]),
        ([250, 250, 250, 250], [19, 19, 19, 19]),
        ([1, 1, 1, 997], [0, 0, 0, 76]),
    ],
)
def test_the_cells_of_a_bar_are_divided_among_the_states(
    counts: list[int], cells: list[int]
) -> None:
    assert shares(counts, 1000, 76) == cells


def test_a_reader_that_closes_the_pipe_is_no_error_of_the_demo() -> None:
    options = ["--tasks", "5", "--seconds", "0.2", "--interval", "0.1"]
    command = [sys.executable, "-m", "luma_async", "demo", *options]
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(30) == 0, said
    assert "Traceback" not in said
