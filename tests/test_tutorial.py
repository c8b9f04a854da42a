"""docs/tutorial.md from its relay to the videos on disk, in processes as on a user's machine."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.docs_blocks import ROOT, Block, commands, fenced

PAGE = "docs/tutorial.md"
SHELL = [block.text for block in commands() if block.page == PAGE]
SCRIPTS = [block for block in fenced("python") if block.page == PAGE and block.run_by]
TASKS, START_TIMEOUT = 20, 20.0

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash: apt-get install bash")


def environment(scratch: Path) -> dict[str, str]:
    """Return an environment in which `luma-async` runs this checkout."""
    command = scratch / "bin" / "luma-async"
    command.parent.mkdir(exist_ok=True)
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m luma_async "$@"\n')
    command.chmod(0o755)
    path = f"{command.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LUMA_")}
    search = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**kept, "PATH": path, "PYTHONPATH": search}


@pytest.fixture
async def environ(tmp_path: Path, unused_tcp_port: int) -> AsyncIterator[dict[str, str]]:
    """Start the relay of the page with short durations, and yield the environment of the page."""
    (start,) = [text for text in SHELL if "luma-async relay" in text]
    (export,) = [text for text in SHELL if "export" in text]
    command = start.replace("30-180", "0.1-0.5").replace(
        "relay ", f"relay --port {unused_tcp_port} "
    )
    environ = environment(tmp_path)
    exported = re.findall(r"(LUMA_\w+)=(\S+)", export)
    environ |= {name: value.replace("8000", str(unused_tcp_port)) for name, value in exported}
    relay = await asyncio.create_subprocess_exec(
        "bash", "-c", f"exec {command}", cwd=tmp_path, env=environ, stderr=subprocess.DEVNULL
    )
    async with asyncio.timeout(START_TIMEOUT):
        while not _submitted(tmp_path / "ids.txt"):  # noqa: ASYNC110 - another process writes
            await asyncio.sleep(0.05)
    yield environ
    relay.send_signal(signal.SIGTERM)
    assert await relay.wait() == 0


def _submitted(file: Path) -> bool:
    return file.exists() and len(file.read_text().split()) == TASKS


async def run(*command: str, cwd: Path, env: dict[str, str]) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


@pytest.mark.parametrize("block", SCRIPTS, ids=str)
async def test_a_block_of_the_page_runs_as_a_script(
    block: Block, tmp_path: Path, environ: dict[str, str]
) -> None:
    (tmp_path / "pasted.py").write_text(block.text)
    code, output = await run(sys.executable, "pasted.py", cwd=tmp_path, env=environ)
    assert code == 0, output
    assert "completed" in output or ".mp4" in output


async def test_the_commands_of_the_page_wait_for_all_tasks_and_save_the_videos(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    for text in SHELL:
        if "luma-async wait" in text:
            code, output = await run("bash", "-c", text, cwd=tmp_path, env=environ)
            assert code in (0, 1), output
    assert len((tmp_path / "ends.ndjson").read_text().splitlines()) == TASKS
    assert list((tmp_path / "videos").glob("*.mp4"))
