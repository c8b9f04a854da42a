"""The journal of `luma-async render`: one SQLite file beside the videos.

Each `write` is on the disk when it returns (WAL, synchronous=FULL), so it survives a kill, and the
loss of power. A locked file keeps a second run from submitting the same prompts; the kernel
releases the lock when its process ends, in whichever way. All methods block. fcntl and sqlite3 are
imported when they are used: the other commands do not need them.
"""

import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec

from luma_async.cli.rendering.plan import Entry
from luma_async.downloads.partial_file import sync_directory

if TYPE_CHECKING:
    import sqlite3

NAME = "luma-render.sqlite3"
LOCK_NAME = ".luma-render.lock"
VERSION = 1
BUSY_TIMEOUT = 60.0  # seconds
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
_COLUMNS = Entry.__struct_fields__
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE entries (
    key TEXT PRIMARY KEY, line INTEGER NOT NULL, prompt TEXT NOT NULL, status TEXT NOT NULL,
    task_id TEXT, sent_at REAL, tasks INTEGER NOT NULL, note TEXT NOT NULL, file TEXT
) WITHOUT ROWID;
CREATE TABLE relay (base_url TEXT NOT NULL);
PRAGMA user_version = {VERSION};
COMMIT;
"""
_READ = "SELECT key, line, prompt, status, task_id, sent_at, tasks, note, file FROM entries"
_WRITE = "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"


class Journal:
    """The journal in a directory, locked; a context manager.

    A journal belongs to one relay, because the ids in it do. Raises ValueError if another run uses
    the directory, if the journal is of another relay, or if it cannot be read.
    """

    def __init__(self, directory: Path, base_url: str) -> None:
        self._directory = directory
        self._base_url = base_url
        self._lock = -1
        self._database: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self._directory / LOCK_NAME, _FLAGS, 0o600)
        try:
            self._take_lock()
            self._database = _open(self._directory / NAME, create=True)
            self._check_relay(self._database)
            sync_directory(self._directory)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        if self._database is not None:
            self._database.close()
        os.close(self._lock)

    def _take_lock(self) -> None:
        import fcntl

        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another render uses {self._directory}; wait until it has ended"
            ) from None

    def _check_relay(self, database: "sqlite3.Connection") -> None:
        with _refused_if_damaged(self._directory / NAME):
            known = database.execute("SELECT base_url FROM relay").fetchone()
        if known is None:
            with database:
                database.execute("INSERT INTO relay VALUES (?)", (self._base_url,))
        elif known[0] != self._base_url:
            raise ValueError(
                f"the tasks in {self._directory} are of {known[0]}; give that as --base-url, or "
                "another directory as --download"
            )

    def read(self) -> dict[str, Entry]:
        """Return all entries by key."""
        assert self._database is not None
        return _read(self._database, self._directory / NAME)

    def write(self, entry: Entry) -> None:
        """Write an entry; it is on the disk when this returns."""
        with self._transaction() as database:
            database.execute(_WRITE, _values(entry))

    def replace(self, entries: Iterable[Entry]) -> None:
        """Write all entries, in place of those that are in the journal."""
        with self._transaction() as database:
            database.execute("DELETE FROM entries")
            database.executemany(_WRITE, map(_values, entries))

    @contextmanager
    def _transaction(self) -> "Generator[sqlite3.Connection, None, None]":
        import sqlite3

        assert self._database is not None
        try:
            with self._database:
                yield self._database
        except sqlite3.Error as error:
            path = self._directory / NAME
            raise OSError(
                f"{path} cannot be written ({error}); make room on the disk, and run it again"
            ) from None


def read_journal(directory: Path) -> dict[str, Entry]:
    """Return the entries of a journal that another run may be using; none without a journal."""
    path = directory / NAME
    if not path.exists():
        return {}
    database = _open(path, create=False)
    try:
        return {} if _is_empty(database) else _read(database, path)
    finally:
        database.close()


def _values(entry: Entry) -> tuple[object, ...]:
    return tuple(getattr(entry, name) for name in _COLUMNS)


def _read(database: "sqlite3.Connection", path: Path) -> dict[str, Entry]:
    with _refused_if_damaged(path):
        rows = (dict(zip(_COLUMNS, values, strict=True)) for values in database.execute(_READ))
        return {row["key"]: msgspec.convert(row, Entry) for row in rows}


def _open(path: Path, *, create: bool) -> "sqlite3.Connection":
    """Open the database; ValueError if it is none, or one of a later version.

    Each write is copied into the main file: who keeps only that, without the `-wal` beside
    it, loses nothing.
    """
    import sqlite3

    if create:
        os.close(os.open(path, _FLAGS, 0o600))
    database = sqlite3.connect(path, timeout=BUSY_TIMEOUT, check_same_thread=False)
    try:
        with _refused_if_damaged(path):
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.execute("PRAGMA wal_autocheckpoint = 1")
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version == 0 and create:
                database.executescript(_SCHEMA)
            elif version != VERSION and not _is_empty(database):
                raise ValueError(f"{path} is of another version; use the luma-async that wrote it")
    except ValueError:
        database.close()
        raise
    return database


def _is_empty(database: "sqlite3.Connection") -> bool:
    """Whether a run was killed while it made the journal."""
    return database.execute("SELECT 1 FROM sqlite_master").fetchone() is None


@contextmanager
def _refused_if_damaged(path: Path) -> Generator[None]:
    """Raise ValueError if the file is no journal."""
    import sqlite3

    try:
        yield
    except (sqlite3.DatabaseError, msgspec.ValidationError) as error:
        remedy = "restore it from a backup: without it, prompts would be paid for again"
        raise ValueError(f"{path} cannot be used ({error}); {remedy}") from None
