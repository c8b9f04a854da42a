"""The house: imports go down only, and importing the package brings no test tools along."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def python(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_imports_go_down_only() -> None:
    """In a process of its own: import-linter switches off the loggers that it finds."""
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    assert "6 kept, 0 broken" in python(code, "--no-cache")


def test_the_package_does_not_import_its_test_tools_or_the_command_line() -> None:
    loaded = set(python("import sys, luma_async; print(*sys.modules)").split())
    assert "luma_async.session" in loaded
    unwanted = {
        "luma_async.testing",
        "luma_async.cli",
        "luma_async.worker",
        "nats",
        "aiohttp.web",
        "rich",
        "argparse",
        "pytest",
    }
    assert not loaded & unwanted
