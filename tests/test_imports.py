"""The house: imports go down only, and importing the package brings no test tools along."""

import subprocess
import sys
from pathlib import Path

import pytest

import luma_async

ROOT = Path(__file__).parent.parent


def python(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_imports_go_down_only() -> None:
    """In a process of its own: import-linter switches off the loggers that it finds."""
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    assert "2 kept, 0 broken" in python(code, "--no-cache")


def test_the_package_does_not_import_its_test_tools_or_the_command_line() -> None:
    code = "import sys; from luma_async import LumaSession; print(*sys.modules)"
    loaded = set(python(code).split())
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


def test_the_package_imports_nothing_before_a_public_name_is_used() -> None:
    """So that the command answers signals before half a second of imports."""
    loaded = python("import sys, luma_async; print(*sys.modules)").split()
    ours = {name for name in loaded if name.startswith("luma_async")}
    assert ours == {"luma_async", "luma_async._version"}
    assert not {"aiohttp", "msgspec", "anyio", "asyncio"} & set(loaded)


def test_each_public_name_and_public_module_is_there_when_it_is_used() -> None:
    python(
        "import luma_async\n"
        "assert luma_async.errors.LumaError is luma_async.LumaError\n"
        "for name in luma_async.__all__: assert getattr(luma_async, name) is not None\n"
        "assert set(luma_async.__all__) <= set(dir(luma_async))\n"
        "from luma_async import *\n"
        "assert LumaSession and Generation\n"
    )


def test_a_name_that_is_not_there_is_an_error_with_the_name() -> None:
    with pytest.raises(AttributeError, match="'luma_async' has no attribute 'LumaSesion'"):
        luma_async.LumaSesion  # type: ignore[attr-defined] # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Sesion'"):
        exec("from luma_async import Sesion")
