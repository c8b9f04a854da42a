"""Values that are kept on disk."""

import os
import tempfile
from collections.abc import Iterator

import pytest

from luma_async.cli.display.spool import MAX_MEMORY, Spool


@pytest.fixture
def spool() -> Iterator[Spool]:
    one = Spool()
    yield one
    one.close()


def test_values_are_read_again_under_their_keys(spool: Spool) -> None:
    values = [os.urandom(size) for size in (0, 1, 300, MAX_MEMORY, 5, 2 * MAX_MEMORY, 0)]
    keys = [spool.put(value) for value in values]
    assert len(set(keys)) == len(keys)
    assert [spool.get(key) for key in reversed(keys)] == values[::-1]


def test_no_file_is_made_for_few_values(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", pytest.fail)
    key = spool.put(b"x" * MAX_MEMORY)
    assert len(spool.get(key)) == MAX_MEMORY


def test_without_a_disk_that_can_be_written_values_stay_in_memory(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only() -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
    values = [os.urandom(MAX_MEMORY) for _ in range(3)]
    keys = [spool.put(value) for value in values]
    assert [spool.get(key) for key in keys] == values


def test_a_full_disk_is_not_read_as_values(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    first = spool.put(b"a" * (MAX_MEMORY + 1))

    def no_room(*_: object) -> int:
        return 3  # bytes that were written

    monkeypatch.setattr(os, "pwrite", no_room)
    second = spool.put(b"b" * 100)
    monkeypatch.undo()
    third = spool.put(b"c" * 100)
    assert [spool.get(key)[:1] for key in (first, second, third)] == [b"a", b"b", b"c"]
