"""The command `luma-async`, also `python -m luma_async`: answers signals, then imports the rest."""

import os
import signal
import sys
from types import FrameType

_EXIT_ZERO = ("relay", "worker")  # for them a signal is the ordinary end


def main() -> int:
    """Run the command and return its exit code.

    Until the command runs its event loop there is nothing to clean up or report: SIGINT, SIGTERM
    and SIGHUP end the process at once, with the command's own exit code and without a traceback.
    """
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(sign) is not signal.SIG_IGN:  # by nohup, or by `&`
            signal.signal(sign, _exit_at_once)
    from luma_async.cli import main

    return main()


def _exit_at_once(sign: int, _: FrameType | None) -> None:
    """Exit from a signal handler; an exception could be raised, and lost, inside an import."""
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
    os.write(2, b"luma-async: stopped before it began\n")
    code = 128 + (signal.SIGTERM if sign == signal.SIGHUP else sign)
    os._exit(0 if command in _EXIT_ZERO else code)


if __name__ == "__main__":  # pragma: no cover - a process of its own
    sys.exit(main())
