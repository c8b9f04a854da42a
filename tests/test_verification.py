"""The page on verification: each promise of the README, and only tests and commands that exist."""

import re
from importlib.util import find_spec

from tests.bench.mutants import EQUIVALENT
from tests.docs_blocks import ROOT

PAGE = (ROOT / "docs" / "verification.md").read_text()
README = (ROOT / "README.md").read_text()


def test_each_promise_of_the_readme_is_on_the_page() -> None:
    promises = re.findall(r"^\*\*([^*]+)\.\*\*", README, flags=re.MULTILINE)
    assert len(promises) > 7
    assert [promise for promise in promises if f"**{promise}." not in PAGE] == []


def test_each_file_that_the_page_names_exists() -> None:
    files = re.findall(r"`((?:tests|docs|\.ci)/[\w/.]+)`", PAGE)
    assert len(files) > 20
    assert [file for file in files if not (ROOT / file).exists()] == []
    assert EQUIVALENT.relative_to(ROOT).as_posix() in files


def test_each_command_that_the_page_names_exists() -> None:
    modules = set(re.findall(r"python -m (tests[\w.]+)", PAGE))
    assert len(modules) > 5
    assert [module for module in modules if find_spec(module) is None] == []
