"""A partial download: `DIRECTORY/.parts/NAME`, which becomes `DIRECTORY/NAME`.

What is known of its bytes is beside it in `.parts/NAME.json` (`resuming.PartRecord`). A partial
file is locked while it is open, so that one download writes it, among all processes; the lock ends
with the process. Nothing here uses the network; everything here blocks on the disk. The methods may
run in another thread than `close`: the file is not closed while one of them is running.

The order of the writes makes each moment safe for a kill: the bytes of another version are removed
before the record is changed, and a record is written before its bytes.
"""

import os
import re
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from luma_async.downloads.resuming import PartRecord
from luma_async.errors import DownloadError

PARTS_FOLDER = ".parts"
MAX_OPENS = 1000  # as often as other downloads may remove the file or the folder meanwhile

_RECORD_SUFFIX = ".json"
_FLAGS = os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_PART_OF_0_1 = re.compile(r"(.+)\.[0-9a-f]{16}")  # NAME.VERSION, as 0.1.0 named them


def open_partial_file(directory: Path, name: str) -> "PartialFile | None":
    """Open and lock the partial file of a name; create it if necessary.

    Returns None if another download has locked it, or has finished it meanwhile. Raises OSError if
    it cannot be created.
    """
    folder = directory / PARTS_FOLDER
    for _ in range(MAX_OPENS):
        try:
            folder.mkdir()
        except FileExistsError:
            if folder.exists() and not folder.is_dir():
                raise
        try:
            file = _open_locked(folder / name)
        except FileNotFoundError:
            continue  # another download finished the file, or removed the empty folder
        if file is None:
            return None
        part = PartialFile(directory, name, file)
        if not (directory / name).is_file():
            return part
        part.close()
        return None
    raise OSError(f"{folder / name} cannot be created; remove {folder}")


class PartialFile:
    """A partial file, open and locked; end it with `close`, `finish` or `discard`.

    `size` is the number of bytes that are written. `record` says what they are, or is None.
    """

    def __init__(self, directory: Path, name: str, file: int) -> None:
        self._final_path = directory / name
        self._path = directory / PARTS_FOLDER / name
        self._record_path = directory / PARTS_FOLDER / f"{name}{_RECORD_SUFFIX}"
        self._lock = threading.Lock()
        self._is_closed = False
        self._file = file
        self.size: int = os.fstat(file).st_size
        self.record: PartRecord | None = _read_record(self._record_path)

    @property
    def is_whole(self) -> bool:
        """Whether the file is complete, and was not moved to its final name: after a kill."""
        return self.record is not None and self.record.is_whole(self.size)

    def begin(self, record: PartRecord | None) -> None:
        """Remove all bytes, and store what the next ones are."""
        with self._in_use():
            os.ftruncate(self._file, 0)
            self.size = 0
            self._store(record)

    def update(self, record: PartRecord) -> None:
        """Store what is known now of the same bytes."""
        with self._in_use():
            self._store(record)

    def write(self, data: bytes) -> None:
        """Append data; stop early if the file is closed meanwhile."""
        with self._in_use():
            rest = memoryview(data)
            while rest and not self._is_closed:
                count = os.pwrite(self._file, rest, self.size)
                self.size += count
                rest = rest[count:]

    def read(self, size: int, offset: int) -> bytes:
        """Return `size` bytes from an offset, fewer at the end of the file."""
        with self._in_use():
            return os.pread(self._file, size, offset)

    def finish(self) -> Path:
        """Move the complete file to its final name, and return the path.

        The file is on disk when this returns. Raises OSError if it cannot be moved, and
        DownloadError if a directory has its name; after the move nothing raises.
        """
        with self._in_use():
            os.fsync(self._file)
            if self.record is not None and self.record.total is None:
                with suppress(OSError):
                    self._store(msgspec.structs.replace(self.record, is_complete=True))
            try:
                self._path.replace(self._final_path)
            except (IsADirectoryError, FileExistsError):
                raise directory_error(self._final_path) from None
            with suppress(OSError):
                self._record_path.unlink()
            with suppress(OSError):
                sync_directory(self._final_path.parent)
        self.close()
        return self._final_path

    def discard(self) -> None:
        """Delete the partial file."""
        with self._in_use():
            self.size = 0
        self.close()

    def close(self) -> None:
        """Close the file and keep it for a later download; an empty one is deleted.

        A second call does nothing. If another thread is using the file, that thread closes it.
        """
        self._is_closed = True
        if self._lock.acquire(blocking=False):
            try:
                self._close_file()
            finally:
                self._lock.release()

    @contextmanager
    def _in_use(self) -> Generator[None]:
        try:
            with self._lock:
                yield
        finally:
            if self._is_closed:
                self.close()

    def _close_file(self) -> None:
        file, self._file = self._file, -1
        if file < 0:
            return
        try:
            if not self.size:
                self._delete(file)
            _unlock(file)
        finally:
            os.close(file)

    def _delete(self, file: int) -> None:
        """Delete the partial file and its record, unless the path is another file by now."""
        with suppress(OSError):
            if os.path.samestat(os.fstat(file), self._path.stat(follow_symlinks=False)):
                self._record_path.unlink(missing_ok=True)
                self._path.unlink()

    def _store(self, record: PartRecord | None) -> None:
        file = os.open(self._record_path, _FLAGS | os.O_WRONLY | os.O_TRUNC, 0o666)
        try:
            os.write(file, msgspec.json.encode(record))
            if record is not None and record.is_complete:
                os.fsync(file)
        finally:
            os.close(file)
        self.record = record


def is_saved(path: Path) -> bool:
    """Return whether the file is in place; raise DownloadError for a directory."""
    if path.is_dir():
        raise directory_error(path)
    return path.is_file()


def directory_error(path: Path) -> DownloadError:
    """Return the error for a directory that has the name of a file."""
    return DownloadError(f"{path} is a directory; remove it, or choose another directory")


def remove_stale(directory: Path) -> None:
    """Remove what no download needs: records without a file, old partial files, an empty folder."""
    folder = directory / PARTS_FOLDER
    with suppress(OSError):
        for path in list(folder.iterdir()):
            old = _PART_OF_0_1.fullmatch(path.name)
            if (path.suffix == _RECORD_SUFFIX and not path.with_suffix("").exists()) or (
                old and (directory / old[1]).exists()
            ):
                path.unlink(missing_ok=True)
        folder.rmdir()


def _open_locked(path: Path) -> int | None:
    """Open a file and lock it; return None if it is locked.

    Raises FileNotFoundError if it was moved or deleted meanwhile.
    """
    import fcntl  # not available on Windows

    file = os.open(path, _FLAGS | os.O_RDWR, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(file), path.stat(follow_symlinks=False)):
            return file
        raise FileNotFoundError(path)
    except BlockingIOError:
        os.close(file)
        return None
    except BaseException:
        os.close(file)
        raise


def _unlock(file: int) -> None:
    """Unlock a file, of which a process that was forked meanwhile may have a copy."""
    import fcntl

    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_UN)


def _read_record(path: Path) -> PartRecord | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=PartRecord | None)
    except (OSError, ValueError):
        return None


def sync_directory(directory: Path) -> None:
    """Write the names of the files in a directory to the disk."""
    file = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
