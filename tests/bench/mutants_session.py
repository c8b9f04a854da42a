"""One process of pytest for `mutants`: it makes the map, or tries mutants. Not called by hand.

    python -m tests.bench.mutants_session map|try|once PLAN RESULTS

It runs in a copy of the checkout, whose `luma_async` it changes; RESULTS is a file descriptor.

- `map` runs test files under coverage, and reports the seconds of each test that passed.
- `try` collects test files once. For each mutant it forks: the child replaces the code of the
  changed function, and runs the chosen tests until one fails. Its exit code is the answer.
- `once` runs the chosen tests in this process. A change of what an import executes needs that.

A test that takes ten times as long as usual ends its process by SIGALRM: it hangs.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from math import inf
from pathlib import Path

import msgspec
import pytest
from coverage import Coverage
from hypothesis import Phase, settings

from tests.bench.mutants_code import Changed, Functions
from tests.bench.mutants_plan import Mapped, Outcome, Plan, Trial

OPTIONS = (
    "-n0", "-q", "--tb=no", "--no-header", "--no-summary", "--assert=plain",
    "-p", "no:cacheprovider",
)  # fmt: skip
HANGS_AFTER = 10.0  # times its usual duration
SLACK = 10.0  # seconds on top of that
STARTS_WITHIN = 60.0  # seconds for imports, and for what pytest does after the last test


class Mapper:
    """Plugin: each test is a context of coverage, and is timed."""

    def __init__(self, coverage: Coverage) -> None:
        self._coverage = coverage
        self._excluded: set[str] = set()
        self._durations: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self._coverage.switch_context(item.nodeid)
        began = time.perf_counter()
        try:
            return (yield)
        finally:
            self._durations[item.nodeid] = time.perf_counter() - began
            self._coverage.switch_context("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:
            self._excluded.add(report.nodeid)

    def mapped(self) -> Mapped:
        passed = {test: s for test, s in self._durations.items() if test not in self._excluded}
        return Mapped(passed)


class Chosen:
    """Plugin of a process with one mutant: runs the chosen tests alone, in their order."""

    def __init__(self, trial: Trial, durations: dict[str, float]) -> None:
        self._places = {test: place for place, test in enumerate(trial.tests)}
        self._durations = durations
        limit(STARTS_WITHIN)

    def pytest_sessionstart(self) -> None:
        stop_at_first_failing_example()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = self.chosen(items)

    def chosen(self, items: Sequence[pytest.Item]) -> list[pytest.Item]:
        mine = [item for item in items if item.nodeid in self._places]
        return sorted(mine, key=lambda item: self._places[item.nodeid])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        limit(HANGS_AFTER * self._durations.get(item.nodeid, 1.0) + SLACK)
        try:
            return (yield)
        finally:
            limit(STARTS_WITHIN)


class Trier:
    """Plugin of the process that has collected all files: tries each mutant in a process."""

    def __init__(self, plan: Plan, report: Callable[[Outcome], None]) -> None:
        self._plan = plan
        self._report = report

    def pytest_sessionstart(self) -> None:
        stop_at_first_failing_example()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        minutes = self._plan.minutes
        ends_at = inf if minutes is None else time.monotonic() + 60.0 * minutes
        functions = Functions()
        for number, trial in enumerate(self._plan.trials):
            if time.monotonic() > ends_at:
                break
            began = time.monotonic()
            with Changed(trial.mutant) as changed:
                replacements = functions.replacements(trial.mutant, changed.mutated)
                if not trial.tests:
                    code = 0
                elif trial.by_import or not replacements:
                    code = self._try_once(trial)
                else:
                    pid = os.fork()
                    if pid == 0:
                        self._become(trial, session)
                        for function, its_code in replacements:
                            function.__code__ = its_code
                        return None  # pytest runs the tests that are left
                    code = exit_code(pid)
            self._report(Outcome(number, code, time.monotonic() - began))
        return True

    def _become(self, trial: Trial, session: pytest.Session) -> None:
        """Make this process, a child, run the chosen tests."""
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (1, 2):
            os.dup2(nowhere, stream)
        chosen = Chosen(trial, self._plan.durations)
        session.config.pluginmanager.register(chosen)
        session.items[:] = chosen.chosen(session.items)

    def _try_once(self, trial: Trial) -> int:
        files = sorted({test.partition("::")[0] for test in trial.tests})
        plan = Path(os.environ["TMPDIR"], "once.json")
        plan.write_bytes(msgspec.json.encode(Plan(files, [trial], self._plan.durations)))
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.mutants_session", "once", str(plan), "0"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        process.wait()
        end_group(process.pid)
        return process.returncode


def stop_at_first_failing_example() -> None:
    """Keep hypothesis from looking for a smaller one."""
    phases = [Phase.explicit, Phase.generate]
    settings.register_profile("mutants", settings.get_profile("steady"), phases=phases)
    settings.load_profile("mutants")


def limit(seconds: float) -> None:
    """Let the process die by SIGALRM after some seconds."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def exit_code(pid: int) -> int:
    """Wait for a child that leads its session; end what it has started."""
    _, status = os.waitpid(pid, 0)
    end_group(pid)
    return os.waitstatus_to_exitcode(status)


def end_group(pid: int) -> None:
    """End what a child that led its session has left running."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def make_map(plan: Plan) -> Mapped:
    """Run test files under coverage."""
    coverage = Coverage(data_file=plan.data, source_pkgs=["luma_async"], config_file=False)
    coverage.load()
    mapper = Mapper(coverage)
    coverage.start()
    pytest.main([*OPTIONS, *plan.files], plugins=[mapper])
    coverage.stop()
    coverage.save()
    return mapper.mapped()


def main() -> None:
    what, path, results = sys.argv[1:]
    plan = msgspec.json.decode(Path(path).read_bytes(), type=Plan)
    if what == "once":
        chosen = Chosen(plan.trials[0], plan.durations)
        code = int(pytest.main(["-x", *OPTIONS, *plan.files], plugins=[chosen]))
    else:
        os.set_inheritable(int(results), False)
        with open(int(results), "wb", buffering=0) as out:

            def report(result: Outcome | Mapped) -> None:
                out.write(msgspec.json.encode(result) + b"\n")

            if what == "map":
                report(make_map(plan))
                return
            trier = Trier(plan, report)
            code = int(pytest.main(["-x", *OPTIONS, *plan.files], plugins=[trier]))
    os._exit(code)


if __name__ == "__main__":
    main()
