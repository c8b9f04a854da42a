"""Which tests execute which lines of the package: kept in `.mutants`, made again if code changes.

A changed test file is run again alone. A change of the package or of what the tests share needs
the whole map.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec
from coverage import CoverageData
from msgspec import Struct

from tests.bench.mutants_finder import Mutant
from tests.bench.mutants_plan import Mapped, Plan, Trial

ROOT = Path(__file__).parent.parent.parent
CACHE = ROOT / ".mutants"
OWN_FIRST = 0.1  # a test of the module's own file counts as that much shorter
# These run the package in other processes, or need servers, or do not run it at all.
LEFT_OUT = (
    "test_chinese_pages", "test_cli_relay", "test_docs", "test_examples", "test_glossary",
    "test_imports", "test_mutants", "test_nginx", "test_openapi", "test_release", "test_tutorial",
)  # fmt: skip
WORKER_TESTS = (
    "test_balance", "test_heartbeats", "test_invalid_message_log", "test_leases", "test_metrics",
    "test_peers", "test_publisher", "test_result_store", "test_results", "test_server_clock",
    "test_submissions",
)  # fmt: skip
Result = TypeVar("Result", bound=Struct)


class Stored(Struct):
    """The part of the map that coverage does not keep."""

    shared: str = ""
    """Hash of the package and of what the tests share."""
    files: dict[str, str] = {}
    """Hash of each test file."""
    durations: dict[str, float] = {}


@contextmanager
def copied_checkout() -> Generator[Path]:
    """Copy what belongs to the checkout into a temporary directory."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        copy = Path(scratch, "checkout")
        Path(scratch, "tmp").mkdir()
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, copy / name)
        yield copy


def session(copy: Path, what: str, plan: Plan, kind: type[Result]) -> Iterator[Result]:
    """Run a process of pytest in the copy; yield what it reports."""
    path = copy.parent / f"{what}.json"
    path.write_bytes(msgspec.json.encode(plan))
    reader, writer = os.pipe()
    environment = os.environ | {
        "PYTHONPATH": str(copy),
        "TMPDIR": str(copy.parent / "tmp"),
        "COVERAGE_CORE": "ctrace",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.mutants_session", what, str(path), str(writer)],
        cwd=copy, env=environment, pass_fds=[writer], stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(writer)
    try:
        with open(reader, "rb") as results:
            for line in results:
                yield msgspec.json.decode(line, type=kind)
    finally:
        process.terminate()
        process.wait()


def test_files() -> list[str]:
    """Return the test files that can notice a mutant."""
    files = sorted(file.relative_to(ROOT) for file in (ROOT / "tests").rglob("test_*.py"))
    return [
        file.as_posix()
        for file in files
        if (file.stem in WORKER_TESTS if "worker" in file.parts else file.stem not in LEFT_OUT)
    ]


def updated_map(copy: Path) -> "TestMap":
    """Run the test files whose part of the map is not up to date."""
    CACHE.mkdir(exist_ok=True)
    path, data = CACHE / "map.json", CACHE / "coverage"
    stored = msgspec.json.decode(path.read_bytes(), type=Stored) if path.exists() else Stored()
    tests = test_files()
    shared = _hash(
        file
        for folder in ("luma_async", "tests")
        for file in sorted((ROOT / folder).rglob("*.py"))
        if not file.name.startswith("test_") and "bench" not in file.parts
    )
    if stored.shared != shared:
        stored = Stored(shared)
        data.unlink(missing_ok=True)
    hashes = {test: _hash([ROOT / test]) for test in tests}
    stale = [test for test in tests if stored.files.get(test) != hashes[test]]
    if stale:
        print(f"running {len(stale)} test files under coverage", file=sys.stderr)
        (mapped,) = session(copy, "map", Plan(stale, data=str(data)), Mapped)
        kept = {t: s for t, s in stored.durations.items() if file_of(t) in set(tests) - set(stale)}
        stored = Stored(shared, hashes, kept | mapped.durations)
        path.write_bytes(msgspec.json.encode(stored))
    return TestMap(data, stored.durations)


def file_of(test: str) -> str:
    """Return the file of a test."""
    return test.partition("::")[0]


def _hash(files: Iterable[Path]) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


class TestMap:
    """Which tests execute a line, and how long each takes."""

    __test__ = False

    def __init__(self, data: Path, durations: dict[str, float]) -> None:
        self.durations = durations
        self._data = CoverageData(str(data))
        self._data.read()
        self._lines: dict[str, dict[int, set[str]]] = {}

    def trial(self, mutant: Mutant, budget: float) -> Trial:
        """Choose the tests of a mutant, the fastest first, `budget` seconds of them."""
        lines = self._of_module(mutant.file)
        by_line = [lines.get(line, set()) for line in mutant.lines]
        by_import = not mutant.function_line or any("" in tests for tests in by_line)
        wanted = set[str]().union(*(lines.values() if by_import else by_line))
        return Trial(mutant, choose(mutant.module, wanted, self.durations, budget), by_import)

    def _of_module(self, file: str) -> dict[int, set[str]]:
        if file not in self._lines:
            found: dict[int, set[str]] = {}
            for measured in self._data.measured_files():
                if measured.endswith(f"/{file}"):
                    for line, tests in self._data.contexts_by_lineno(measured).items():
                        found.setdefault(line, set()).update(tests)
            self._lines[file] = found
        return self._lines[file]


def choose(
    module: str, wanted: Iterable[str], durations: dict[str, float], budget: float
) -> list[str]:
    """Sort tests by duration, those of the module's own file first; end after `budget` seconds."""
    own = f"/test_{module.rpartition('.')[2]}.py"

    def cost(test: str) -> tuple[float, str]:
        return durations[test] * (OWN_FIRST if file_of(test).endswith(own) else 1.0), test

    chosen: list[str] = []
    left = budget
    for test in sorted((one for one in wanted if one in durations), key=cost):
        left -= durations[test]
        if chosen and left < 0:
            break
        chosen.append(test)
    return chosen


def files_of(trials: Sequence[Trial]) -> list[str]:
    """Return the files of all tests that are chosen."""
    return sorted({file_of(test) for trial in trials for test in trial.tests})
