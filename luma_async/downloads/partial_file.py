"""A file on its way: `DIRECTORY/.parts/NAME.MARK`, then `DIRECTORY/NAME`.

MARK stands for the version of what is fetched (its ETag, date and length), so that bytes of one
version are never put behind those of another, whoever began, and whenever that was. A part is
locked while somebody writes it. Nothing here waits for a network; all of it waits for a disk. Data
may be written by another thread, and a part is not closed under its hands.
"""

import hashlib
import os
import re
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

from luma_async.errors import DownloadError

PARTS_FOLDER = ".parts"
MARK_LENGTH = 16


def mark_of(*told: object) -> str:
    """Return a short text for one version of a file."""
    return hashlib.sha256(repr(told).encode()).hexdigest()[:MARK_LENGTH]


def folder(directory: Path) -> Path:
    """Return where the parts of a directory are, made if need be."""
    path = directory / PARTS_FOLDER
    path.mkdir(exist_ok=True)
    return path


class PartialFile:
    """The part of a file that is there, opened and locked; close it, or `finish` it."""

    def __init__(self, directory: Path, name: str, mark: str) -> None:
        import fcntl  # not where Windows is

        self.mark: str = mark
        self._directory = directory
        self._name = name
        self._path = folder(directory) / f"{name}.{mark}"
        self._busy = threading.Lock()
        self._over = False
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(self._path, flags, 0o666)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.fstat(self._file)
            if not os.path.samestat(held, os.stat(self._path, follow_symlinks=False)):
                raise FileNotFoundError  # finished, or deleted, between the opening and the lock
            self.size: int = held.st_size
        except (BlockingIOError, FileNotFoundError):
            self.close()
            raise DownloadError(
                f"{name} is being downloaded by somebody else; wait for that"
            ) from None

    @classmethod
    def left(cls, directory: Path, name: str) -> Self | None:
        """Open the part that somebody left, the longest of several; None where there is none."""
        parts = {path.stat().st_size: path for path in _parts(directory, name)}
        return cls(directory, name, parts[max(parts)].name[-MARK_LENGTH:]) if parts else None

    def write(self, data: bytes) -> None:
        """Put data behind what is there."""
        with self._busy:
            left = memoryview(data)
            while left and not self._over:
                count = os.pwrite(self._file, left, self.size)
                self.size += count
                left = left[count:]
        if self._over:
            with self._busy:
                self._shut()

    def empty(self) -> None:
        """Begin anew."""
        os.ftruncate(self._file, 0)
        self.size = 0

    def finish(self) -> Path:
        """Make the file what it was to become; it is on disk when this returns."""
        path = self._directory / self._name
        with self._busy:
            os.fsync(self._file)
            self._path.replace(path)
        self.close()
        for other in _parts(self._directory, self._name):
            other.unlink(missing_ok=True)
        file = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
        return path

    def discard(self) -> None:
        """Delete it."""
        with suppress(FileNotFoundError):
            self._path.unlink()
        self.close()

    def close(self) -> None:
        """Leave it for whoever goes on; twice is fine.

        Where another thread still writes, it is that one which closes it.
        """
        self._over = True
        if self._busy.acquire(blocking=False):
            try:
                self._shut()
            finally:
                self._busy.release()

    def _shut(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


def remove_stale(directory: Path) -> None:
    """Remove the folder of parts if none is left."""
    with suppress(OSError):
        (directory / PARTS_FOLDER).rmdir()


def _parts(directory: Path, name: str) -> list[Path]:
    """Return the parts of one file, of whatever version."""
    known = re.compile(re.escape(f"{name}.") + rf"[0-9a-f]{{{MARK_LENGTH}}}")
    return [path for path in folder(directory).iterdir() if known.fullmatch(path.name)]
