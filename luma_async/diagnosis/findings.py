"""What an examination found: each finding with its level, and what follows from it."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

from msgspec import Struct

from luma_async.diagnosis.questions import Answers

Level = Literal["ok", "note", "trouble"]


class Subject(Struct, frozen=True):
    """What was examined: the base URL as given, the ids, and the largest batch."""

    base_url: str
    ids: tuple[str, ...]
    max_batch: int
    max_rate: float = 10.0
    max_requests: int = 40


class Finding(Struct, frozen=True):
    """One thing that the relay does.

    `check` names what was examined, `text` says what was found, `follows` what that means for the
    caller, or is empty. `limits` are arguments of `Limits` that fit this relay; `options` are other
    options of the command line.
    """

    check: str
    level: Level
    text: str
    follows: str = ""
    limits: dict[str, float] = {}
    options: dict[str, str] = {}


Check = Callable[[Answers, Subject], Iterator[Finding]]


class Diagnosis(Struct, frozen=True):
    """All findings of an examination, and how many requests it took."""

    findings: tuple[Finding, ...]
    requests: int

    @property
    def has_trouble(self) -> bool:
        """Whether something has to be changed before the relay can be used."""
        return any(finding.level == "trouble" for finding in self.findings)

    @property
    def limits(self) -> dict[str, float]:
        """The arguments of `Limits` that fit this relay; the smallest of each."""
        found: dict[str, float] = {}
        for finding in self.findings:
            for name, value in finding.limits.items():
                found[name] = min(value, found.get(name, value))
        return found

    @property
    def python(self) -> str:
        """The limits to copy into Python; empty if the defaults fit."""
        arguments = ", ".join(f"{name}={value:g}" for name, value in self.limits.items())
        return f"limits=Limits({arguments})" if arguments else ""

    @property
    def command_line(self) -> str:
        """The options to copy into a command; empty if the defaults fit."""
        options = {f"--{name.replace('_', '-')}": f"{v:g}" for name, v in self.limits.items()}
        for finding in self.findings:
            options |= finding.options
        return " ".join(f"{name} {value}" for name, value in options.items())

    def plain(self) -> dict[str, Any]:
        """Return the diagnosis as plain data for JSON."""
        return {
            "findings": [
                {"check": f.check, "level": f.level, "text": f.text, "follows": f.follows}
                for f in self.findings
            ],
            "requests": self.requests,
            "trouble": self.has_trouble,
            "python": self.python,
            "options": self.command_line,
        }


def diagnose(answers: Answers, subject: Subject, checks: Iterable[Check]) -> Diagnosis:
    """Return what the checks find in the answers."""
    found = tuple(finding for check in checks for finding in check(answers, subject))
    return Diagnosis(found, len(answers))
