"""Does the suite pass each time? The README's second command, again and again, and its failures.

    python -m tests.bench.stability [--runs 20] [--python python3.12] [--cpus 0] [--keep DIR]

A clone of what is committed, in an empty directory, with an empty environment. The command is run
as it stands, then its last part, pytest, with another random order each time, all of it beside a
process that keeps one core busy. `--cpus` binds all of it to some cores, as taskset does; DIR
keeps the output of runs that failed. A row for each run as it ends, then the failures by test.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from tests.bench.newcomer import KEPT
from tests.docs_blocks import ROOT, indented

FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
COUNTS = re.compile(r"^=+ (.*) in [\d.]+s", re.MULTILINE)


def command() -> tuple[str, str]:
    """Return the two parts of the README's second command: what installs, and what tests."""
    (text,) = [
        block.text.strip()
        for block in indented()
        if block.page == "README.md" and block.text.strip().endswith("pytest")
    ]
    install, _, tests = text.rpartition(" && ")
    return install, tests


class Checkout:
    """A clone with an environment of its own; `python3` is the interpreter that is named."""

    def __init__(self, home: Path, python: str, cpus: str | None) -> None:
        found = shutil.which(python)
        if found is None:
            sys.exit(f"there is no {python}; give the path of an interpreter")
        (home / "bin").mkdir()
        (home / "bin" / "python3").symlink_to(found)
        self._directory = home / "luma_async"
        self._environment = {name: os.environ[name] for name in KEPT if name in os.environ}
        self._environment["PATH"] = f"{home / 'bin'}{os.pathsep}{self._environment['PATH']}"
        self._bound = ["taskset", "-c", cpus] if cpus else []
        subprocess.run(["git", "clone", "-q", str(ROOT), str(self._directory)], check=True)

    def run(self, line: str) -> subprocess.CompletedProcess[str]:
        """Run a line of shell."""
        return subprocess.run(
            [*self._bound, "bash", "-c", line], cwd=self._directory, env=self._environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip

    @contextmanager
    def busy(self) -> Generator[None]:
        """Keep one core busy."""
        process = subprocess.Popen([*self._bound, sys.executable, "-c", "while True: pass"])
        try:
            yield
        finally:
            process.kill()
            process.wait()


def main() -> None:
    """Print a row for each run, and how often each test failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--python", default=sys.executable, metavar="PATH")
    parser.add_argument("--cpus", metavar="LIST", help="such as 0, or 0,1 (default: all)")
    parser.add_argument("--keep", type=Path, metavar="DIR")
    args = parser.parse_args()
    failures: Counter[str] = Counter()
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as home:
        checkout = Checkout(Path(home), args.python, args.cpus)
        install, tests = command()
        installed = checkout.run(f"{install} && .venv/bin/python -VV")
        if installed.returncode:
            sys.exit(installed.stdout)
        print(installed.stdout.strip().splitlines()[-1], flush=True)
        for run in range(args.runs):
            order = f" -p randomly -p no:cacheprovider --randomly-seed={run}" if run else ""
            with checkout.busy():
                began = time.monotonic()
                ended = checkout.run(tests + order)
            seconds.append(time.monotonic() - began)
            failed = FAILED.findall(ended.stdout) or ["the run"] * bool(ended.returncode)
            failures.update(failed)
            print(f"{run + 1:3} {seconds[-1]:6.1f} s ", *COUNTS.findall(ended.stdout), *failed)
            sys.stdout.flush()
            if failed and args.keep:
                args.keep.mkdir(exist_ok=True)
                (args.keep / f"{run + 1}.txt").write_text(ended.stdout)
    print(f"{args.runs} runs, median {median(seconds):.1f} s, {failures.total()} failures")
    for test, count in failures.most_common():
        print(f"{count:3} times {test}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
