"""One heat of a comparison: one client, one course, and what both processes report of it."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any, Self

from tests.bench.peers import PEERS
from tests.bench.protocol import Course, Seen, Spent

LONGEST_LINE = 2**28
STARTUP = 60.0


@dataclass(frozen=True)
class Heat:
    """What a client came to on one course; where it did not survive, the reason."""

    client: str
    loop: str
    course: Course
    spent: Spent | None = None
    seen: Seen | None = None
    reason: str = ""


class Process:
    """A module that runs in a process of its own, and speaks in lines; killed when left."""

    def __init__(self, *command: str) -> None:
        self._command = command

    async def __aenter__(self) -> Self:
        here = [sys.executable, "-m", *self._command]
        self._process = await asyncio.create_subprocess_exec(
            *here, stdin=PIPE, stdout=PIPE, stderr=PIPE, limit=LONGEST_LINE
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.communicate()

    async def say(self, line: bytes) -> None:
        assert self._process.stdin
        self._process.stdin.write(line)
        await self._process.stdin.drain()

    async def heard(self) -> bytes:
        """Return the next line; RuntimeError, with what was said last, where there is none."""
        assert self._process.stdout
        assert self._process.stderr
        line = await self._process.stdout.readline()
        if not line.endswith(b"\n"):
            complaint = (await self._process.stderr.read()).decode(errors="replace")
            last = complaint.strip().splitlines()[-1:] or ["nothing"]
            raise RuntimeError(f"{self._command[0]} ended and said: {last[0]}")
        return line


async def heat(judge: Process, client: str, loop: str, course: Course, patience: float) -> Heat:
    """Run one client, for so many seconds at most."""
    missing = [name for name in PEERS[client].needs if find_spec(name) is None]
    if missing:
        return Heat(client, loop, course, reason=f"not installed: {', '.join(missing)}")
    spent: Spent | None = None
    reason = ""
    async with Process("tests.bench.peers", client, loop) as process:
        await asyncio.wait_for(process.heard(), STARTUP)
        await judge.say(line(asdict(course)))
        go = await judge.heard()
        try:
            async with asyncio.timeout(patience):
                await process.say(go)
                spent = Spent(**json.loads(await process.heard()))
        except TimeoutError:
            reason = f"not done after {patience:g} s"
        except (RuntimeError, ConnectionError) as error:
            reason = str(error)
    await judge.say(b"\n")
    seen = Seen(**json.loads(await judge.heard()))
    return Heat(client, loop, course, spent, seen, reason)


def line(message: Any) -> bytes:
    return json.dumps(message).encode() + b"\n"
