"""A relay as a process, for `chaos`: commands in lines of JSON, each answered by one line.

{"add": ID, "version": N, "duration": SECONDS}     a new version of a task
{"faults": {NAME: PROBABILITY}}
{"report": true}
"""

import asyncio
import json
import sys
from collections import Counter
from typing import Any

from luma_async.testing import FakeRelay


def obey(relay: FakeRelay, command: dict[str, Any]) -> dict[str, Any]:
    if "add" in command:
        task_id = command["add"]
        if task_id in relay.tasks:
            relay.forget(task_id)
        reason = f"version {command['version']}"
        relay.add(
            task_id, duration=command["duration"], ends="failed", failure_reason=reason, prompt="x"
        )
        return {}
    if "faults" in command:
        relay.faults = command["faults"]
        return {}
    seconds = Counter(int(asked.at) for asked in relay.log)
    first = min(seconds, default=0)
    by_second = [seconds[first + number] for number in range(max(seconds, default=0) - first + 1)]
    return {"requests": relay.requests, "most": relay.busiest_second(), "by_second": by_second}


async def main() -> None:
    lines = asyncio.StreamReader(limit=2**20)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    async with FakeRelay(latency=0.01, seed=int(sys.argv[1])) as relay:
        print(json.dumps({"url": relay.url, "key": relay.api_key}), flush=True)
        while line := await lines.readline():
            print(json.dumps(obey(relay, json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
