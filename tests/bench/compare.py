"""What waiting costs: luma_async beside what a user would write today.

    python -m tests.bench.compare [--ids N …] [--runs N] [--clients NAME …]
                                  [--loop {asyncio,uvloop} …] [--interval S] [--shortest S]
                                  [--longest S] [--connections N] [--timeout S] [--save FILE]
                                  [--back-to-back] [--load FILE …] [--write] [--picture]

Each client is a process of its own, which has imported all before it is given its ids; the relay is
another, the same for all (FakeRelay, answers take 0.02 s). All tasks of a heat come at once, and
every client of a run meets the same ids with the same durations, in an order that is shuffled for
each run. Time runs twenty times fast: an interval of 0.25 s, tasks of 5 to 10 s.

CPU seconds are the operating system's, user and system, from the ids until each is known to be
completed. Peak memory is the whole process's. Requests, ids asked, connections (the most open at
once) and lag are the relay's: a task's lag is from its end to the arrival of the first question
after it. "Relay busy" is the relay's CPU seconds per second: near 100 % it is the relay that makes
a client late. Figures are medians of the runs that a client survived.

plain sdk, sdk, httpx and aiohttp run a coroutine for each id. plain sdk is as it comes;
sdk and httpx have 20 connections, and let no more coroutines ask at a time. batch is a loop of
aiohttp POSTs of 100 ids, 8 at a time, and json; floor is the same loop with msgspec that reads
nothing but id and state; spread batch and spread floor are these with their requests spread over
the interval, as a poller's are, instead of all at once. one call is wait_until_done(ids), as many
callers is one wait_until_done(id) for each id, every is one call with pace=Every(interval) in place
of Learned(interval).

--back-to-back measures the other rhythm: the relay answers at once, and the interval is shorter
than any client needs for a round, so that each asks again as soon as it is answered. All tasks end
after 3 s, so that each request has 100 ids. Its tables are of CPU per request.

--save keeps the heats, --load takes them instead of running any (of several files: all together).
--write puts the tables into docs/performance.md, --picture draws docs/performance.svg (matplotlib).
A client that takes longer than --timeout, six times the longest task, has not survived.
"""

import argparse
import asyncio
import random
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import msgspec

from tests.bench.pages import write_table
from tests.bench.peers import PEERS
from tests.bench.protocol import Course
from tests.bench.run_client import Heat, Process, heat
from tests.bench.tables import Standings, draw, setting

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
PICTURE = PAGE.with_name("performance.svg")
LOOPS = ("asyncio", "uvloop")
ROUND_OF_ONE = 0.0002  # seconds in which no client makes a request of 100 ids


class Saved(msgspec.Struct, frozen=True):
    """What a file keeps: where it was measured, and all heats."""

    setting: str
    heats: list[Heat]


async def compare(args: argparse.Namespace) -> Saved:
    """Run all heats, and keep those that were run where it breaks off."""
    saved = Saved(setting(), [])
    patience: float = args.timeout or 6.0 * args.longest
    async with Process("tests.bench.relay_process") as judge:
        for run, ids in product(range(1, args.runs + 1), args.ids):
            pace = (args.interval, args.shortest, args.longest)
            if args.back_to_back:
                pace = (max(0.001, ROUND_OF_ONE * ids / 100), 3.0, 3.0)
            course = Course(ids, run, *pace, args.connections, 0.0 if args.back_to_back else 0.02)
            for client, loop in order(args.clients, args.loop, course):
                saved.heats.append(await heat(judge, client, loop, course, patience))
                show(saved.heats[-1])
                if args.save:
                    args.save.write_bytes(msgspec.json.encode(saved))
    return saved


def order(
    clients: Sequence[str], loops: Sequence[str], course: Course
) -> Sequence[tuple[str, str]]:
    """Return the heats of a course in an order that is no client's advantage."""
    shuffled = list(product(clients, loops))
    random.Random(f"{course.ids} {course.seed}").shuffle(shuffled)
    return shuffled


def show(heat: Heat) -> None:
    came = f"{heat.spent.cpu:.3f} s of CPU in {heat.spent.seconds:.1f} s" if heat.spent else ""
    course = f"run {heat.course.seed}, {heat.course.ids:,} ids"
    print(f"{course}, {heat.client}, {heat.loop}: {came}{heat.reason}", flush=True)


def loaded(files: Sequence[Path]) -> Saved:
    """Return the heats of all files, as measured where the last one was."""
    found = [msgspec.json.decode(file.read_bytes(), type=Saved) for file in files]
    return Saved(found[-1].setting, [heat for saved in found for heat in saved.heats])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--ids", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--clients", nargs="+", choices=PEERS, default=[*PEERS])
    parser.add_argument("--loop", nargs="+", choices=LOOPS, default=["asyncio"])
    parser.add_argument("--interval", type=float, default=0.25)
    parser.add_argument("--shortest", type=float, default=5.0, help="the shortest task")
    parser.add_argument("--longest", type=float, default=10.0, help="the longest task")
    parser.add_argument("--connections", type=int, default=20, help="of sdk and of httpx, at most")
    parser.add_argument("--back-to-back", action="store_true", help="ask without a pause")
    parser.add_argument("--timeout", type=float, help="of a heat")
    parser.add_argument("--save", type=Path)
    parser.add_argument("--load", type=Path, nargs="+")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--picture", action="store_true")
    args = parser.parse_args()
    if "uvloop" in args.loop and not args.load and find_spec("uvloop") is None:
        parser.error("uvloop is not installed: pip install -e '.[bench]'")
    saved = loaded(args.load) if args.load else asyncio.run(compare(args))
    standings = Standings(saved.heats, saved.setting)
    tables = standings.back_to_back() if args.back_to_back else standings.tables()
    for name, lines in tables.items():
        print(f"\n{name}\n\n" + "\n".join(lines))
    if args.write:
        for name, lines in tables.items():
            write_table(PAGE, name, lines)
    if args.picture:
        draw(saved.heats, PICTURE)


if __name__ == "__main__":
    main()
