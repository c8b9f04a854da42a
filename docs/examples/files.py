"""Keep each video as a file as soon as it is completed.

python docs/examples/files.py DIRECTORY ID …

The relay of `luma-async relay` is on loopback, which a download does not enter unless its host is
named: --allow-host 127.0.0.1.
"""

import argparse
import asyncio
import os
import sys
from pathlib import Path

from luma_async import (
    Downloader,
    DownloadError,
    Generation,
    Learned,
    LumaSession,
    State,
    WaitIncomplete,
)

PACE = Learned(float(os.environ.get("PACE", "5")))  # seconds; less where videos take seconds


async def main(directory: Path, ids: list[str], allow_hosts: list[str]) -> int:
    """Wait, download, and return the exit code."""
    async with (
        LumaSession(pace=PACE) as luma,
        Downloader(directory, luma=luma, allow_hosts=allow_hosts) as downloader,
        asyncio.TaskGroup() as downloads,
    ):
        kept: set[asyncio.Task[bool]] = set()
        try:
            async for generation in luma.as_completed(ids):
                kept.add(downloads.create_task(keep(downloader, generation)))
        except WaitIncomplete as error:
            print(f"not all: {error}", file=sys.stderr)
        saved = [await each for each in kept]
    return 0 if sum(saved) == len(set(ids)) else 1


async def keep(downloader: Downloader, generation: Generation) -> bool:
    """Download a video, and tell whether it is on disk; a failed one costs no other."""
    if generation.state is State.FAILED:
        print(f"{generation.id!r} failed: {generation.failure_reason!r}")
        return False
    try:
        path = await downloader.download(generation)
    except DownloadError as error:
        print(f"{generation.id!r}: {error}", file=sys.stderr)
        return False
    print(f"{generation.id!r} is {str(path)!r}")
    return True


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Keep videos as files.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("ids", nargs="+", metavar="ID")
    parser.add_argument("--allow-host", action="append", default=[], metavar="NAME")
    arguments = parser.parse_args()
    sys.exit(asyncio.run(main(arguments.directory, arguments.ids, arguments.allow_host)))
