"""Commands and examples in processes of their own, and their output as it comes."""

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "docs" / "examples"
PATIENCE = 30.0
FEW_PLUGINS = [
    word for name in ("cacheprovider", "hypothesispytest", "randomly", "schemathesis", "xdist")
    for word in ("-p", f"no:{name}")
]  # fmt: skip


class Started:
    """A process whose output, both streams in one, can be read up to what is waited for."""

    def __init__(
        self, *command: str, settings: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        self.process = subprocess.Popen(
            [sys.executable, *command],
            env=os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": path} | dict(settings or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=cwd,
        )
        self.said = ""

    def until(self, pattern: str) -> re.Match[str]:
        """Read until what was said matches; AssertionError where it ends, or takes long, before."""
        assert self.process.stdout
        timer = threading.Timer(PATIENCE, self.process.kill)
        timer.start()
        try:
            while (found := re.search(pattern, self.said)) is None:
                line = self.process.stdout.readline()
                assert line, f"it ended, or took too long, before {pattern!r}:\n{self.said}"
                self.said += line
        finally:
            timer.cancel()
        return found

    def ended(self) -> int:
        """Wait for the end, and return the exit code; all that was said is in `said`."""
        rest, _ = self.process.communicate(timeout=PATIENCE)
        self.said += rest
        return self.process.returncode

    def stop(self, sign: int) -> int:
        """Send a signal, and return the exit code."""
        self.process.send_signal(sign)
        return self.ended()


@contextmanager
def started(
    *command: str, settings: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Generator[Started, None, None]:
    """Start Python with these arguments; it is gone afterwards."""
    one = Started(*command, settings=settings, cwd=cwd)
    try:
        yield one
    finally:
        one.process.kill()
        one.process.communicate()


@contextmanager
def relay_process(*arguments: str) -> Generator[dict[str, str], None, None]:
    """Start `luma-async relay` on a free port; yield the settings that it tells."""
    with started("-m", "luma_async", "relay", "--port", "0", *arguments) as one:
        one.until(r"export .*\n")
        yield dict(re.findall(r"(LUMA_\w+)=(\S+)", one.said))


@contextmanager
def held_port() -> Generator[int]:
    """Yield a port of 127.0.0.1 for a server with SO_REUSEADDR, and nobody else.

    It stays bound here, without listening: the kernel gives it to no other socket by chance.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]
