"""Optional requirements of tests.

A test is skipped if a requirement is missing; the last line of a run says which, and how to
install it.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest


def module(name: str, extra: str = "test") -> Any:
    """Import a module; skip the test if it is not installed."""
    return pytest.importorskip(name, reason=f"{name}: .venv/bin/pip install -e '.[{extra}]'")


def not_run(skipped: Iterable[pytest.TestReport | pytest.CollectReport]) -> str:
    """Return one line that says what was skipped and how to run it; empty if nothing was skipped.

    A reason is what the test needs, a colon, and the command that installs it.
    """
    reasons: Counter[str] = Counter()
    for report in skipped:
        if isinstance(report.longrepr, tuple):
            reasons[report.longrepr[2].removeprefix("Skipped: ")] += 1
    needs = [reason.partition(": ") for reason in reasons]
    counted = [f"{reasons[''.join(need)]} need {need[0]} ({need[2]})" for need in needs]
    return f"skipped: {'; '.join(counted)}" if counted else ""
