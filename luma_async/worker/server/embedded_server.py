"""A private nats-server in a directory, shared by all processes that use the directory.

Processes coordinate with four locked files (flock). The kernel releases a lock when its last holder
ends, in whichever way, so that nothing has to be cleaned up after a kill -9:

- `turn`: held for a moment by a process that starts or stops the server.
- `server`: held by the server itself, which inherits it (see `server_process`).
- `users`: shared by all processes that use the server. The last one to leave stops the server. So a
  server that outlives the process that started it is found, used and in the end stopped by the next
  one.
- `workers`: shared by the worker processes among them. A worker that finds it free is the only one,
  and may take the ids of dead workers at once.
"""

import fcntl
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from luma_async.errors import QueueError
from luma_async.worker.server.private_files import SEED_FILE, lock_file, make_directory, unlock_file
from luma_async.worker.server.server_process import (
    POLL_EVERY,
    START_TIMEOUT,
    ServerProcess,
    reap_children,
)


class EmbeddedServer:
    """One user of the server in a directory. All methods block.

    They raise QueueError if no server runs and none can be started.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._home = Path(directory).expanduser().absolute()
        self._process = ServerProcess(self._home)
        self._users: int | None = None
        self._workers: int | None = None

    def __repr__(self) -> str:
        return f"<EmbeddedServer {self._home}>"

    @property
    def seed_file(self) -> Path:
        """The file with the secret key of the server's clients."""
        return self._home / SEED_FILE

    def join(self) -> str:
        """Start the server if it does not run; return its URL."""
        try:
            make_directory(self._home)
            with self._turn():
                reap_children()
                if self._users is None:
                    self._replace_incompatible()
                    self._users = self._lock("users", fcntl.LOCK_SH)
                return self._process.start()
        except OSError as error:
            raise QueueError(
                f"{self._home} cannot be used: {error}; give another directory as data"
            ) from error

    def is_ours(self, port: int) -> bool:
        """Return whether the server of the directory runs, and listens on this port."""
        return self._process.is_ours(port)

    def _replace_incompatible(self) -> None:
        """Stop a server that an older version has left behind, if no process uses it."""
        if not self._process.is_incompatible():
            return
        unused = self._lock("users", fcntl.LOCK_EX)
        if unused is None:
            raise QueueError(
                f"an older version uses the private server of {self._home}; stop its processes"
            )
        self._process.stop()
        unlock_file(unused)

    def register_worker(self) -> bool:
        """Count this user as a worker; return whether it is the only worker.

        Returns False if it is called again.
        """
        if self._workers is not None:
            return False
        with self._turn():
            exclusive = self._lock("workers", fcntl.LOCK_EX)
            if exclusive is not None:
                fcntl.flock(exclusive, fcntl.LOCK_SH)
                self._workers = exclusive
            else:
                self._workers = self._lock("workers", fcntl.LOCK_SH)
            return exclusive is not None

    def leave(self) -> None:
        """Stop using the server. The last process to leave stops it."""
        if self._users is None:
            return
        with self._turn():
            for lock in (self._workers, self._users):
                if lock is not None:
                    unlock_file(lock)
            self._workers = self._users = None
            last = self._lock("users", fcntl.LOCK_EX)
            if last is not None:
                self._process.stop()
                unlock_file(last)

    @contextmanager
    def _turn(self) -> Generator[None, None, None]:
        """Exclude other processes from starting and stopping the server."""
        deadline = time.monotonic() + START_TIMEOUT
        while (lock := self._lock("turn", fcntl.LOCK_EX)) is None:
            if time.monotonic() > deadline:
                raise QueueError(f"{self._home}/turn stays locked; stop the process that locks it")
            time.sleep(POLL_EVERY)
        try:
            yield
        finally:
            unlock_file(lock)

    def _lock(self, name: str, kind: int) -> int | None:
        return lock_file(self._home / name, kind)
