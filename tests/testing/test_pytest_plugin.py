"""The pytest plugin, in a pytest run of its own for each test."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import luma_async
from luma_async.testing.pytest_plugin import has_loop_factories
from tests.docs_blocks import fenced

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


_TEN_VIRTUAL_MINUTES = """
@pytest.mark.asyncio
@pytest.mark.virtual_time
async def test_session(luma_relay, luma_session):
    await luma_session.wait_until_done(luma_relay.add(duration=600))
    assert luma_relay.requests < 200
"""
_MISTAKES = """
import pytest
@pytest.mark.asyncio
@pytest.mark.virtual_time
async def test_no_hook(): pass
def test_no_coroutine(luma_relay): pass
async def test_no_mark(luma_relay): pass
@pytest.mark.asyncio(loop_scope="module")
async def test_other_loop(luma_relay): luma_relay.url
@pytest.mark.asyncio(loop_scope="module")
async def test_other_loop_too(luma_relay): luma_relay.add()
"""


_LEAVES_REPLIES = """
import pytest
from luma_async.testing import Reply
@pytest.mark.asyncio
async def test_by_default(luma_relay): luma_relay.reply(Reply(502))
@pytest.mark.asyncio
@pytest.mark.luma_relay(assert_all_used=True)
async def test_with_the_marker(luma_relay): luma_relay.reply(Reply(501))
@pytest.mark.luma_relay(assert_all_used=False)
def test_excepted_by_the_marker(luma_relay_thread): luma_relay_thread.reply(Reply(503))
def test_in_a_thread(luma_relay_thread): luma_relay_thread.reply(Reply(504))
def test_that_fails(luma_relay_thread):
    luma_relay_thread.reply(Reply(505))
    assert False
def test_that_is_skipped(luma_relay_thread):
    luma_relay_thread.reply(Reply(506))
    pytest.skip()
@pytest.mark.xfail
def test_that_is_expected_to_fail(luma_relay_thread):
    luma_relay_thread.reply(Reply(507))
    assert False
@pytest.mark.luma_relay(assert_al_used=False)
def test_with_a_mistyped_marker(luma_relay_thread): pass
"""
_INI = "luma_relay_assert_all_used=true"
_PAGE = "docs/testing.md"


def _block(containing: str) -> str:
    """Return the block of the page on testing with this text."""
    blocks = [block.text for block in fenced("python") if block.page == _PAGE]
    (found,) = [text for text in blocks if containing in text]
    return found


def _run(folder: Path, test: str, *options: str, conftest: str = "") -> str:
    """Run one test in a process of its own; return what pytest prints."""
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
    return ran.stdout + ran.stderr


def _passes(folder: Path, test: str, *options: str, conftest: str = "") -> None:
    printed = _run(folder, test, *options, conftest=conftest)
    assert "1 passed" in printed, printed


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


def test_a_mistake_with_the_fixtures_is_an_error_at_once(tmp_path: Path) -> None:
    printed = _run(tmp_path, _MISTAKES, *_ASYNCIO)
    assert "add to conftest.py" in printed
    assert "use the fixture luma_relay_thread" in printed
    assert "mark it with @pytest.mark.asyncio" in printed
    another_loop = "^E +RuntimeError: this FakeRelay was started in another event loop"
    assert len(re.findall(another_loop, printed, re.M)) == 2
    assert "passed" not in printed


@pytest.mark.parametrize(
    ("installed", "has"),
    [("1.5.0", True), ("1.4.0a0", True), ("2.0", True), ("1.3.9", False), ("0.26.0", False),
     ("", False), (None, False)],
)  # fmt: skip
def test_the_hook_exists_from_pytest_asyncio_1_4(installed: str | None, has: bool) -> None:
    assert has_loop_factories(installed) == has


def test_a_conftest_with_the_hook_loads_without_pytest_asyncio(tmp_path: Path) -> None:
    no_asyncio = "import sys; sys.modules['pytest_asyncio'] = None\n"
    hidden = "import importlib.metadata as m\ndef version(name): raise m.PackageNotFoundError\n"
    (tmp_path / "hide.py").write_text(f"{no_asyncio}{hidden}m.version = version\n")
    _passes(tmp_path, _USES_NOTHING, "-p", "hide", conftest=_HOOK)


def test_the_session_polls_at_the_default_pace_in_virtual_time(tmp_path: Path) -> None:
    _passes(tmp_path, f"import pytest{_TEN_VIRTUAL_MINUTES}", *_ASYNCIO, conftest=_HOOK)


def test_the_relay_in_a_thread_serves_a_test_that_runs_its_own_loop(tmp_path: Path) -> None:
    _passes(tmp_path, _block("luma_relay_thread"))


@pytest.mark.parametrize(
    ("options", "unused"), [((), {"501"}), (("-o", _INI), {"501", "502", "504"})]
)
def test_a_reply_left_unused_fails_the_test_if_the_marker_or_the_ini_option_says_so(
    tmp_path: Path, options: tuple[str, ...], unused: set[str]
) -> None:
    printed = _run(tmp_path, _LEAVES_REPLIES, *_ASYNCIO, *options)
    found = re.findall(r"^E +AssertionError: scripted replies .* received: (\d+) ", printed, re.M)
    assert set(found) == unused, printed
    assert "the mark luma_relay takes assert_all_used=True or False" in printed
    assert f"1 failed, 4 passed, 1 skipped, 1 xfailed, {len(unused) + 1} error" in printed


def test_virtual_time_works_under_anyio_alone(tmp_path: Path) -> None:
    test = f"import pytest{_TEN_VIRTUAL_MINUTES}".replace("mark.asyncio", "mark.anyio")
    conftest = _block("def anyio_backend")
    _passes(tmp_path, test, "-p", "anyio.pytest_plugin", conftest=conftest)
