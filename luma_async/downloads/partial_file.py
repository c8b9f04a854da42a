"""A partial download: `DIRECTORY/.parts/NAME.VERSION`, which becomes `DIRECTORY/NAME`.

VERSION is a digest of the version of the remote file (its ETag, date and length), so that bytes of
one version are never appended to those of another, in any process and at any time. A partial file
is locked while it is open. Nothing here uses the network; everything here blocks on the disk.
`write` may run in another thread than `close`: the file is not closed while a write is running.
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
VERSION_LENGTH = 16  # hexadecimal digits


def version_of(*fields: object) -> str:
    """Return a digest of the fields that identify one version of a file."""
    return hashlib.sha256(repr(fields).encode()).hexdigest()[:VERSION_LENGTH]


def parts_folder(directory: Path) -> Path:
    """Return the folder of the partial files of a directory; create it if necessary."""
    path = directory / PARTS_FOLDER
    path.mkdir(exist_ok=True)
    return path


class PartialFile:
    """A partial file, open and locked; end it with `close`, `finish` or `discard`.

    `size` is the number of bytes that are written. Raises DownloadError if it is locked already.
    """

    def __init__(self, directory: Path, name: str, version: str) -> None:
        import fcntl  # not available on Windows

        self.version: str = version
        self._directory = directory
        self._name = name
        self._path = parts_folder(directory) / f"{name}.{version}"
        self._lock = threading.Lock()
        self._is_closed = False
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(self._path, flags, 0o666)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            opened = os.fstat(self._file)
            if not os.path.samestat(opened, os.stat(self._path, follow_symlinks=False)):
                raise FileNotFoundError  # finished or deleted between open and lock
            self.size: int = opened.st_size
        except (BlockingIOError, FileNotFoundError):
            self.close()
            raise DownloadError(
                f"another download of {name} is running; wait until it has finished"
            ) from None

    @classmethod
    def open_existing(cls, directory: Path, name: str) -> Self | None:
        """Open the longest existing partial file with this name; return None if there is none."""
        parts = {path.stat().st_size: path for path in _parts(directory, name)}
        return cls(directory, name, parts[max(parts)].name[-VERSION_LENGTH:]) if parts else None

    def write(self, data: bytes) -> None:
        """Append data; stop early if the file is closed meanwhile."""
        with self._lock:
            rest = memoryview(data)
            while rest and not self._is_closed:
                count = os.pwrite(self._file, rest, self.size)
                self.size += count
                rest = rest[count:]
        if self._is_closed:
            with self._lock:
                self._close_file()

    def truncate(self) -> None:
        """Remove all bytes."""
        os.ftruncate(self._file, 0)
        self.size = 0

    def finish(self) -> Path:
        """Move the complete file to its final name, and return the path.

        The file is on disk when this returns. Other versions of it are deleted.
        """
        path = self._directory / self._name
        with self._lock:
            os.fsync(self._file)
            self._path.replace(path)
        self.close()
        for other in _parts(self._directory, self._name):
            other.unlink(missing_ok=True)
        folder = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return path

    def discard(self) -> None:
        """Delete the partial file."""
        with suppress(FileNotFoundError):
            self._path.unlink()
        self.close()

    def close(self) -> None:
        """Close the file and keep it for a later download; a second call does nothing.

        If another thread is writing, that thread closes the file when its write returns.
        """
        self._is_closed = True
        if self._lock.acquire(blocking=False):
            try:
                self._close_file()
            finally:
                self._lock.release()

    def _close_file(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


def remove_stale(directory: Path) -> None:
    """Remove the folder of partial files if it is empty."""
    with suppress(OSError):
        (directory / PARTS_FOLDER).rmdir()


def _parts(directory: Path, name: str) -> list[Path]:
    """Return the partial files of one file, of all versions."""
    pattern = re.compile(re.escape(f"{name}.") + rf"[0-9a-f]{{{VERSION_LENGTH}}}")
    return [path for path in parts_folder(directory).iterdir() if pattern.fullmatch(path.name)]
