"""What `mutants` and its processes say to each other."""

from msgspec import Struct

from tests.bench.mutants_finder import Mutant


class Trial(Struct, frozen=True):
    """A mutant, and the tests to run on it, in order."""

    mutant: Mutant
    tests: list[str]
    by_import: bool
    """An import executes the line: the package has to be imported again."""


class Plan(Struct, frozen=True):
    """What a process does: the test files that it collects, and the mutants that it tries."""

    files: list[str]
    trials: list[Trial] = []
    durations: dict[str, float] = {}
    """Usual seconds of each test."""
    data: str = ""
    """The coverage file; a map continues one that exists."""
    minutes: float | None = None
    """No trial begins after this time; None: no limit."""


class Outcome(Struct, frozen=True):
    """What the tests say of the trial with this number."""

    trial: int
    code: int
    """Exit code of pytest, or minus the signal that ended it."""
    seconds: float


class Mapped(Struct, frozen=True):
    """Seconds of each test that passed."""

    durations: dict[str, float]
