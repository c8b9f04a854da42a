"""A nats-server on loopback, as an operator runs one."""

import json
import subprocess
import time
from pathlib import Path
from typing import Self

from luma_async.worker.server.server_process import server_binary


class NatsServer:
    """A context manager that runs nats-server with JetStream and without authorization.

    `port` -1 is any free one. `settings` are lines of its configuration.
    """

    def __init__(self, directory: Path, port: int = -1, *settings: str) -> None:
        self._directory = directory
        self._port = port
        self._settings = settings

    def __enter__(self) -> Self:
        self._directory.mkdir(exist_ok=True)
        for old in self._directory.glob("*.ports"):
            old.unlink()
        configuration = self._directory / "server.conf"
        lines = (
            f'listen: "127.0.0.1:{self._port}"',
            f'ports_file_dir: "{self._directory}"',
            f'jetstream {{ store_dir: "{self._directory}" }}',
            "max_payload: 8388608",
            *self._settings,
        )
        configuration.write_text("\n".join(lines))
        self._process = subprocess.Popen(
            [server_binary(), "--config", str(configuration)], stderr=subprocess.DEVNULL
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def url(self) -> str:
        """The URL, as soon as the server listens."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for file in self._directory.glob("*.ports"):
                if text := file.read_text():
                    return str(json.loads(text)["nats"][0])
            time.sleep(0.01)
        raise TimeoutError("nats-server does not listen")
