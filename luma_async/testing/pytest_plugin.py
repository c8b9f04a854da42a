"""The pytest plugin: three fixtures and two markers. Tests that do not use them are not affected.

It works with pytest-asyncio in both modes, and with the plugin of anyio without pytest-asyncio.
"""

import inspect
import re
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, cast

import pytest

try:
    from pytest_asyncio import fixture, is_async_test
except ImportError:
    fixture = pytest.fixture  # type: ignore[assignment]

    def is_async_test(item: pytest.Item) -> bool:  # type: ignore[misc]
        """Return False: no test is one of pytest-asyncio."""
        return False


if TYPE_CHECKING:
    from luma_async import LumaSession
    from luma_async.testing.relay import FakeRelay
    from luma_async.testing.threaded_relay import ThreadedRelay

_MARKER = (
    "virtual_time: run on an event loop whose clock is a number"
    " (luma_async.testing.VirtualTimeLoop)"
)
_RELAY_MARKER = (
    "luma_relay(assert_all_used=False): overrides the ini option luma_relay_assert_all_used"
)
_ASSERT_ALL_USED = "luma_relay_assert_all_used"
_REPORT = pytest.StashKey[pytest.TestReport]()
_FIXTURES = {"luma_relay", "luma_session"}
_HOOK = "pytest_asyncio_loop_factories"
_HOOK_SINCE = (1, 4)
_SYNCHRONOUS = (
    "the test is no coroutine, so no event loop runs during it, and luma_relay cannot answer; "
    "use the fixture luma_relay_thread, or make the test async"
)
_NOT_MARKED = (
    "no plugin runs this async test; mark it with @pytest.mark.asyncio, or set asyncio_mode = "
    '"auto" in the configuration of pytest'
)
_NO_HOOK = (
    "the marker virtual_time has no effect without the hook pytest_asyncio_loop_factories; add to "
    "conftest.py: def pytest_asyncio_loop_factories(config, item): return "
    "luma_async.testing.loop_factories(item)"
)


class _HookOfLaterVersions:
    """The hook of pytest-asyncio 1.4, so that a conftest with it also loads without that."""

    def pytest_asyncio_loop_factories(self, config: pytest.Config, item: pytest.Item) -> None:
        """Never called: this version of pytest-asyncio does not know it."""


def _pytest_asyncio_version() -> str | None:
    try:
        return version("pytest-asyncio")
    except PackageNotFoundError:
        return None


def has_loop_factories(installed: str | None) -> bool:
    """Return whether this version of pytest-asyncio has the hook for event loops."""
    numbers = re.match(r"(\d+)\.(\d+)", installed or "")
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= _HOOK_SINCE


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the hook of pytest-asyncio 1.4 for other versions."""
    if not has_loop_factories(_pytest_asyncio_version()):
        pluginmanager.add_hookspecs(_HookOfLaterVersions)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the ini option."""
    purpose = "fail a test with luma_relay or luma_relay_thread that left scripted answers unused"
    parser.addini(_ASSERT_ALL_USED, purpose, type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers; `luma_async.testing.loop_factories` uses `virtual_time`."""
    config.addinivalue_line("markers", _MARKER)
    config.addinivalue_line("markers", _RELAY_MARKER)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail a test that would run in real time instead of virtual, or not at all."""
    if is_async_test(item):
        if item.get_closest_marker("virtual_time") is not None:
            _check_virtual_time(item)
    elif isinstance(item, pytest.Function) and not _FIXTURES.isdisjoint(item.fixturenames):
        has_plugin = hasattr(item.config.option, "asyncio_mode")
        if has_plugin and _is_coroutine(item) and "anyio_backend" not in item.fixturenames:
            pytest.fail(_NOT_MARKED, pytrace=False)


def _check_virtual_time(item: pytest.Item) -> None:
    installed = _pytest_asyncio_version()
    if not has_loop_factories(installed):
        pytest.fail(
            f"the marker virtual_time needs pytest-asyncio 1.4 or later, {installed} is "
            "installed; upgrade it, or use luma_async.testing.run_virtual",
            pytrace=False,
        )
    if not getattr(item.ihook, _HOOK).get_hookimpls():
        pytest.fail(_NO_HOOK, pytrace=False)


def _is_coroutine(item: pytest.Function) -> bool:
    return inspect.iscoroutinefunction(inspect.unwrap(cast("Callable[..., object]", item.obj)))


def _check_test(item: pytest.Item) -> None:
    """Fail a test without an event loop: that of the fixture would not run during it."""
    if isinstance(item, pytest.Function) and not (
        is_async_test(item) or "anyio_backend" in item.fixturenames or _is_coroutine(item)
    ):
        pytest.fail(_SYNCHRONOUS, pytrace=False)


def _asserts_all_used(request: pytest.FixtureRequest) -> bool:
    """Return whether unused scripted answers fail a test; the marker overrides the ini option."""
    marker = request.node.get_closest_marker("luma_relay")
    if marker is None:
        return bool(request.config.getini(_ASSERT_ALL_USED))
    asserts = marker.kwargs.get("assert_all_used")
    if marker.args or len(marker.kwargs) != 1 or not isinstance(asserts, bool):
        pytest.fail("the mark luma_relay takes assert_all_used=True or False", pytrace=False)
    return asserts


def _has_passed(item: pytest.Item) -> bool:
    """Return whether a test has passed, and was not expected to fail."""
    report = item.stash.get(_REPORT, None)
    return report is not None and report.passed and not hasattr(report, "wasxfail")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep the report of the test itself, for the fixtures."""
    report = yield
    if report.when == "call":
        item.stash[_REPORT] = report
    return report


@fixture
async def luma_relay(request: pytest.FixtureRequest) -> "AsyncIterator[FakeRelay]":
    """Yield a started `FakeRelay` in the loop of the test; it is closed after the test."""
    from luma_async.testing.relay import FakeRelay

    _check_test(request.node)
    asserts = _asserts_all_used(request)
    async with FakeRelay() as relay:
        yield relay
        if asserts and _has_passed(request.node):
            relay.assert_all_used()


@pytest.fixture
def luma_relay_thread(request: pytest.FixtureRequest) -> "Iterator[ThreadedRelay]":
    """Yield a started `ThreadedRelay`, for a test that blocks its loop or has none."""
    from luma_async.testing.threaded_relay import ThreadedRelay

    asserts = _asserts_all_used(request)
    with ThreadedRelay() as relay:
        yield relay
        if asserts and _has_passed(request.node):
            relay.assert_all_used()


@fixture
async def luma_session(luma_relay: "FakeRelay") -> "AsyncIterator[LumaSession]":
    """Yield a `LumaSession` with `luma_relay`; it polls every 20 ms, as usual in virtual time."""
    async with session_with(luma_relay) as session:
        yield session


def session_with(relay: "FakeRelay") -> "LumaSession":
    """Return a session for the running loop: a fast one in real time, a default one in virtual.

    In virtual time a poll every 20 ms would be 30,000 requests in ten minutes of the test.
    """
    import asyncio

    from luma_async import Every, Limits, LumaSession
    from luma_async.testing.virtual_time import VirtualTimeLoop

    if isinstance(asyncio.get_running_loop(), VirtualTimeLoop):
        return LumaSession(relay.url, api_key=relay.api_key)
    limits = Limits(max_batch=100, max_in_flight=4, max_rate=1000.0)
    return LumaSession(relay.url, api_key=relay.api_key, pace=Every(0.02), limits=limits)
