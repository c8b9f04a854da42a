"""The journal: what is written is there after a kill, for one run at a time, of one relay."""

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from luma_async.cli.rendering.journal import LOCK_NAME, NAME, Journal, read_journal
from luma_async.cli.rendering.plan import Entry, Status

RELAY = "https://relay.example"
ONE = Entry(key="a-1", line=3, prompt="a cat")
FULL = Entry(
    key="b-1",
    line=4,
    prompt="一只狗",
    status=Status.SAVED,
    task_id="id",
    sent_at=1.5,
    tasks=2,
    note="x",
    file="id.mp4",
)
FIRST_VERSION = """
BEGIN;
CREATE TABLE entries (
    key TEXT PRIMARY KEY, line INTEGER NOT NULL, prompt TEXT NOT NULL, status TEXT NOT NULL,
    task_id TEXT, sent_at REAL, tasks INTEGER NOT NULL, note TEXT NOT NULL, file TEXT
) WITHOUT ROWID;
CREATE TABLE relay (base_url TEXT NOT NULL);
INSERT INTO relay VALUES ('https://relay.example');
INSERT INTO entries VALUES ('b-1', 4, '一只狗', 'saved', 'id', 1.5, 2, 'x', 'id.mp4');
PRAGMA user_version = 1;
COMMIT;
"""


def test_what_is_written_is_read_by_the_next_run_and_by_another_process(tmp_path: Path) -> None:
    with Journal(tmp_path / "new" / "videos", RELAY) as journal:
        journal.replace([ONE, FULL])
        sent = ONE.after_sending(7.0)
        journal.write(sent)
        assert journal.read() == read_journal(tmp_path / "new" / "videos")
    with Journal(tmp_path / "new" / "videos", RELAY) as journal:
        assert journal.read() == {"a-1": sent, "b-1": FULL}
        journal.replace([FULL])
        assert journal.read() == {"b-1": FULL}


def test_each_entry_is_on_the_disk_when_write_returns(tmp_path: Path) -> None:
    with Journal(tmp_path, RELAY) as journal:
        database = journal._database  # pyright: ignore[reportPrivateUsage]
        assert database is not None
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert database.execute("PRAGMA synchronous").fetchone() == (2,)
        journal.write(ONE)
        assert not database.in_transaction
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_each_entry_is_on_the_disk_also_with_an_sqlite_that_is_built_for_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sqlite3.connect

    def connect(*args: Any, **options: Any) -> sqlite3.Connection:
        database: sqlite3.Connection = real(*args, **options)
        database.execute("PRAGMA synchronous = NORMAL")
        return database

    monkeypatch.setattr(sqlite3, "connect", connect)
    with Journal(tmp_path, RELAY) as journal:
        database = journal._database  # pyright: ignore[reportPrivateUsage]
        assert database is not None
        assert database.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_journal_as_the_first_version_wrote_it_is_read_and_continued(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / NAME)
    database.executescript(FIRST_VERSION)
    database.close()
    with Journal(tmp_path, RELAY) as journal:
        assert journal.read() == read_journal(tmp_path) == {"b-1": FULL}
        journal.write(ONE)
        assert journal.read() == {"a-1": ONE, "b-1": FULL}


def test_a_run_that_has_ended_keeps_no_file_open(tmp_path: Path) -> None:
    """SQLite deletes the files beside the journal when the last one closes it."""
    files = {NAME, LOCK_NAME}
    with Journal(tmp_path, RELAY) as journal:
        journal.replace([ONE])
        assert {file.name for file in tmp_path.iterdir()} > files
    assert {file.name for file in tmp_path.iterdir()} == files
    read_journal(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == files


def execute(folder: Path, statement: str) -> None:
    """Change the database of a journal behind its back."""
    database = sqlite3.connect(folder / NAME)
    with database:
        database.execute(statement)
    database.close()


@pytest.mark.parametrize(
    ("damage", "fact"),
    [
        ("PRAGMA user_version = 99", "is of another version; use"),
        ("UPDATE entries SET status = 'odd'", "cannot be used (Invalid enum value"),
    ],
)
def test_a_journal_that_is_refused_is_closed(tmp_path: Path, damage: str, fact: str) -> None:
    with Journal(tmp_path, RELAY) as journal:
        journal.replace([ONE])
    execute(tmp_path, damage)
    with pytest.raises(ValueError, match="luma-render") as caught:
        read_journal(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {NAME, LOCK_NAME}
    # Used after that: its traceback keeps the connection, which would close itself otherwise.
    assert fact in str(caught.value)


def test_a_journal_that_belongs_to_another_user_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal(tmp_path, RELAY) as journal:
        journal.replace([ONE])

    def refuse(path: Path, *_: object) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)
    assert read_journal(tmp_path) == {"a-1": ONE}


def test_the_name_of_a_new_journal_is_on_the_disk_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[int, bool]] = []
    real = os.fsync

    def fsync(file: int) -> None:
        synced.append((os.fstat(file).st_ino, (tmp_path / NAME).exists()))
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    with Journal(tmp_path, RELAY):
        assert (tmp_path.stat().st_ino, True) in synced


