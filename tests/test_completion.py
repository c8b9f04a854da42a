"""`luma-async completion`: its script for bash, run by bash; the other shells; a missing extra."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from luma_async.cli import _parser, main  # pyright: ignore[reportPrivateUsage]
from luma_async.cli.commands.completion import SHELLS
from luma_async.extras import install_command
from tests import optional

Capture = pytest.CaptureFixture[str]
PRESS_TAB = """
source "$1"; shift
[[ $(complete -p luma-async) =~ -F\\ ([^ ]+) ]]
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
"${BASH_REMATCH[1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def commands() -> set[str]:
    help_text = _parser().format_help()
    return set(re.findall(r"^    (\w+)", help_text, flags=re.MULTILINE))


def script(shell: str, capsys: Capture) -> str:
    optional.module("shtab")
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("wa", {"wait"}),
        ("", commands()),
        ("wait --re", {"--report"}),
        ("wait --file ids.txt --down", {"--download"}),
        ("wait --file i", {"ids.txt"}),
        ("wait --download v", {"videos"}),
        ("render pro", {"prompts.csv"}),
        ("worker --nats-creds i", {"ids.txt"}),
        ("relay --envelope w", {"wrapped"}),
        ("completion z", {"zsh"}),
    ],
)
def test_bash_completes_commands_options_and_files(
    words: str, completed: set[str], tmp_path: Path, capsys: Capture
) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash: install it from your distribution")
    (tmp_path / "script").write_text(script("bash", capsys))
    for name in ("ids.txt", "prompts.csv", "videos.html"):
        (tmp_path / name).touch()
    (tmp_path / "videos").mkdir()
    typed = ["luma-async", *words.split(" ")]
    run = subprocess.run(
        [bash, "--norc", "-c", PRESS_TAB, "bash", "./script", *typed],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert set(run.stdout.split()) == completed, run.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_of_each_shell_has_each_command(shell: str, capsys: Capture) -> None:
    text = script(shell, capsys)
    assert not [command for command in commands() if command not in text]


def test_without_shtab_the_error_ends_with_the_remedy(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith(f"which is missing; {install_command('completion')}\n")


def test_no_other_command_imports_shtab() -> None:
    code = "import sys; from luma_async.cli import main; main(['version']); print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "shtab" not in ran.stdout.splitlines()[-1].split()
