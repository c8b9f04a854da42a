"""What a test needs and may lack: such a test is skipped, and the last line of a run says why."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest


def module(name: str, extra: str = "test") -> Any:
    """Import a module; skip the test where it is not installed."""
    return pytest.importorskip(name, reason=f"{name}: .venv/bin/pip install -e '.[{extra}]'")


def not_run(skipped: Iterable[pytest.TestReport | pytest.CollectReport]) -> str:
    """Say in one line what was skipped and how to have it run; empty where all was run.

    A reason is what the test needs, a colon, and the command that brings it.
    """
    reasons: Counter[str] = Counter()
    for report in skipped:
        if isinstance(report.longrepr, tuple):
            reasons[report.longrepr[2].removeprefix("Skipped: ")] += 1
    needs = [reason.partition(": ") for reason in reasons]
    told = [f"{reasons[''.join(need)]} need {need[0]} ({need[2]})" for need in needs]
    return f"skipped: {'; '.join(told)}" if told else ""
