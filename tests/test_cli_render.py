"""`luma-async render`: from prompts to videos, and the same command again after any end."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from luma_async.cli import main
from luma_async.cli.rendering.journal import LOCK_NAME, NAME
from luma_async.testing import Reply, SubmitFault
from tests.relay_thread import Served, served

Capture = pytest.CaptureFixture[str]
HASTE = ("--interval", "0.05", "--max-rate", "500", "--allow-host", "127.0.0.1")
PATIENCE = 30.0


@pytest.fixture
def relay(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    with served() as one:
        monkeypatch.setenv("LUMA_BASE_URL", one.url)
        monkeypatch.setenv("LUMA_API_KEY", "sk-fake")
        yield one


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("a cat\na dog\na fish\n")
    return path


def command(prompts: Path, *more: str) -> list[str]:
    return ["render", str(prompts), "--download", str(prompts.parent / "videos"), *HASTE, *more]


def created(relay: Served) -> list[str]:
    """Return the prompts of all tasks that were paid for."""
    return relay.do(lambda: [relay.relay.tasks[one].prompt for one in relay.relay.created])


def set_fault(relay: Served, fault: SubmitFault | None) -> None:
    def change() -> None:
        relay.relay.submit_faults = {} if fault is None else {fault: 1.0}

    relay.do(change)


def videos(prompts: Path) -> list[Path]:
    return sorted((prompts.parent / "videos").glob("*.mp4"))


def statuses(prompts: Path, capsys: Capture) -> list[str]:
    capsys.readouterr()
    assert main(["render", "--status", str(prompts.parent / "videos"), "--json"]) == 0
    return [json.loads(line)["status"] for line in capsys.readouterr().out.splitlines()]


def until(is_true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_each_prompt_becomes_a_video_and_the_same_command_again_sends_nothing(
    relay: Served, prompts: Path, capsys: Capture
) -> None:
    assert main(command(prompts)) == 0
    out, err = capsys.readouterr()
    assert {json.loads(line)["state"] for line in out.splitlines()} == {"completed"}
    assert err == "luma-async: 3 rows: 3 saved\n"
    assert sorted(created(relay)) == ["a cat", "a dog", "a fish"]
    assert len(videos(prompts)) == 3
    requests = relay.do(lambda: relay.relay.requests)
    assert main(command(prompts)) == 0
    assert relay.do(lambda: relay.relay.requests) == requests
    assert {path.name for path in (prompts.parent / "videos").iterdir()} == {
        NAME, LOCK_NAME, *(path.name for path in videos(prompts)),
    }  # fmt: skip


def test_a_row_that_is_added_is_submitted_and_a_removed_video_is_saved_again(
    relay: Served, prompts: Path
) -> None:
    assert main(command(prompts)) == 0
    videos(prompts)[0].unlink()
    prompts.write_text(f"a bird\n{prompts.read_text()}")
    assert main(command(prompts)) == 0
    assert sorted(created(relay)) == ["a bird", "a cat", "a dog", "a fish"]
    assert len(videos(prompts)) == 4


def test_no_more_tasks_are_open_than_concurrency_allows(relay: Served, prompts: Path) -> None:
    prompts.write_text("\n".join(f"cat {number}" for number in range(12)))
    assert main(command(prompts, "--concurrency", "2")) == 0
    log = relay.do(lambda: relay.relay.log)
    assert all(len(asked.ids) <= 2 for asked in log if asked.path == "/luma/tasks")
    assert len(created(relay)) == 12


def test_a_kill_while_an_answer_is_awaited_leaves_a_row_that_is_not_sent_again(
    relay: Served, prompts: Path, capsys: Capture
) -> None:
    prompts.write_text("a cat\n")
    set_fault(relay, "silent_after")
    with subprocess.Popen([sys.executable, "-m", "luma_async", *command(prompts)]) as process:
        until(lambda: created(relay))
        process.kill()
    set_fault(relay, None)
    assert main(command(prompts)) == 1
    err = capsys.readouterr().err
    assert "line 1, 'a cat': may have been submitted at 20" in err
    assert "1 row: 1 unknown" in err
    assert created(relay) == ["a cat"]
    assert main(["render", "--status", str(prompts.parent / "videos")]) == 0
    assert "may have been submitted at 20" in capsys.readouterr().out
    assert main(command(prompts, "--resubmit-unknown")) == 0
    assert created(relay) == ["a cat", "a cat"]


def test_ctrl_c_waits_for_the_answer_to_what_was_sent_and_submits_no_more(
    monkeypatch: pytest.MonkeyPatch, prompts: Path, capsys: Capture
) -> None:
    with served(latency=0.5) as relay:
        monkeypatch.setenv("LUMA_BASE_URL", relay.url)
        monkeypatch.setenv("LUMA_API_KEY", "sk-fake")
        arguments = [sys.executable, "-m", "luma_async", *command(prompts, "--concurrency", "1")]
        with subprocess.Popen(arguments, stderr=-1, text=True) as process:
            until(lambda: created(relay))
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130
        assert "waiting for the answer to 1 submission;" in err
        assert err.endswith("run it again with the same arguments to continue\n")
        assert statuses(prompts, capsys) == ["open", "not submitted", "not submitted"]
        assert main(command(prompts)) == 0
        assert sorted(created(relay)) == ["a cat", "a dog", "a fish"]


def test_a_lost_answer_is_listed_and_the_others_are_rendered(
    relay: Served, prompts: Path, capsys: Capture
) -> None:
    relay.do(lambda: relay.relay.reply(Reply(502), on="submit"))
    assert main(command(prompts, "--concurrency", "1")) == 1
    assert "line 1, 'a cat': may have been submitted" in capsys.readouterr().err
    assert main(command(prompts)) == 1
    assert created(relay) == ["a dog", "a fish"]


def test_a_used_up_quota_stops_submitting_and_the_rest_is_saved(
    relay: Served, prompts: Path, capsys: Capture
) -> None:
    full = Reply(403, b'{"code":"quota_not_enough","message":"user quota is not enough"}')
    relay.do(lambda: relay.relay.reply(Reply(429), on="submit"))
    assert main(command(prompts, "--max-tasks", "1")) == 0
    relay.do(lambda: relay.relay.reply(full, on="submit"))
    videos(prompts)[0].unlink()
    assert main(command(prompts, "--concurrency", "1")) == 3
    err = capsys.readouterr().err
    assert "no more was submitted: status 403: quota_not_enough" in err
    assert len(videos(prompts)) == 1
    assert statuses(prompts, capsys) == ["saved", "not submitted", "not submitted"]
    assert main(command(prompts)) == 0
    assert sorted(created(relay)) == ["a cat", "a dog", "a fish"]


def test_a_row_that_is_refused_does_not_stop_the_others_and_is_tried_by_the_next_run(
    relay: Served, prompts: Path, capsys: Capture
) -> None:
    relay.do(lambda: relay.relay.reply(Reply(400, b'{"detail":"moderated"}'), on="submit"))
    assert main(command(prompts, "--concurrency", "1")) == 1
    assert "line 1, 'a cat': refused (status 400: moderated)" in capsys.readouterr().err
    assert statuses(prompts, capsys) == ["refused", "saved", "saved"]
    assert main(command(prompts)) == 0


def test_max_tasks_is_a_limit_for_all_runs_together(
    relay: Served, prompts: Path, capsys: Capture
) -> None:
    for _ in range(2):
        assert main(command(prompts, "--max-tasks", "2")) == 0
        assert "3 rows: 2 saved, 1 not submitted; 1 held back" in capsys.readouterr().err
    assert created(relay) == ["a cat", "a dog"]


def test_a_dry_run_prints_what_would_be_sent_and_sends_nothing(
    relay: Served, tmp_path: Path, capsys: Capture
) -> None:
    table = tmp_path / "a.csv"
    table.write_text("user_prompt,image_url\na cat,https://cdn.example/a.png?sig=5ecre7\na dog,\n")
    assert main(command(table, "--dry-run", "--max-tasks", "1")) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "line": 2,
        "fields": {"user_prompt": "a cat", "image_url": "https://cdn.example/a.png?…"},
    }
    assert err == (
        "luma-async: dry run: 1 to submit, 1 are held back by --max-tasks; 0 to wait for, "
        "0 unknown\n"
    )
    assert relay.do(lambda: relay.relay.requests) == 0
    assert not (tmp_path / "videos").exists()


def test_a_failed_task_is_reported_and_not_submitted_again(prompts: Path, capsys: Capture) -> None:
    with served(fails=1.0) as relay, pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUMA_BASE_URL", relay.url)
        patch.setenv("LUMA_API_KEY", "sk-fake")
        for _ in range(2):
            assert main(command(prompts)) == 1
            assert "line 1, 'a cat': failed (" in capsys.readouterr().err
        assert len(created(relay)) == 3


def test_a_video_that_cannot_be_saved_is_saved_by_the_next_run(
    relay: Served, prompts: Path, capsys: Capture
) -> None:
    strict = [word for word in command(prompts) if word not in ("--allow-host", "127.0.0.1")]
    assert main(strict) == 1
    assert "by --allow-host); run it again to try again" in capsys.readouterr().err
    assert main(command(prompts)) == 0
    assert len(created(relay)) == 3


def test_a_timeout_ends_the_run_and_the_next_one_continues(prompts: Path, capsys: Capture) -> None:
    with served(durations=(1.0, 1.0)) as relay, pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUMA_BASE_URL", relay.url)
        patch.setenv("LUMA_API_KEY", "sk-fake")
        page = prompts.parent / "page.html"
        assert main(command(prompts, "--timeout", "0.3", "--report", str(page))) == 124
        assert "a cat" in page.read_text()
        assert "3 rows: 3 open; run it again" in capsys.readouterr().err
        assert main(command(prompts)) == 0
        assert len(created(relay)) == 3


def test_two_runs_at_once_do_not_both_submit(relay: Served, prompts: Path, capsys: Capture) -> None:
    set_fault(relay, "silent_after")
    with subprocess.Popen([sys.executable, "-m", "luma_async", *command(prompts)]) as process:
        until(lambda: created(relay))
        assert main(command(prompts)) == 2
        process.kill()
    assert "another render uses" in capsys.readouterr().err
    assert sorted(created(relay)) == sorted(set(created(relay)))


def test_a_rejected_key_is_exit_code_3_and_nothing_is_submitted(
    relay: Served, prompts: Path, capsys: Capture
) -> None:
    assert main([*command(prompts), "--api-key", "sk-of-another"]) == 3
    assert "no more was submitted: status 401" in capsys.readouterr().err
    assert main(command(prompts)) == 0
    assert len(created(relay)) == 3


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "no prompts; give a file"),
        (["p.txt"], "no prompts; give a file of them and --download DIR"),
        (["p.txt", "--download", "v"], "p.txt"),
        (["--status", "v"], "v has no journal; give"),
    ],
)
@pytest.mark.usefixtures("relay")
def test_what_cannot_be_run_is_exit_code_2(
    arguments: list[str],
    error: str,
    capsys: Capture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["render", *arguments]) == 2
    assert error in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_journal_of_another_relay_is_refused(relay: Served, prompts: Path) -> None:
    assert main(command(prompts, "--max-tasks", "1")) == 0
    assert main(command(prompts, "--base-url", "http://127.0.0.1:1")) == 2
    assert len(created(relay)) == 1
