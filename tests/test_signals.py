"""SIGINT, SIGTERM and SIGHUP, from the first instruction of the command to its last."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Generator

import pytest

from luma_async.cli.runtime import kept_signal_handlers, run, run_and_report
from tests import optional

# The command, as the console script starts it; the signal comes when a module is about to be
# imported.
COMMAND = """
import os, signal, sys
sign, module, *sys.argv[1:] = sys.argv[1:]
class Signals:
    def find_spec(self, name, path, target=None):
        if name == module:
            os.kill(os.getpid(), int(sign))
sys.meta_path.insert(0, Signals())
from luma_async.__main__ import main
sys.exit(main())
"""
WAIT = ("wait", "--base-url", "http://127.0.0.1:9", "--api-key", "k", "a")
WORKER = ("worker", "--nats", "nats://127.0.0.1:9", "--base-url", "http://127.0.0.1:9")
RELAY = ("relay", "--port", "0")


def stopped(sign: signal.Signals, module: str, *command: str) -> tuple[int, str]:
    """Return the exit code and the standard error of a command that meets a signal."""
    argv = [sys.executable, "-c", COMMAND, str(int(sign)), module, *command]
    ran = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env=os.environ | {"LUMA_API_KEY": "k"},
    )
    return ran.returncode, ran.stderr


@pytest.mark.parametrize(
    ("module", "sign", "code", "command"),
    [
        ("luma_async.cli", signal.SIGINT, 130, WAIT),
        ("luma_async.cli", signal.SIGTERM, 143, ("version",)),
        ("luma_async.cli", signal.SIGINT, 0, WORKER),
        ("luma_async.cli", signal.SIGTERM, 0, RELAY),
        ("aiohttp", signal.SIGINT, 130, WAIT),
        ("luma_async.cli.commands.worker", signal.SIGTERM, 143, WAIT),
        ("aiohttp", signal.SIGHUP, 143, WAIT),
    ],
)
def test_a_signal_among_the_imports_ends_the_command_with_its_own_code(
    module: str, sign: signal.Signals, code: int, command: tuple[str, ...]
) -> None:
    assert stopped(sign, module, *command) == (code, "luma-async: stopped before it began\n")


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_worker_that_is_stopped_while_it_connects_ends_with_0(sign: signal.Signals) -> None:
    optional.module("nats")
    code, said = stopped(sign, "nats.aio.client", *WORKER)
    assert code == 0, said
    assert "stopped before it began" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_is_ignored_around_the_command_stays_ignored(sign: signal.Signals) -> None:
    """`luma-async wait … &` in a script is not stopped by ctrl-C, with nohup not by SIGHUP."""
    code = f"import signal; signal.signal({int(sign)}, signal.SIG_IGN)\n" + COMMAND
    argv = [sys.executable, "-c", code, str(int(sign)), "aiohttp", "version"]
    ran = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    assert ran.returncode == 0, ran.stderr


@pytest.fixture
def handlers() -> Generator[None]:
    """Restore the handlers of the test run."""
    with kept_signal_handlers():
        yield


async def send(sign: int) -> None:
    os.kill(os.getpid(), sign)
    await asyncio.sleep(20)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize(
    ("sign", "error"),
    [
        (signal.SIGINT, KeyboardInterrupt),
        (signal.SIGTERM, asyncio.CancelledError),
        (signal.SIGHUP, asyncio.CancelledError),
    ],
)
def test_a_signal_cancels_a_command_and_stays_heard_while_the_result_is_written(
    sign: int, error: type[BaseException]
) -> None:
    with pytest.raises(error):
        run(send(sign))
    with pytest.raises(error):
        os.kill(os.getpid(), sign)


@pytest.mark.usefixtures("handlers")
def test_a_second_signal_does_not_wait_for_the_cleaning_up() -> None:
    cleaned: list[str] = []

    async def slow() -> None:
        try:
            await send(signal.SIGTERM)
        finally:
            await send(signal.SIGTERM)
            cleaned.append("never")

    with pytest.raises(KeyboardInterrupt):
        run(slow())
    assert not cleaned


@pytest.mark.usefixtures("handlers")
def test_an_ignored_sighup_does_not_cancel_a_command() -> None:
    """So nohup keeps its promise."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    async def hang_up() -> str:
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0.01)
        return "finished"

    assert run(hang_up()) == "finished"


def test_a_call_of_the_command_leaves_the_handlers_as_they_were() -> None:
    before = [signal.getsignal(sign) for sign in (signal.SIGINT, signal.SIGTERM)]

    def act() -> int:
        run(asyncio.sleep(0))
        return 0

    with kept_signal_handlers():
        assert run_and_report(act) == 0
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert [signal.getsignal(sign) for sign in (signal.SIGINT, signal.SIGTERM)] == before
