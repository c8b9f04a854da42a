"""A store of bytes in a temporary file, so that what is rarely read takes no memory."""

import os
import tempfile
from contextlib import suppress

MAX_MEMORY = 2**18  # bytes that are held before a file is made


class Spool:
    """Keep values on disk; `put` returns the key for `get`.

    The first MAX_MEMORY bytes stay in memory, and so does all that cannot be written: a full or
    read-only disk costs memory, it does not stop a wait. The file has no name, so it is gone when
    the process ends.
    """

    def __init__(self) -> None:
        self._memory: dict[int, bytes] = {}
        self._free = MAX_MEMORY
        self._file: int | None = None
        self._size = 0

    def put(self, value: bytes) -> int:
        """Store a value and return its key."""
        self._free -= len(value)
        if self._free < 0:
            with suppress(OSError):
                return self._append(value)
        key = -len(self._memory) - 1
        self._memory[key] = value
        return key

    def get(self, key: int) -> bytes:
        """Return the value that was stored under a key. Raise OSError if it cannot be read."""
        if key < 0:
            return self._memory[key]
        assert self._file is not None
        length = int.from_bytes(os.pread(self._file, 4, key), "big")
        value = os.pread(self._file, length, key + 4)
        if len(value) != length:
            raise OSError("a temporary file was cut short; run the command again")
        return value

    def close(self) -> None:
        """Delete what is stored."""
        self._memory.clear()
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _append(self, value: bytes) -> int:
        if self._file is None:
            with tempfile.TemporaryFile() as file:
                self._file = os.dup(file.fileno())
        record = len(value).to_bytes(4, "big") + value
        if os.pwrite(self._file, record, self._size) < len(record):
            raise OSError("the disk is full; free some space")
        key, self._size = self._size, self._size + len(record)
        return key
