"""What becomes of a file at each host: saved with the right bytes, or an error and nothing kept.

    python -m tests.bench.hosts [--only TEXT] [--write]

Each row is a download of its own in virtual time, through real HTTP: a host on loopback that
answers as in tests/bench/host_cases.py, and a relay with a new link. --write puts the table into
docs/reliability.md.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aiohttp import web
from yarl import URL

from luma_async import DownloadError, Generation, LumaSession, State, Video, download
from luma_async.downloads.partial_file import open_partial_file
from luma_async.downloads.resuming import PartRecord, source_of
from luma_async.testing import FakeRelay, Reply, run_virtual
from tests.bench.host_cases import CASES, SAVED, Case, Host
from tests.bench.pages import write_table

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
HEAD = "| the host | what it answers | requests to the relay | the file |\n|---|---|--:|---|"


async def play(case: Case) -> str:
    """Return the row of one case."""
    host = Host(case)
    runner = web.ServerRunner(web.Server(host.handle, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    link = case.link if "://" in case.link else host.url + case.link
    try:
        with tempfile.TemporaryDirectory() as directory:
            async with FakeRelay() as relay:
                new = link if case.repeats_link else f"{host.url}/fresh.mp4"
                body = {"id": "a", "state": "completed", "video": {"download_url": new}}
                reply = Reply(body=json.dumps(body).encode())
                relay.reply(reply, on="get", optional=not case.asks_relay)
                became = await saved(case, link, Path(directory), relay)
                asked = relay.requests
    finally:
        await runner.cleanup()
    if (became, asked) != (case.expected, case.asks_relay):
        became = f"**{became}**, not {case.expected}"
    return f"| {case.host} | {case.says} | {asked} | {became} |"


async def saved(case: Case, link: str, directory: Path, relay: FakeRelay) -> str:
    """Download the video of a case; return what became of the file."""
    if case.part is not None:
        data, validator, total = case.part
        part = open_partial_file(directory, "a.mp4")
        assert part is not None
        part.begin(PartRecord(source_of(URL(link)), validator, total))
        part.write(data)
        part.close()
    generation = Generation(id="a", state=State.COMPLETED, video=Video(download_url=link))
    keys: dict[str, Any] = {"headers": case.headers, "header_hosts": ["127.0.0.1"]}
    async with LumaSession(relay.url, api_key=relay.api_key) as luma:
        try:
            path = await download(
                generation, directory, luma=luma, allow_hosts=["127.0.0.1"],
                **keys if case.headers else {},
            )  # fmt: skip
        except DownloadError as error:
            kept = os.listdir(directory)
            return f"kept {kept}" if kept else f"error: {str(error).rpartition('; ')[2]}"
    return SAVED if _read(path) == case.body else "wrong bytes"


def _read(path: Path) -> bytes:
    return path.read_bytes()


def rows(only: str = "") -> Iterator[str]:
    """Play all cases, each in virtual time."""
    yield HEAD
    for case in CASES:
        if only in f"{case.host}: {case.says}":
            yield run_virtual(play(case))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", default="", metavar="TEXT", help="hosts with this in their row")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    lines: list[str] = []
    for line in rows(args.only):
        print(line, flush=True)
        lines.append(line)
    if args.write:
        write_table(PAGE, "hosts", lines)


if __name__ == "__main__":
    main()
