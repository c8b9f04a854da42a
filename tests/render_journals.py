"""Journals of `render` that fail."""

import pytest

from luma_async.cli.rendering.journal import Journal
from luma_async.cli.rendering.plan import Entry, Status


def fail_one_write(monkeypatch: pytest.MonkeyPatch, journal: Journal, status: Status) -> None:
    """Let the first write of an entry with this status fail."""
    real, failures = journal.write, iter([OSError("the journal cannot be written")])

    def write(entry: Entry) -> None:
        if entry.status is status and (failure := next(failures, None)):
            raise failure
        real(entry)

    monkeypatch.setattr(journal, "write", write)
