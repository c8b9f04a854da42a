"""The pytest plugin, in a pytest run of its own for each test."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import luma_async

_PLUGIN = "luma_async.testing.pytest_plugin"
_ROOT = Path(luma_async.__file__).parent.parent

_USES_THE_RELAY = """
import aiohttp, pytest
{mark}
async def test_relay(luma_relay):
    task_id = luma_relay.add()
    headers = {{"Authorization": "Bearer " + luma_relay.api_key}}
    async with aiohttp.ClientSession(headers=headers) as http:
        async with http.get(luma_relay.url + "/luma/generations/" + task_id) as response:
            assert (await response.json())["state"] == "completed"
"""
_USES_THE_SESSION = """
import pytest
@pytest.mark.asyncio
async def test_session(luma_relay, luma_session):
    task_id = luma_relay.add(duration=0.05)
    generation = await luma_session.wait_until_done(task_id)
    assert generation.is_done
"""
_USES_NOTHING = "def test_nothing(): pass"
_READS_THE_MARKER = """
import asyncio, pytest
from luma_async.testing import VirtualTimeLoop
@pytest.mark.asyncio
@pytest.mark.virtual_time
async def test_virtual(luma_relay):
    await asyncio.sleep(3600)
    assert type(asyncio.get_running_loop()) is VirtualTimeLoop
"""
_HOOK = """
from luma_async.testing import loop_factories
def pytest_asyncio_loop_factories(config, item):
    return loop_factories(item)
"""


def _passes(folder: Path, test: str, *options: str, conftest: str = "") -> None:
    (folder / "test_it.py").write_text(test)
    (folder / "conftest.py").write_text(conftest)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"]
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(_ROOT)}
    ran = subprocess.run(
        [*command, "--strict-markers", *options, "-p", _PLUGIN, "-c", os.devnull, "test_it.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 passed" in ran.stdout


_ASYNCIO = ("-p", "pytest_asyncio.plugin", "-o", "asyncio_default_fixture_loop_scope=function")


@pytest.mark.parametrize(("mode", "mark"), [("strict", "@pytest.mark.asyncio"), ("auto", "")])
def test_the_relay_works_under_pytest_asyncio(tmp_path: Path, mode: str, mark: str) -> None:
    test = _USES_THE_RELAY.format(mark=mark)
    _passes(tmp_path, test, *_ASYNCIO, "-o", f"asyncio_mode={mode}")


def test_the_relay_works_under_anyio_alone(tmp_path: Path) -> None:
    test = _USES_THE_RELAY.format(mark="@pytest.mark.anyio")
    backend = "import pytest\n@pytest.fixture\ndef anyio_backend(): return 'asyncio'\n"
    _passes(tmp_path, test, "-p", "anyio.pytest_plugin", conftest=backend)


def test_the_session_polls_the_relay(tmp_path: Path) -> None:
    _passes(tmp_path, _USES_THE_SESSION, *_ASYNCIO)


def test_tests_without_the_fixtures_are_not_affected(tmp_path: Path) -> None:
    _passes(tmp_path, _USES_NOTHING)


def test_the_marker_selects_the_loop_with_the_hook(tmp_path: Path) -> None:
    _passes(tmp_path, _READS_THE_MARKER, *_ASYNCIO, conftest=_HOOK)
