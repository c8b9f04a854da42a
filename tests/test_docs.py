"""Examples, commands, tables and drawings of the README and of docs/ match the code."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import luma_async
from luma_async import LumaError, testing, worker
from luma_async.cli import _parser  # pyright: ignore[reportPrivateUsage]
from luma_async.scheduling.items import TRANSITIONS, Status
from luma_async.testing import FAULTS, FakeRelay
from tests import optional
from tests.bench.pace import DURATIONS
from tests.docs_blocks import (
    ROOT,
    Block,
    arguments,
    blocks,
    commands,
    fenced,
    notebooks,
    pages,
)
from tests.docs_runner import perform
from tests.odd_relays import ODDITIES
from tests.subprocesses import FEW_PLUGINS


def test_the_page_on_reliability_has_a_row_for_each_fault_and_each_share() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text()
    faults, odd = page[page.index("<!-- simulated -->") :], page[page.index("<!-- odd -->") :]
    rows = [line.split(" | ") for line in faults.splitlines() if line.startswith("| ")]
    shown = {(row[0].strip("| "), row[1]) for row in rows if len(row) > 5}
    assert shown >= {(fault, share) for fault in (*FAULTS, "all") for share in ("5%", "30%", "60%")}
    assert {row[5] for row in rows if len(row) > 5} == {"lost", "0"}
    table = odd[: odd.index("<!-- end of odd -->")].splitlines()[3:]
    rows = [line.strip("| ").rsplit(" | ", 7) for line in table]
    assert {row[0] for row in rows} >= {name.replace("|", "\\|") for name in ODDITIES}
    for _, tasks, right, missing, others, *_ in rows:
        assert (right, missing, others) == (tasks, "0", "0")


def test_each_row_of_the_page_on_pace_is_faster_with_equal_requests() -> None:
    page = (ROOT / "docs" / "pace.md").read_text()
    table = page[page.index("<!-- poisson -->") : page.index("<!-- end of poisson -->")]
    rows = [line.split(" | ") for line in table.splitlines()[3:]]
    assert {(row[0].strip("| "), row[1]) for row in rows} == {
        (open_ids, name) for open_ids in ("1", "24", "240", "1,000") for name in DURATIONS
    }
    for row in rows:
        assert float(row[5].strip("*")) < 1.0
        assert 0.98 < float(row[7]) < 1.02


def test_the_drawing_of_the_statuses_matches_the_transitions() -> None:
    (drawing,) = blocks("docs/design.md", "mermaid")
    edges = [
        f"    {status} --> {to}: {event}"
        for status in Status
        for event, to in TRANSITIONS[status].items()
    ]
    assert drawing.splitlines()[1:] == edges


PYTHON = [block for block in fenced("python") if not block.page.startswith("docs/zh/")]
LANGUAGES = ("python", "console", "sh", "text", "mermaid", "ini", "yaml", "json", "promql")


def test_the_test_file_of_a_block_names_the_page() -> None:
    for block in PYTHON:
        if block.run_by is not None:
            assert block.page in (ROOT / block.run_by).read_text(), block


def test_each_file_of_the_package_is_in_the_tree_of_the_design() -> None:
    page = (ROOT / "docs" / "design.md").read_text()
    package = Path(luma_async.__file__).parent
    (tree,) = re.findall(r"^```\nluma_async/\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    drawn: set[str] = set()
    folders: list[str] = []
    for line in tree.splitlines():
        names = re.findall(r"\w+(?:\.py|/)", line)
        depth = (len(line) - len(line.lstrip())) // 2 - 1
        folders[depth:] = [name for name in names if name.endswith("/")]
        drawn |= {"".join([*folders, name]) for name in names if name.endswith(".py")}
    files = {file.relative_to(package).as_posix() for file in package.rglob("*.py")}
    assert drawn == {file for file in files if not file.endswith(("__init__.py", "_version.py"))}


def test_each_function_on_the_way_of_one_id_exists() -> None:
    page = (ROOT / "docs" / "design.md").read_text()
    section = page[page.index("## The way of one id") : page.index("## Glossary")]
    package = Path(luma_async.__file__).parent
    code = "\n".join(file.read_text() for file in package.rglob("*.py"))
    names = re.findall(r"`(?:\w+\.)?(\w+)`", section)
    assert len(names) > 20
    missing = [name for name in names if not re.search(rf"(def|class) {name}\b", code)]
    assert not missing
    for file in re.findall(r"\((\S+\.py)\)", section):
        assert (package / file).exists(), file


@pytest.mark.parametrize("block", [one for one in PYTHON if one.run_by is None], ids=str)
def test_a_python_block_runs_and_prints_what_its_page_says(
    block: Block,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    perform(block, request, monkeypatch)
    if "except " in block.text and "print(" in block.text:
        assert capsys.readouterr().out, "no branch was reached that prints"


@pytest.mark.parametrize("notebook", notebooks(), ids=str)
def test_the_cells_of_a_notebook_run(
    notebook: Block,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    perform(notebook, request, monkeypatch)
    assert "completed" in capsys.readouterr().out


@pytest.mark.parametrize("notebook", notebooks(), ids=str)
def test_a_notebook_is_valid_and_without_outputs(notebook: Block) -> None:
    content = json.loads((ROOT / notebook.page).read_text())
    cells = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    nbformat = optional.module("nbformat")
    nbformat.validate(nbformat.from_dict(content))


SHELL = commands()


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_a_shell_block_is_valid_shell_with_existing_commands_and_modules(block: Block) -> None:
    bash = shutil.which("bash")
    if bash is not None:
        subprocess.run([bash, "-n", "-c", block.text], check=True)
    for command in arguments(block.text):
        _parser().parse_args(command)
    for module in re.findall(r"python -m (tests[\w.]+)", block.text):
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists(), module


@pytest.mark.parametrize("page", pages())
def test_each_fence_of_a_page_is_tested(page: str) -> None:
    """A fence within a list or with an unknown language would not be run."""
    text = (ROOT / page).read_text()
    fences = re.findall(r"^[ >]*(?:```|~~~)(.*)$", text, flags=re.MULTILINE)
    known = [block for block in fenced(*LANGUAGES) if block.page == page]
    languages = [fence for fence in fences if fence and not fence.startswith("{")]
    assert len(known) == len(languages), languages


async def test_the_first_example_of_the_readme_has_ten_lines_from_prompts_to_links(
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = blocks("README.md", "python")[0]
    assert len([line for line in first.splitlines() if line.strip()]) <= 10
    async with FakeRelay() as relay:
        code = first.replace("https://relay.example", relay.url).replace("sk-…", relay.api_key)
        names: dict[str, Any] = {}
        exec(code[: code.index("asyncio.run")], names)
        await names["main"](["a cat", "a dog"])
        made = {task_id: relay.tasks[task_id].prompt for task_id in relay.created}
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert sorted(made.values()) == ["a cat", "a dog"]
    assert {task_id: state for task_id, state, _ in lines} == dict.fromkeys(made, "completed")
    assert all(link.startswith("http") for *_, link in lines)


def test_the_test_in_the_readme_passes_in_another_project(tmp_path: Path) -> None:
    last = blocks("README.md", "python")[-1]
    (tmp_path / "test_pasted.py").write_text(last)
    options = [*FEW_PLUGINS, "-q"]
    command = [sys.executable, "-m", "pytest", *options, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "1 passed" in run.stdout, run.stdout + run.stderr


def test_the_hour_of_the_testing_page_takes_no_real_time() -> None:
    """The page asserts the virtual clock; a real hour would exceed the time of this suite."""
    (hour,) = [text for text in blocks("docs/testing.md", "python") if "an_hour" in text]
    exec(hour, {})


@pytest.mark.virtual_time
async def test_the_first_test_of_the_testing_page_passes() -> None:
    names: dict[str, Any] = {}
    exec(blocks("docs/testing.md", "python")[0], names)
    await names["test_a_failed_video_has_a_reason"]()


def test_the_tree_of_errors_matches_the_classes() -> None:
    def drawn(error: type[LumaError], depth: int = 0) -> list[str]:
        others = [base.__name__ for base in error.__bases__ if not issubclass(base, LumaError)]
        also = f" (a {others[0]}, too)" if others and error is not LumaError else ""
        below = [line for sub in error.__subclasses__() for line in drawn(sub, depth + 1)
                 if sub.__name__ in luma_async.__all__]  # fmt: skip
        return [f"{'    ' * depth}{error.__name__}{also}", *below]

    (tree,) = blocks("docs/reference/errors.md", "text")
    assert tree.splitlines() == drawn(LumaError)


def test_each_public_name_is_in_the_reference() -> None:
    reference = "".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    listed = set(re.findall(r"^\.\. (?:auto|py:)\w+:: ([\w.]+)", reference, flags=re.MULTILINE))
    public = {
        f"{package.__name__}.{name}"
        for package in (luma_async, testing, worker)
        for name in package.__all__
        if not name.startswith("__")
    }
    assert listed == public, "add `.. autoclass:: NAME` to a page of docs/reference"


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    for module in ("sphinx", "furo", "myst_parser"):
        optional.module(module, "docs")
    options = ["-W", "-n", "-q", "-b", "html", "-d", str(tmp_path / "trees")]
    command = [sys.executable, "-m", "sphinx", *options, str(ROOT / "docs"), str(tmp_path / "site")]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    for reference in (tmp_path / "site" / "reference").glob("*.html"):
        text = re.sub(r"<[^>]+>", "", reference.read_text())
        assert "immutable sequence" not in text, "a docstring of tuple"
        names = r"\s=\s(?:[A-Z][A-Z_]{2,}[,)]|&lt;)"
        assert not re.search(names, text), "a default that is no value"
    assert "a cat dances" in (tmp_path / "site" / "reference" / "session.html").read_text()
    front = (tmp_path / "site" / "index.html").read_text()
    assert "LumaSession" in front
    assert not re.findall(r'(?:src|href)="https?://[^"]*\.(?:js|css|woff2?)', front)
    assert '<svg class="statuses"' in (tmp_path / "site" / "design.html").read_text()
