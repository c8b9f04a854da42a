"""What all tests share: the choice of clock, a relay with a session, aioresponses patched."""

import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any
from unittest.mock import Mock

import aioresponses.core
import pytest
from aiohttp import ClientResponse, web
from aioresponses import aioresponses as Aioresponses  # noqa: N812

from luma_async import LumaSession
from luma_async.protocol import states
from luma_async.testing import FakeRelay, loop_factories
from tests.optional import not_run
from tests.properties import load_profiles
from tests.subprocesses import held_port

load_profiles()

# Commands that the tests start find compiled modules, and receive ctrl-C and SIGHUP, however this
# run was started: `pytest &` in a script ignores SIGINT, nohup SIGHUP, and children inherit that.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


# In this suite, a FakeRelay whose scripted answers were not all used fails the test.
defaults = FakeRelay.__init__.__kwdefaults__
assert defaults is not None
defaults["assert_all_used"] = True


def pytest_collection_finish() -> None:
    """Keep the collector from walking through thousands of collected tests again and again."""
    gc.freeze()


def pytest_runtest_setup() -> None:
    """Let each test see the warnings that are logged once in a process."""
    states._warned.clear()  # pyright: ignore[reportPrivateUsage]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print in one line what was skipped, and how to run it."""
    if line := not_run(terminalreporter.getreports("skipped")):
        terminalreporter.write_line(line)


def pytest_asyncio_loop_factories(
    config: pytest.Config,
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return loop_factories(item)


class PatchedResponse(ClientResponse):
    """A response that aioresponses 0.7.9 can build on aiohttp 3.14 (its issue 289)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, stream_writer=Mock(output_size=0), **kwargs)


@pytest.fixture
def mocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aioresponses]:
    """Yield aioresponses, patched: it answers every request of aiohttp's client.

    A response that no request received is an error.
    """
    monkeypatch.setattr(aioresponses.core, "ClientResponse", PatchedResponse)
    with Aioresponses() as mock:
        yield mock
        matches: dict[Any, Any] = mock._matches  # pyright: ignore
        assert not [match.url_or_pattern for match in matches.values() if not match.repeat]


@pytest.fixture
def port() -> Iterator[str]:
    """Yield a port for a server that the test starts in a process of its own."""
    with held_port() as port:
        yield str(port)


@pytest.fixture
async def relay() -> AsyncIterator[FakeRelay]:
    """Yield a relay that runs in the test's own loop."""
    async with FakeRelay() as relay:
        yield relay


@pytest.fixture
async def luma(relay: FakeRelay) -> AsyncIterator[LumaSession]:
    """Yield a session with the relay, every argument at its default."""
    async with LumaSession(relay.url, api_key=relay.api_key) as luma:
        yield luma


@pytest.fixture
async def serve() -> AsyncIterator[
    Callable[[Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]], Awaitable[str]]
]:
    """Yield a function that starts a server on loopback, of one handler, and returns its URL."""
    runners: list[web.ServerRunner] = []

    async def start(handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> str:
        runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        return f"http://{host}:{port}"

    yield start
    for runner in runners:
        await runner.cleanup()
