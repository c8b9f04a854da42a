"""What all commands share: signals, errors as text, a closed standard output."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

UNUSABLE = 2
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM


def run(command: Coroutine[Any, Any, T]) -> T:
    """Run a command; SIGINT, SIGTERM and SIGHUP cancel it, so that it cleans up.

    Raises KeyboardInterrupt after SIGINT, CancelledError after the others; so does a signal that
    comes later, while the result is written. A second signal does not wait for the cleaning up.
    """
    received: list[int] = []
    signals = stop_signals()

    async def run() -> T:
        loop, myself = asyncio.get_running_loop(), asyncio.current_task()
        assert myself is not None

        def stop(sign: int) -> None:
            if received:
                raise KeyboardInterrupt
            received.append(sign)
            myself.cancel()

        for sign in signals:
            loop.add_signal_handler(sign, stop, sign)
        return await command

    try:
        return asyncio.run(run())
    except asyncio.CancelledError:
        if signal.SIGINT in received:
            raise KeyboardInterrupt from None
        raise
    finally:
        for sign in signals:
            signal.signal(sign, _RAISE[sign])


def stop_signals() -> list[signal.Signals]:
    """Return the signals that end a command; one that is ignored, as by nohup, stays ignored."""
    return [sign for sign in _RAISE if signal.getsignal(sign) is not signal.SIG_IGN]


def _raise_cancelled(_sign: int, _: FrameType | None) -> None:
    raise asyncio.CancelledError


_RAISE: dict[signal.Signals, Callable[[int, FrameType | None], object]] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: _raise_cancelled,
    signal.SIGHUP: _raise_cancelled,  # the terminal was closed
}


@contextmanager
def kept_signal_handlers() -> Generator[None]:
    """Restore the signal handlers of the caller: a program may call `main` as a function."""
    kept = {sign: signal.getsignal(sign) for sign in _RAISE}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for sign, handler in kept.items():
                signal.signal(sign, handler)


def run_and_report(act: Callable[[], int], *usage: type[Exception]) -> int:
    """Call `act`, and return its exit code.

    An expected error (a bad value, a missing package, an OSError, `usage`) is printed without a
    traceback, and its code is 2; that of SIGTERM and SIGHUP is 143.
    """
    text: tuple[type[Exception], ...] = (ModuleNotFoundError, ValueError, *usage)
    try:
        return act()
    except asyncio.CancelledError:
        return TERMINATED
    except text as error:
        print_error(error)
    except BrokenPipeError:
        discard_stdout()
        return 0
    except OSError as error:
        print_error(error)
    return UNUSABLE


def discard_stdout() -> None:
    """Continue without a standard output: its reader has closed the pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_error(error: Exception | str) -> None:
    """Say what went wrong on standard error."""
    if sys.stderr is not None:  # print would take standard output instead
        print(f"luma-async: {error}", file=sys.stderr)
