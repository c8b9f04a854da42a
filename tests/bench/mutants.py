"""What the tests would notice: the mutation score of the core.

    python -m tests.bench.mutants [MODULE …] [--minutes 10 | --sample N | --all | --again]

A mutant is one small change of the package, such as `<` for `<=` (see `mutants_operators.py`). It
is killed if a test fails or hangs; one that survives is a claim that no test makes. MODULE is a
package or a module of it, such as `scheduling` or `scheduling.throttle`; without one the whole
core is meant. The mutants are tried in an order drawn from the seed, so a part of them is a sample
of all; the error after a score is the standard error of that sample.

A mutant is tried in a copy of the checkout, by the tests that execute the changed line, the fastest
first, for as many as usually take --budget seconds; --processes are tried at the same time. The
map of tests and lines is kept in `.mutants`; making it takes some minutes. --again tries what
survived the last time.

Mutants that change nothing that anyone can notice are listed with the reason in
equivalent_mutants.toml; they are not tried. Only tests that run the package in their own process
count: those of the command line, of servers and of the documents are left out.
"""

import argparse
import os
import random
import sys
import time
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import sqrt
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import msgspec
from msgspec import Struct

from tests.bench.mutants_finder import Mutant, mutants_of
from tests.bench.mutants_map import CACHE, ROOT, copied_checkout, files_of, session, updated_map
from tests.bench.mutants_plan import Outcome, Plan, Trial

CORE = (
    "protocol", "scheduling", "polling", "downloads", "transport", "send_once", "resolver",
    "worker.balance", "worker.heartbeats", "worker.leases", "worker.metrics", "worker.publisher",
    "worker.server.invalid_messages", "worker.server.server_clock", "worker.storage.result_store",
    "worker.storage.results", "worker.storage.submissions",
    "cli.rendering.journal", "cli.rendering.plan", "cli.rendering.prompts", "cli.rendering.runner",
)  # fmt: skip
AT_ONCE = 200  # mutants for one process, which collects the tests once
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.toml")
LAST = CACHE / "survivors.json"
Key = tuple[str, str, str, str]
NOT_TRIED = (3, 4, 5)  # exit codes of pytest: internal error, usage error, no tests


class Tried(NamedTuple):
    """A mutant with what became of it."""

    mutant: Mutant
    killed: bool
    tests: int
    """How many tests were chosen; 0: no test executes the line."""


class Score(Struct, frozen=True):
    """How many of a sample of mutants were killed."""

    mutants: int
    tried: int
    killed: int

    @property
    def share(self) -> float:
        """Return the killed ones, in percent."""
        return 100.0 * self.killed / self.tried

    @property
    def error(self) -> float:
        """Return the standard error in percent: 0 if all mutants were tried."""
        p = (self.killed + 1) / (self.tried + 2)  # not 0 or 1, however few were tried
        return 100.0 * sqrt(p * (1.0 - p) / self.tried * (1.0 - self.tried / self.mutants))

    def __str__(self) -> str:
        figures = f"{self.share:.0f} % | {self.error:.1f}"
        return f"{self.mutants} | {self.tried} | {self.killed} | {figures}"


def modules(wanted: Iterable[str], package: Path) -> list[str]:
    """Return the modules that are meant, by their dotted names; exit if one does not exist."""
    found: list[str] = []
    for name in wanted:
        path = package.joinpath(*name.split("."))
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
        if not files or not files[0].exists():
            sys.exit(f"luma_async has no module {name}; give one such as scheduling.throttle")
        names = [".".join(file.relative_to(package).with_suffix("").parts) for file in files]
        found += [name for name in names if not name.endswith("__init__")]
    return list(dict.fromkeys(found))


def equivalent() -> dict[Key, str]:
    """Return what is not tried, with the reason; an empty last part: each mutant of the line."""
    listed = tomllib.loads(EQUIVALENT.read_text())
    return {
        (module, one["in"], one["line"], one.get("becomes", "")): one["why"]
        for module, rows in listed.items()
        for one in rows
    }


def drawn(wanted: Sequence[str], seed: int) -> list[Mutant]:
    """Return the mutants of modules without the equivalent ones, in the order of a seed."""
    known = equivalent()
    found = [
        mutant
        for module in wanted
        for mutant in mutants_of(module, (ROOT / _file(module)).read_bytes())
        if known.keys().isdisjoint({mutant.key, mutant.line_key})
    ]
    random.Random(seed).shuffle(found)
    return found


def _file(module: str) -> str:
    return f"luma_async/{module.replace('.', '/')}.py"


