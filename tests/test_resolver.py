"""A resolver that hangs does not keep the process."""

import asyncio
import socket
import subprocess
import sys
import threading
from pathlib import Path

import aiohttp
import anyio
import pytest

from luma_async import Downloader, LumaSession
from luma_async.resolver import DaemonResolver, new_resolver, resolve_in_daemons
from tests.subprocesses import PATIENCE, started

HANGING = """
import asyncio, socket, sys, threading
def hang(*args, **options):
    print("resolving", flush=True)
    threading.Event().wait()
socket.getaddrinfo = hang
"""
WAIT = """
from luma_async.cli import main
sys.exit(main(["wait", "--base-url", "http://hangs.example", "--api-key", "sk-x", *sys.argv[1:]]))
"""
COMMAND = """
import os
from luma_async.__main__ import main
os.environ.update(LUMA_BASE_URL="http://hangs.example", LUMA_API_KEY="sk-x")
sys.argv[0] = "luma-async"
sys.exit(main())
"""
DOWNLOAD = """
from luma_async import Generation, State, Video, download
video = Video(download_url="http://hangs.example/v.mp4")
saving = download(Generation(id="a", state=State.COMPLETED, video=video), sys.argv[1])
asyncio.run(asyncio.wait_for(saving, 0.2))
"""


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", HANGING + program, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE)


def test_a_wait_ends_at_its_timeout_while_the_resolver_hangs() -> None:
    ended = run(WAIT, "--timeout", "0.3", "a")
    assert ended.returncode == 124, ended.stderr


def test_a_download_ends_at_its_timeout_while_the_resolver_hangs(tmp_path: Path) -> None:
    ended = run(DOWNLOAD, str(tmp_path))
    assert ended.returncode == 1
    assert "TimeoutError" in ended.stderr


def test_a_wait_ends_at_sigterm_while_the_resolver_hangs() -> None:
    with started("-c", HANGING + WAIT, "a") as process:
        process.until("resolving")
        assert process.stop(15) == 143


@pytest.mark.parametrize("command", ["worker", "results"])
def test_a_worker_ends_at_sigterm_while_the_resolver_hangs(command: str) -> None:
    with started("-c", HANGING + COMMAND, command, "--nats", "nats://hangs.example") as process:
        process.until("resolving")
        assert process.stop(15) == (0 if command == "worker" else 143)


async def test_a_name_is_resolved_to_its_addresses() -> None:
    found = await DaemonResolver().resolve("localhost", 80, socket.AF_INET)
    assert {(one["host"], one["port"], one["family"]) for one in found} == {
        ("127.0.0.1", 80, socket.AF_INET)
    }


INET, INET6, STREAM = socket.AF_INET, socket.AF_INET6, socket.SOCK_STREAM
FOUND = [
    (INET6, STREAM, 6, "", (10, b"of a Python without IPv6")),
    (INET, STREAM, 6, "", ("8.8.8.8", 443)),
    (INET6, STREAM, 6, "", ("2606:4700::1111", 443, 7, 0)),
    (INET, STREAM, 17, "", ("1.1.1.1", 443)),
]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """Return the questions to the system so far; it answers each with FOUND."""
    questions: list[tuple[object, ...]] = []

    def look_up(*question: object, **options: object) -> object:
        names = ("host", "port", "family", "type", "proto", "flags")
        values = dict(zip(names, question, strict=False)) | options
        is_daemon = threading.current_thread().daemon
        questions.append((*(values.get(name, 0) for name in names), is_daemon))
        return FOUND

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return questions


async def test_the_addresses_of_a_name_are_those_of_the_resolver_of_aiohttp(
    asked: list[tuple[object, ...]],
) -> None:
    found = await DaemonResolver().resolve("cdn.example", 443)
    assert found == await aiohttp.ThreadedResolver().resolve("cdn.example", 443, socket.AF_UNSPEC)
    assert [one["host"] for one in found] == ["8.8.8.8", "2606:4700::1111", "1.1.1.1"]
    ours, theirs = asked
    assert ours[:-1] == theirs[:-1]
    assert ours[-1], "the thread is a daemon"


async def test_a_link_local_address_has_its_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(*_: object, **__: object) -> object:
        return [(INET6, STREAM, 6, "", ("fe80::1", 0, 7, 3))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    (one,) = await DaemonResolver().resolve("printer.local")
    assert (one["host"], one["port"]) == ("fe80::1%3", 0)


async def test_a_loop_can_look_up_names_in_daemon_threads(asked: list[tuple[object, ...]]) -> None:
    loop = asyncio.get_running_loop()
    resolve_in_daemons(loop)
    assert await loop.getaddrinfo("nats.example", 4222, type=STREAM) == FOUND
    assert asked == [("nats.example", 4222, 0, STREAM, 0, 0, True)]


async def test_a_resolver_that_needs_no_thread_is_used_if_aiohttp_has_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Threadless(aiohttp.ThreadedResolver):
        pass

    monkeypatch.setattr(aiohttp, "DefaultResolver", aiohttp.ThreadedResolver)
    assert isinstance(new_resolver(), DaemonResolver)
    monkeypatch.setattr(aiohttp, "DefaultResolver", Threadless)
    assert isinstance(new_resolver(), Threadless)


async def test_a_session_and_a_downloader_close_their_resolvers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of aiodns has a thread and sockets until it is closed; aiohttp closes only its own."""
    opened: list[object] = []
    closed: list[object] = []

    class Counted(aiohttp.ThreadedResolver):
        def __init__(self) -> None:
            super().__init__()
            opened.append(self)

        async def close(self) -> None:
            await asyncio.sleep(0)
            closed.append(self)

    monkeypatch.setattr(aiohttp, "DefaultResolver", Counted)
    async with LumaSession("http://relay.example", api_key="k"):
        assert (len(opened), closed) == (1, [])
    with anyio.CancelScope() as scope:
        async with Downloader(tmp_path):
            assert len(opened) == 2
            scope.cancel()
    assert closed == opened, "also at a cancellation"


async def test_a_name_that_does_not_exist_is_an_os_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(OSError, match="not known"):
        await DaemonResolver().resolve("none.example")


async def test_an_answer_that_comes_after_the_cancellation_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, may_answer, answered = threading.Event(), threading.Event(), threading.Event()

    def slow(*_: object, **__: object) -> list[object]:
        asked.set()
        may_answer.wait(PATIENCE)
        answered.set()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    task = asyncio.create_task(DaemonResolver().resolve("slow.example"))
    await asyncio.to_thread(asked.wait, PATIENCE)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    may_answer.set()
    assert await asyncio.to_thread(answered.wait, PATIENCE)
