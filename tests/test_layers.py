"""The house: imports go down only, and importing the package brings no test tools along."""

import subprocess
import sys

from importlinter.cli import lint_imports


def test_imports_go_down_only() -> None:
    assert lint_imports(no_cache=True) == 0


def test_the_package_does_not_import_its_test_tools_or_the_command_line() -> None:
    code = "import sys, luma_async; print(*(name for name in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert "luma_async.session" in loaded
    unwanted = {"luma_async.testing", "luma_async.cli", "aiohttp.web", "rich", "argparse", "pytest"}
    assert not loaded & unwanted
