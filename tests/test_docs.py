"""What the README and docs/ show is what the code does."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from luma_async import State
from luma_async.entries import TRANSITIONS, Phase
from luma_async.testing import FAULTS, FakeRelay
from tests.bench.pace import DURATIONS

ROOT = Path(__file__).parent.parent


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)


def test_the_page_on_reliability_has_a_row_for_each_fault_and_each_share() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")]
    told = {(row[0].strip("| "), row[1]) for row in rows if len(row) > 5}
    assert told >= {(fault, share) for fault in (*FAULTS, "all") for share in ("5%", "30%", "60%")}
    assert {row[5] for row in rows if len(row) > 5} == {"lost", "0"}


def test_the_page_on_pace_shows_no_row_that_was_bought_with_more_requests() -> None:
    page = (ROOT / "docs" / "pace.md").read_text()
    table = page[page.index("<!-- poisson -->") : page.index("<!-- end of poisson -->")]
    rows = [line.split(" | ") for line in table.splitlines()[3:]]
    assert {(row[0].strip("| "), row[1]) for row in rows} == {
        (open_ids, name) for open_ids in ("1", "24", "240", "1,000") for name in DURATIONS
    }
    for row in rows:
        assert float(row[5].strip("*")) < 1.0
        assert 0.98 < float(row[7]) < 1.02


def test_the_table_of_phases_is_drawn_as_it_is() -> None:
    (drawing,) = blocks("docs/design.md", "mermaid")
    edges = [
        f"    {phase} --> {to}: {event}"
        for phase in Phase
        for event, to in TRANSITIONS[phase].items()
    ]
    assert drawing.splitlines()[1:] == edges


def test_every_block_of_python_is_python() -> None:
    pages = ["README.md", *(str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md"))]
    found = [block for page in pages for block in blocks(page, "python")]
    assert len(found) >= 3
    for block in found:
        compile(block, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


async def test_the_ten_lines_of_the_readme_wait_for_many_tasks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = blocks("README.md", "python")[0]
    assert len([line for line in first.splitlines() if line.strip()]) <= 10
    async with FakeRelay() as relay:
        ids = [relay.add(), relay.add(ends="failed")]
        code = first.replace("https://relay.example", relay.url).replace("sk-…", relay.api_key)
        names: dict[str, Any] = {}
        exec(code[: code.index("asyncio.run")], names)
        await names["main"](ids)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        [ids[0], State.COMPLETED],
        [ids[1], State.FAILED],
    ]


def test_the_test_in_the_readme_passes_where_it_is_pasted(tmp_path: Path) -> None:
    last = blocks("README.md", "python")[-1]
    (tmp_path / "test_pasted.py").write_text(last)
    options = ["-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto"]
    command = [sys.executable, "-m", "pytest", *options, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "1 passed" in run.stdout, run.stdout + run.stderr


def test_the_hour_of_the_testing_page_takes_a_moment() -> None:
    """The page asserts what the clock shows; a real hour would not fit into this suite."""
    exec(blocks("docs/testing.md", "python")[1], {})


@pytest.mark.virtual_time
async def test_the_first_test_of_the_testing_page_passes() -> None:
    names: dict[str, Any] = {}
    exec(blocks("docs/testing.md", "python")[0], names)
    await names["test_a_failed_video_is_refunded"]()
