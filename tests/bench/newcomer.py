"""A newcomer's path: each command of the README and the tutorial, as it stands, and its time.

    python -m tests.bench.newcomer            # needs git and the package index; some minutes

A clone of what is committed, in an empty directory, with an empty environment. Blocks of Python are
saved and run, as the tutorial asks. The relay's command runs on until the end, as in a terminal of
its own.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.docs_blocks import ROOT, Block, fenced, indented

KEPT = ("PATH", "HOME", "NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "PIP_INDEX_URL", "PIP_CERT")
LAST, WIDEST = 30, 200
LISTENS = "a relay is at"


class Terminal:
    """A directory, and what was said in it that counts for the commands after it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._environ = {name: os.environ[name] for name in KEPT if name in os.environ}
        self._said: list[str] = []
        self._relay: subprocess.Popen[str] | None = None

    def run(self, command: str) -> int:
        """Run a command as pasted; return its exit code."""
        if command.startswith(("export ", ". ")):
            self._said.append(command)
        if command.startswith("luma-async relay"):
            return self._start(command)
        script = "\n".join([*self._said, command])
        ended = subprocess.run(
            ["bash", "-c", script], cwd=self._directory, env=self._environ, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        if ended.returncode:
            lines = [line[:WIDEST] for line in ended.stdout.splitlines()[-LAST:]]
            print(*lines, sep="\n", file=sys.stderr)
        return ended.returncode

    def _start(self, command: str) -> int:
        script = "\n".join([*self._said, f"exec {command}"])
        self._relay = subprocess.Popen(
            ["bash", "-c", script], cwd=self._directory, env=self._environ, text=True,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        assert self._relay.stderr
        return 0 if LISTENS in self._relay.stderr.readline() else 1

    def close(self) -> None:
        """Press ctrl-C where the relay runs."""
        if self._relay is not None:
            self._relay.terminate()
            self._relay.communicate()


def steps(directory: Path) -> Iterator[tuple[str, str]]:
    """Yield what is shown of each command, and the command."""
    for block in indented():
        if block.page == "README.md" and block.text.lstrip().startswith("python3 -m venv"):
            yield block.text.strip(), block.text.strip()
    blocks = [one for one in fenced("console", "python") if one.page == "docs/tutorial.md"]
    for block in sorted(blocks, key=lambda one: one.line):
        yield from _of(block, directory)


def _of(block: Block, directory: Path) -> Iterator[tuple[str, str]]:
    if block.language == "console":
        for line in block.text.splitlines():
            yield line[2:], line[2:]
        return
    name = f"block_{block.line}.py"
    (directory / name).write_text(block.text)
    yield f"python {name}", f"python {name}"


def main() -> None:
    """Print the seconds, the exit code and the command of each step."""
    with tempfile.TemporaryDirectory() as home:
        directory = Path(home) / "luma_async"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(directory)], check=True)
        terminal = Terminal(directory)
        print("| seconds | exit | command |\n|--:|--:|---|")
        try:
            for shown, command in steps(directory):
                began = time.monotonic()
                code = terminal.run(command)
                print(f"| {time.monotonic() - began:.1f} | {code} | `{shown}` |")
                sys.stdout.flush()
        finally:
            terminal.close()


if __name__ == "__main__":
    main()