def try_all(
    mutants: Sequence[Mutant], minutes: float, budget: float, processes: int
) -> Iterator[Tried]:
    """Try mutants, some at the same time, for some minutes if these are not 0."""
    with copied_checkout() as copy:
        tests = updated_map(copy)
    trials = [tests.trial(one, budget) for one in mutants]
    ends_at = time.monotonic() + 60.0 * minutes if minutes else None
    results: SimpleQueue[tuple[Trial, Outcome] | None] = SimpleQueue()

    def try_share(share: Sequence[Trial]) -> None:
        try:
            for result in _outcomes(share, tests.durations, ends_at):
                results.put(result)
        finally:
            results.put(None)

    with ThreadPoolExecutor(processes) as pool:
        shares = [pool.submit(try_share, trials[first::processes]) for first in range(processes)]
        ended = 0
        while ended < processes:
            match results.get():
                case None:
                    ended += 1
                case trial, outcome if outcome.code in NOT_TRIED:
                    print(f"not tried: {place(trial.mutant)}", file=sys.stderr, flush=True)
                case trial, outcome:
                    yield _tried(trial, outcome)
        for share in shares:
            share.result()


def _outcomes(
    trials: Sequence[Trial], durations: dict[str, float], ends_at: float | None
) -> Iterator[tuple[Trial, Outcome]]:
    """Try mutants one after the other, in a copy of the checkout."""
    with copied_checkout() as copy:
        for first in range(0, len(trials), AT_ONCE):
            some = trials[first : first + AT_ONCE]
            left = None if ends_at is None else (ends_at - time.monotonic()) / 60.0
            if left is not None and left <= 0:
                return
            plan = Plan(files_of(some), list(some), durations, minutes=left)
            for outcome in session(copy, "try", plan, Outcome):
                yield some[outcome.trial], outcome


def _tried(trial: Trial, outcome: Outcome) -> Tried:
    tried = Tried(trial.mutant, outcome.code != 0, len(trial.tests))
    word = "killed" if tried.killed else "SURVIVED"
    line = f"{outcome.seconds:6.1f} s {outcome.code:4} {word:8} {place(tried.mutant)}"
    print(line, file=sys.stderr, flush=True)
    return tried


def place(mutant: Mutant) -> str:
    """Return where a mutant is."""
    inside = f" in {mutant.function}" if mutant.function else ""
    return f"{mutant.file}:{mutant.line}{inside} [{mutant.operator}]"


def room(module: str) -> str:
    """Return the package of a module, by which scores are added up."""
    first, _, rest = module.partition(".")
    if first in ("send_once", "resolver"):
        return "transport"
    return "render" if rest.startswith("rendering.") else first


def report(all_mutants: Sequence[Mutant], tried: Sequence[Tried]) -> None:
    """Print the scores by package and by module, then the survivors."""
    print("| module | mutants | tried | killed | score | ± |")
    print("| --- | --: | --: | --: | --: | --: |")
    everything = [one.module for one in all_mutants]
    for name in dict.fromkeys(["all", *sorted(map(room, everything)), *sorted(everything)]):
        inside = [one for one in everything if name in ("all", one, room(one))]
        mine = [one for one in tried if name in ("all", one.mutant.module, room(one.mutant.module))]
        if mine:
            print(f"| {name} | {Score(len(inside), len(mine), sum(one.killed for one in mine))} |")
    survivors = [one for one in tried if not one.killed]
    for one in sorted(survivors, key=lambda each: (each.mutant.file, each.mutant.line)):
        print(f"\n{place(one.mutant)}: {one.tests or 'no'} tests")
        print(f"-   {one.mutant.before}\n+   {one.mutant.after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="all of the core")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=10.0)
    length.add_argument("--sample", type=int, help="how many mutants")
    length.add_argument("--all", action="store_true", help="all mutants: hours")
    length.add_argument("--again", action="store_true", help="those that survived the last time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--budget", type=float, default=20.0, help="seconds of tests for a mutant")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="all cores")
    args = parser.parse_args()
    mutants = drawn(modules(args.modules or CORE, ROOT / "luma_async"), args.seed)
    sample = mutants
    if args.again:
        last = set(msgspec.json.decode(LAST.read_bytes(), type=list[Key]))
        sample = [mutant for mutant in mutants if mutant.key in last]
    elif args.sample:
        sample = mutants[: args.sample]
    limited = not (args.all or args.again or args.sample)
    minutes = args.minutes if limited else 0.0
    tried = list(try_all(sample, minutes, args.budget, args.processes))
    survivors = [one.mutant.key for one in tried if not one.killed]
    LAST.write_bytes(msgspec.json.encode(survivors))
    report(mutants, tried)


if __name__ == "__main__":
    main()
