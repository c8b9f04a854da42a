"""Files of a private server's directory: only their owner reads and writes them."""

import fcntl
import os
import stat
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from luma_async.errors import QueueError

SEED_FILE = "nkey"
SEED_SIZE = 32  # bytes
OLD_TOKEN_FILE = "token"  # noqa: S105 - a file name of version 0.1.0
_REPLACE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def make_directory(path: Path) -> None:
    """Create a directory if it does not exist.

    Raises QueueError if it belongs to another user or if other users may write to it: such a user
    could have put files there. Raises OSError if it cannot be created.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.stat()
    if found.st_uid != os.geteuid():
        raise QueueError(f"{path} belongs to another user; give another directory as data")
    if found.st_mode & _OTHERS_MAY_WRITE:
        raise QueueError(f"other users may write to {path}; run chmod go-w on it")


def write_file(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read. It is replaced as a whole."""
    temporary = path.with_name(f"{path.name}.new")
    with open(os.open(temporary, _REPLACE, 0o600), "wb") as file:
        file.write(content)
    temporary.replace(path)


def public_key(directory: Path) -> str:
    """Return the public key that belongs to the seed of a directory. Creates the seed."""
    nkeys: Any = import_module("nkeys")  # has no types
    path = directory / SEED_FILE
    try:
        seed = path.read_bytes().strip()
    except FileNotFoundError:
        seed = nkeys.encode_seed(os.urandom(SEED_SIZE), nkeys.PREFIX_BYTE_USER)
        write_file(path, seed)
        with suppress(FileNotFoundError):
            (directory / OLD_TOKEN_FILE).unlink()
    try:
        return str(nkeys.from_seed(bytearray(seed)).public_key.decode())
    except (nkeys.NkeysError, ValueError):
        raise QueueError(f"{path} is not a seed; remove it and stop the server") from None


def lock_file(path: Path, kind: int) -> int | None:
    """Lock a file without waiting; return its descriptor, or None if it is locked."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def unlock_file(descriptor: int) -> None:
    """Unlock and close a file, also for forked children that have the same descriptor."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)