def test_a_second_run_in_the_directory_is_refused_until_the_first_has_ended(
    tmp_path: Path,
) -> None:
    with Journal(tmp_path, RELAY):
        with pytest.raises(ValueError, match="another render uses .*; wait until it has ended"):
            Journal(tmp_path, RELAY).__enter__()
        with pytest.raises(ValueError, match="another render"):
            Journal(tmp_path, "https://other.example").__enter__()
    with Journal(tmp_path, RELAY):
        pass


def test_a_journal_of_another_relay_is_refused_and_not_locked(tmp_path: Path) -> None:
    with Journal(tmp_path, RELAY):
        pass
    with pytest.raises(ValueError, match="are of https://relay.example; give that as --base-url"):
        Journal(tmp_path, "https://other.example").__enter__()
    with Journal(tmp_path, RELAY) as journal:
        assert journal.read() == {}


def test_without_a_journal_nothing_is_read_and_none_is_made(tmp_path: Path) -> None:
    assert read_journal(tmp_path) == {}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"not a database", b"SQLite format 3\0" + b"\xff" * 500])
def test_a_damaged_journal_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    for use in (lambda: Journal(tmp_path, RELAY).__enter__(), lambda: read_journal(tmp_path)):
        with pytest.raises(ValueError, match=r"cannot be used .*; restore it from a backup"):
            use()
    assert (tmp_path / NAME).read_bytes() == content


def test_a_journal_of_a_later_version_is_refused(tmp_path: Path) -> None:
    with Journal(tmp_path, RELAY):
        pass
    database = sqlite3.connect(tmp_path / NAME)
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(ValueError, match="of another version"):
        Journal(tmp_path, RELAY).__enter__()
    with pytest.raises(ValueError, match="of another version"):
        read_journal(tmp_path)


def test_a_disk_that_cannot_be_written_is_an_os_error(tmp_path: Path) -> None:
    with Journal(tmp_path, RELAY) as journal:
        database = journal._database  # pyright: ignore[reportPrivateUsage]
        assert database is not None
        database.execute("PRAGMA query_only = ON")
        with pytest.raises(OSError, match=r"cannot be written .*; make room on the disk"):
            journal.write(ONE)


def test_what_a_killed_run_wrote_is_in_the_main_file(tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    with Journal(tmp_path, RELAY) as journal:
        journal.replace([ONE])
        journal.write(FULL)
        (alone / NAME).write_bytes((tmp_path / NAME).read_bytes())
        assert read_journal(alone) == {"a-1": ONE, "b-1": FULL}


def test_a_run_killed_while_it_makes_the_journal_leaves_none(tmp_path: Path) -> None:
    (tmp_path / NAME).touch()
    assert read_journal(tmp_path) == {}
    with closing(sqlite3.connect(tmp_path / NAME)) as database:
        tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    assert tables == (0,), "reading makes no journal: another run may be making it"
    with Journal(tmp_path, RELAY) as journal:
        assert journal.read() == {}


@pytest.mark.parametrize(
    "damage",
    ["DROP TABLE entries", "DROP TABLE relay", "UPDATE entries SET status = 'odd'"],
)
def test_a_database_that_is_no_journal_is_refused(tmp_path: Path, damage: str) -> None:
    def use() -> None:
        with Journal(tmp_path, RELAY) as journal:
            journal.read()

    with Journal(tmp_path, RELAY) as journal:
        journal.replace([ONE])
    execute(tmp_path, damage)
    with pytest.raises(ValueError, match=r"cannot be used .*; restore it from a backup"):
        use()
