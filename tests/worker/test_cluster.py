"""The cluster of docs/workers.md: three servers with the commands of its compose file."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from luma_async.testing import FakeRelay
from luma_async.worker import Queue
from luma_async.worker.server.server_process import server_binary
from tests import optional
from tests.docs_blocks import blocks
from tests.subprocesses import held_port
from tests.worker.worker_processes import WorkerPool

pytestmark = pytest.mark.skipif(
    not os.environ.get("CI"),
    reason="ten seconds: CI=1 .venv/bin/pytest tests/worker",
)
NODES: tuple[str, ...] = ("nats1", "nats2", "nats3")
yaml: Any = optional.module("yaml")


class Cluster:
    """Three servers on loopback: the page's commands, with ports in place of host names."""

    def __init__(self, home: Path) -> None:
        self._held = ExitStack()
        ports = [self._held.enter_context(held_port()) for _ in range(6)]
        (compose,) = blocks("docs/workers.md", "yaml")
        services = yaml.safe_load(compose)["services"]
        self._routes = dict(zip(NODES, ports[:3], strict=True))
        self._clients = dict(zip(NODES, ports[3:], strict=True))
        self._commands = {node: self._command(services[node]["command"], node) for node in NODES}
        self._home = home
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        return ",".join(f"nats://127.0.0.1:{port}" for port in self._clients.values())

    def start(self, node: str) -> None:
        command = self._commands[node].replace("/data", str(self._home / node)).split()
        address = ["-a", "127.0.0.1", "-p", str(self._clients[node])]
        self._running[node] = subprocess.Popen(
            [server_binary(), *command, *address], stderr=subprocess.DEVNULL
        )

    def kill(self, node: str) -> None:
        process = self._running.pop(node)
        process.kill()
        process.wait()

    def close(self) -> None:
        for node in tuple(self._running):
            self.kill(node)
        self._held.close()

    def _command(self, command: str, node: str) -> str:
        command = command.replace("0.0.0.0:6222", f"127.0.0.1:{self._routes[node]}")
        for name, port in self._routes.items():
            command = command.replace(f"{name}:6222", f"127.0.0.1:{port}")
        return command


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Yield three connected servers."""
    servers = Cluster(tmp_path)
    for node in NODES:
        servers.start(node)
    yield servers
    servers.close()


@pytest.fixture
async def server(cluster: Cluster) -> str:
    """Return the URLs of the cluster, in place of the one server of the other tests."""
    async with asyncio.timeout(30):
        while True:
            try:
                async with Queue(cluster.url, pool="first"):
                    return cluster.url
            except Exception:
                await asyncio.sleep(0.2)


async def test_no_id_is_lost_when_a_node_is_killed_and_restarted(
    cluster: Cluster, queue: Queue, workers: WorkerPool, relay: FakeRelay
) -> None:
    await workers.start()
    await queue.submit(ids := [relay.add(duration=3.0) for _ in range(100)])
    info = await queue.js.stream_info(queue.names.wait)
    assert info.config.num_replicas == 3
    assert info.cluster is not None
    leader = str(info.cluster.leader)
    cluster.kill(leader)
    later = [relay.add(duration=0.0) for _ in range(100)]
    await queue.submit(later)
    cluster.start(leader)
    assert len(await queue.wait_submitted([*ids, *later], timeout=40)) == 200
