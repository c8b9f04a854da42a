"""A real nginx in front of a relay, as operators set it up; its access log is the ground truth.

Only for real time: nginx is another process, which a virtual clock does not see coming.
"""

import asyncio
import os
import shutil
import signal
import string
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import msgspec
from yarl import URL

from tests.subprocesses import held_port

PATIENCE = 30.0
FIRST_PAUSE = 0.002


class Served(msgspec.Struct, frozen=True):
    """One line of the access log: `ended` in unix seconds, `took` in seconds, 1 ms exact."""

    ended: float
    took: float
    connection: int
    status: int
    path: str
    encoding: str

    @property
    def arrived(self) -> float:
        return self.ended - self.took


class _Config(string.Template):
    delimiter = "%"


# The relay is asked over kept connections, and by the path as it came.
CONFIG = _Config("""
daemon off;
worker_processes 1;
%user
pid nginx.pid;
error_log stderr notice;
events { worker_connections 1024; }
http {
    log_format served escape=json '{"ended":"$msec","took":"$request_time","status":"$status",'
        '"connection":"$connection","path":"$request_uri","encoding":"$sent_http_content_encoding"}';
    access_log access.log served;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    gzip %gzip;
    gzip_types application/json;
    gzip_min_length 0;
    gzip_proxied any;
    limit_req_zone $server_port zone=all:64k rate=%{rate}r/s;
    upstream relay { server %relay; keepalive 16; }
    server {
        listen 127.0.0.1:%port;
        keepalive_requests %keepalive_requests;
        client_max_body_size %max_body;
        location / {
            %throttle
            limit_req_status 429;
            error_page 429 @throttled;
            proxy_pass http://relay;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
        }
        location @throttled {
            add_header Retry-After %retry_after always;
            return 429;
        }
    }
}
""")


def find_nginx() -> str | None:
    """Return where nginx is: on PATH, or where Debian puts it."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")


class Nginx:
    """An nginx that passes all requests on to the relay at the URL `relay`.

    An async context manager; within it, `stop` and `start` again on the same port. `rate` is
    requests a second, with `burst` on top (None: any number); beyond it nginx answers 429 with
    `retry_after` seconds. `max_body` is bytes in a request. RuntimeError if nginx does not start.
    """

    def __init__(
        self,
        relay: str,
        *,
        rate: int | None = None,
        burst: int = 0,
        retry_after: int = 1,
        keepalive_requests: int = 1000,
        gzip: bool = False,
        max_body: int = 2**20,
    ) -> None:
        self.served: Sequence[Served] = ()
        self._relay = URL(relay)
        self._settings = {
            "user": "" if os.geteuid() else "user root root;",
            "relay": self._relay.authority,
            "rate": rate or 1,
            "throttle": f"limit_req zone=all burst={burst} nodelay;" if rate else "",
            "retry_after": retry_after,
            "keepalive_requests": keepalive_requests,
            "gzip": "on" if gzip else "off",
            "max_body": max_body,
        }
        self._process: Process | None = None

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self._directory = Path(stack.enter_context(TemporaryDirectory(prefix="nginx-")))
            self._port = stack.enter_context(held_port())
            config = CONFIG.substitute(self._settings, port=self._port)
            (self._directory / "nginx.conf").write_text(config)
            (self._directory / "access.log").touch()
            stack.push_async_callback(self.stop)
            await self.start()
            self._leave = stack.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._leave.aclose()

    @property
    def url(self) -> str:
        """The base URL of the relay as seen through nginx."""
        return f"http://127.0.0.1:{self._port}{self._relay.raw_path.rstrip('/')}"

    async def start(self) -> None:
        """Start nginx and return once it listens."""
        command = find_nginx()
        if command is None:
            raise RuntimeError("there is no nginx here: apt-get install nginx-light")
        where = ["-p", str(self._directory), "-c", str(self._directory / "nginx.conf")]
        with (self._directory / "error.log").open("ab") as errors:
            self._process = await asyncio.create_subprocess_exec(
                command,
                *where,
                stdin=DEVNULL,
                stdout=DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        await self._listening(self._process)

    async def stop(self) -> None:
        """End nginx; all that it answered so far is in `served` then."""
        process, self._process = self._process, None
        if process is not None:
            await _end(process)
            lines = (self._directory / "access.log").read_bytes().splitlines()
            self.served = [msgspec.json.decode(line, type=Served, strict=False) for line in lines]

    async def _listening(self, process: Process) -> None:
        pause = FIRST_PAUSE
        async with asyncio.timeout(PATIENCE):
            while not await self._accepts():
                if process.returncode is not None:
                    said = (self._directory / "error.log").read_text()
                    raise RuntimeError(f"nginx ended at once; mend what it complains of:\n{said}")
                await asyncio.sleep(pause)
                pause *= 2

    async def _accepts(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True


async def _end(process: Process) -> None:
    """Let nginx answer and log what is under way; if that takes too long, kill its worker too."""
    try:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGQUIT)
        async with asyncio.timeout(PATIENCE):
            await process.wait()
    except TimeoutError:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
