"""What all commands share that wait: signals, errors as words, a pipe that nobody reads."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

UNUSABLE = 2
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM


def run(command: Coroutine[Any, Any, None]) -> None:
    """Run a command; SIGTERM cancels it, so that it cleans up, and raises CancelledError."""

    async def run() -> None:
        myself = asyncio.current_task()
        assert myself is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, myself.cancel)
        await command

    asyncio.run(run())


def guarded(act: Callable[[], int], *usage: type[Exception]) -> int:
    """Return an exit code; errors of `usage`, and what no command can use, are told as words.

    What SIGTERM has cancelled has a code of its own.
    """
    told: tuple[type[Exception], ...] = (ModuleNotFoundError, ValueError, *usage)
    try:
        return act()
    except asyncio.CancelledError:
        return TERMINATED
    except told as error:
        complain(error)
    except BrokenPipeError:
        unheard()
        return 0
    except OSError as error:
        complain(error)
    return UNUSABLE


def unheard() -> None:
    """Go on without a standard output: whoever read it has left."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(error: Exception | str) -> None:
    """Say what went wrong on standard error."""
    if sys.stderr is not None:  # print would take standard output instead
        print(f"luma-async: {error}", file=sys.stderr)
