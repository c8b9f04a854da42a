"""A relay in a process of its own, for many tasks, that records when each id was polled.

It receives a play as a line of JSON, and answers with its URL, its key and the ids. It receives a
moment of the monotonic clock, and answers with the requests so far, and how long after the moment
each id that was open then was polled again.
"""

import asyncio
import json
import random
import sys
from dataclasses import asdict, dataclass

from luma_async.testing import FakeRelay


@dataclass(frozen=True)
class Play:
    """So many tasks, that end at random between two moments."""

    ids: int
    first: float
    last: float
    latency: float = 0.02
    seed: int = 0


async def main() -> None:
    lines = asyncio.StreamReader(limit=2**20)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    play = Play(**json.loads(await lines.readline()))
    dice = random.Random(play.seed)
    async with FakeRelay(latency=play.latency) as relay:
        ends = {relay.add(duration=end): end for end in ends_of(play, dice)}
        opened = asyncio.get_running_loop().time()
        print(json.dumps({"url": relay.url, "key": relay.api_key, "ids": list(ends)}), flush=True)
        while line := await lines.readline():
            moment = json.loads(line)
            again: dict[str, float] = {}
            for asked in relay.log:
                if asked.at >= moment:
                    for task_id in asked.ids:
                        again.setdefault(task_id, asked.at - moment)
            gaps = [again.get(i, -1.0) for i, end in ends.items() if opened + end > moment]
            said = {"requests": relay.requests, "busiest": relay.busiest_second(), "gaps": gaps}
            print(json.dumps(said), flush=True)


def ends_of(play: Play, dice: random.Random) -> list[float]:
    return [dice.uniform(play.first, play.last) for _ in range(play.ids)]


def line(play: Play) -> bytes:
    return json.dumps(asdict(play)).encode() + b"\n"


if __name__ == "__main__":
    asyncio.run(main())
