"""Run the suite on each Python that pyproject.toml promises.

    python -m tests.bench.pythons [VERSION ...] [--fetch] [--folder FOLDER] [-- PYTEST ARGUMENTS]
    python -m tests.bench.pythons --newest      # print the path of the newest interpreter at hand

An interpreter is looked for on PATH, among the versions of pyenv, and in the folder. With --fetch,
versions that are missing are unpacked into the folder from Debian's suite "unstable" (see
`debian.py`); delete the folder to get newer ones. Each version gets a temporary virtual environment
with the extra "test". The exit code is 1 if a test failed, or if nothing was run.

Needs the standard library alone.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tests.bench.debian import FetchError, fetch

ROOT = Path(__file__).parent.parent.parent
CLASSIFIER = re.compile(r"Programming Language :: Python :: (3\.\d+)")
PROBE = """
import ensurepip, ssl, sys, venv
print(sys.executable, "%d.%d" % sys.version_info[:2], "%d.%d.%d" % sys.version_info[:3], sep="\\n")
"""
LAST_LINES = 60
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


@dataclass
class Row:
    """What a run of the suite came to; without a report, what went wrong before it."""

    version: str
    seconds: float = 0.0
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    remarks: list[str] = field(default_factory=list[str])

    def __str__(self) -> str:
        counts = f"{self.seconds:.0f} | {self.passed} | {self.failed} | {self.skipped}"
        return f"| {self.version} | {counts} | {'; '.join(self.remarks)} |"


def project() -> dict[str, Any]:
    """Return the table [project] of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def promised() -> list[str]:
    """Return the versions that the classifiers name, oldest first."""
    return [match[1] for line in project()["classifiers"] if (match := CLASSIFIER.fullmatch(line))]


def find(version: str, folder: Path) -> tuple[str, str] | None:
    """Return the path and the full version of the first interpreter that works, or None."""
    for candidate in _candidates(version, folder):
        if not candidate.is_file():
            continue
        ended = subprocess.run(
            [candidate, "-c", PROBE], env=ENVIRONMENT, check=False, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        if ended.returncode == 0:
            path, minor, full = ended.stdout.splitlines()
            if minor == version:
                return path, full
    return None


def _candidates(version: str, folder: Path) -> Iterator[Path]:
    for directory in os.get_exec_path():
        yield Path(directory) / f"python{version}"
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    patches = (pyenv / "versions").glob(f"{version}.*/bin/python")
    yield from sorted(patches, key=lambda path: _numbers(path.parts[-3]), reverse=True)
    yield folder / version / "usr" / "bin" / f"python{version}"


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def run(path: str, version: str, arguments: Sequence[str]) -> Row:
    """Install the project with the extra "test" for an interpreter, and run the suite."""
    row = Row(version)
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        subprocess.run([path, "-m", "venv", f"{scratch}/venv"], env=ENVIRONMENT, check=True)
        python = f"{scratch}/venv/bin/python"
        if missing := install(python):
            row.remarks.append(f"not installed: {', '.join(missing)}")
        began = time.monotonic()
        options = ["-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        ended = subprocess.run(
            [python, "-m", "pytest", *options, *arguments], cwd=ROOT, env=ENVIRONMENT, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        row.seconds = time.monotonic() - began
        if report.exists():
            _count(report, row)
        if ended.returncode and not row.failed:
            row.failed = 1
            row.remarks.append(f"pytest ended with exit code {ended.returncode}")
        if ended.returncode:
            print(*ended.stdout.splitlines()[-LAST_LINES:], sep="\n", file=sys.stderr)
    return row


def _count(report: Path, row: Row) -> None:
    for case in ElementTree.parse(report).iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            row.failed += 1
            row.remarks.append(f"{case.get('classname')}::{case.get('name')}")
        elif case.find("skipped") is not None:
            row.skipped += 1
        else:
            row.passed += 1


def install(python: str) -> list[str]:
    """Install the project with the extra "test"; return the requirements that have to be left out.

    If the extra as a whole cannot be installed, its requirements are installed one by one.
    """
    if _pip(python, "-e", ".[test]"):
        return []
    if not _pip(python, "-e", "."):
        return ["luma-async"]
    return [name for name in dict.fromkeys(requirements(["test"])) if not _pip(python, name)]


def requirements(extras: Iterable[str]) -> Iterator[str]:
    """Yield what the extras require; extras of the project itself are replaced by theirs."""
    for extra in extras:
        for requirement in project()["optional-dependencies"][extra]:
            if own := re.fullmatch(r"luma-async\[([\w,]+)\]", requirement):
                yield from requirements(own[1].split(","))
            else:
                yield requirement


def _pip(python: str, *arguments: str) -> bool:
    ended = subprocess.run(
        [python, "-m", "pip", "install", "-q", *arguments], cwd=ROOT, env=ENVIRONMENT, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    if ended.returncode:
        print(*ended.stdout.splitlines()[-LAST_LINES:], sep="\n", file=sys.stderr)
    return ended.returncode == 0


def obtain(versions: Sequence[str], folder: Path) -> None:
    """Fetch the versions of which no interpreter is at hand; print why one cannot be fetched."""
    missing = [version for version in versions if find(version, folder) is None]
    if not missing:
        return
    try:
        for version, error in fetch(missing, folder):
            if error is not None:
                print(f"Python {version}: {error}", file=sys.stderr)
    except FetchError as error:
        print(f"Python {', '.join(missing)}: {error}", file=sys.stderr)


def main() -> int:
    own, arguments = _split(sys.argv[1:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("versions", nargs="*", metavar="VERSION", help="such as 3.14; all promised")
    parser.add_argument("--fetch", action="store_true", help="fetch missing versions from Debian")
    parser.add_argument("--newest", action="store_true", help="print the newest interpreter's path")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser.add_argument("--folder", type=Path, default=cache / "luma-async-pythons")
    args = parser.parse_args(own)
    versions: list[str] = args.versions or promised()
    for version in versions:
        if not re.fullmatch(r"3\.\d+", version):
            parser.error(f"{version!r} is no minor version; give one such as 3.14")
    folder = args.folder.expanduser().absolute()
    if args.fetch:
        obtain(versions, folder)
    return newest(versions, folder) if args.newest else run_all(versions, folder, arguments)


def _split(command: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    if "--" not in command:
        return command, ()
    at = command.index("--")
    return command[:at], command[at + 1 :]


def newest(versions: Sequence[str], folder: Path) -> int:
    """Print the path of the newest interpreter at hand."""
    for version in sorted(versions, key=_numbers, reverse=True):
        if found := find(version, folder):
            print(found[0])
            return 0
    print(f"no Python {' or '.join(versions)} at hand; add --fetch", file=sys.stderr)
    return 1


def run_all(versions: Sequence[str], folder: Path, arguments: Sequence[str]) -> int:
    """Print one row for each version; return the exit code."""
    print("| Python | seconds | passed | failed | skipped | remarks |")
    print("|---|--:|--:|--:|--:|---|", flush=True)
    rows: list[Row] = []
    for version in versions:
        if found := find(version, folder):
            rows.append(run(*found, arguments))
            print(rows[-1], flush=True)
        else:
            print(f"| {version} | | | | | not at hand; add --fetch |", flush=True)
    return 1 if not rows or any(row.failed for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
