"""Peak memory of `luma-async wait` and of `as_completed` for many ids, by what is kept.

    python -m tests.bench.wait_memory [--ids N …] [--saved N …] [--modes MODE …] [--write]

Each run is a process of its own, with FakeRelay in another one. All tasks are open when they are
polled first, and completed some seconds later; lines of JSON go to a file, and the videos are those
of FakeRelay, 2 kB each. `--saved` are the numbers of ids where videos are saved. Memory is the peak
of the whole process, Python and its imports included; the row of one id says what those are.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from luma_async import Every, Limits, LumaSession
from luma_async.cli import main as luma_async
from tests.bench.pages import write_table
from tests.bench.peers import most_memory

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
HERE = [sys.executable, "-m", "tests.bench.wait_memory"]
AS_COMPLETED = "as_completed"  # a loop that keeps nothing of a task
MODES = {
    AS_COMPLETED: (),
    "wait": (),
    "wait --report": ("--report", "videos.html"),
    "wait --download": ("--download", "videos", "--allow-host", "127.0.0.1"),
}
RATE = 400.0  # requests per second
ROUND = 2 / RATE / 100  # seconds per id that the first round takes, at most
SPREAD = 1.5  # of the first round: all are completed within that time


async def relay(count: int) -> None:
    """Play the relay until standard input ends."""
    from luma_async.testing import FakeRelay  # not in the process that is measured

    async with FakeRelay() as fake:
        first = 2.0 + count * ROUND
        for place in range(count):
            fake.add(duration=first * (1.0 + SPREAD * place / count))
        text = "".join(f"{task_id}\n" for task_id in fake.tasks)
        await asyncio.to_thread(Path("ids.txt").write_text, text)
        print(fake.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)


@contextmanager
def played(count: int, folder: str) -> Generator[str]:
    """Let a relay with so many tasks run; its URL."""
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [*HERE, "--relay", str(count)],
        cwd=folder, env=environment(root), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout
        yield process.stdout.readline().strip()
        assert process.stdin
        process.stdin.close()


def environment(root: Path) -> dict[str, str]:
    """Return an environment in which this package is found from any directory."""
    import os

    return {**os.environ, "PYTHONPATH": str(root)}


def run(mode: str, count: int) -> tuple[float, float]:
    """Return the peak in MiB, and the seconds that it took."""
    child = "--reader" if mode == AS_COMPLETED else "--child"
    with tempfile.TemporaryDirectory() as folder, played(count, folder) as url:
        command = [*HERE, child, url, *MODES[mode]]
        begun = time.monotonic()
        with Path(folder, "lines").open("w") as lines:
            done = subprocess.run(
                command, cwd=folder, env=environment(Path(__file__).parents[2]), stdout=lines,
                stderr=subprocess.PIPE, text=True, check=True,
            )  # fmt: skip
        took = time.monotonic() - begun
        ended = [json.loads(line) for line in Path(folder, "lines").read_text().splitlines()]
        assert len({one["id"] for one in ended if one["state"] == "completed"}) == count
        if "--download" in mode:
            assert sum(1 for _ in Path(folder, "videos").iterdir()) == count
        return float(done.stderr.split()[-1]), took


async def reader(url: str) -> None:
    """Iterate over all tasks, and print a line for each."""
    ids = await asyncio.to_thread(Path("ids.txt").read_text)
    limits = Limits(max_rate=RATE, max_in_flight=8)
    async with LumaSession(url, api_key="sk-fake", pace=Every(1.0), limits=limits) as luma:
        async for generation in luma.as_completed(ids.split(), timeout=None):
            print(json.dumps({"id": generation.id, "state": generation.state}))


def child(url: str, options: Sequence[str]) -> None:
    relay_options = ["--base-url", url, "--api-key", "sk-fake", "--max-rate", f"{RATE:g}"]
    quick = ["--interval", "1", "--max-in-flight", "8"]
    code = luma_async(["wait", "--file", "ids.txt", *relay_options, *quick, *options])
    print(most_memory(), file=sys.stderr)
    sys.exit(code)


def table(modes: Sequence[str], ids: Sequence[int], saved: Sequence[int]) -> list[str]:
    """Measure each mode at each size."""
    lines = [
        "| command | ids | peak, MiB | kB an id | seconds |",
        "| --- | --: | --: | --: | --: |",
    ]
    for mode in modes:
        bare, _ = run(mode, 1)
        lines.append(f"| `{mode}` | 1 | {bare:,.0f} | | |")
        for count in saved if "--download" in mode else ids:
            peak, took = run(mode, count)
            each = 1024 * (peak - bare) / count
            lines.append(f"| `{mode}` | {count:,} | {peak:,.0f} | {each:.2f} | {took:,.0f} |")
            print(lines[-1], file=sys.stderr, flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--ids", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--saved", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--write", action="store_true", help="the table into docs/performance.md")
    parser.add_argument("--relay", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--reader", help=argparse.SUPPRESS)
    parser.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.relay:
        asyncio.run(relay(args.relay))
    elif args.reader:
        asyncio.run(reader(args.reader))
        print(most_memory(), file=sys.stderr)
    elif args.child:
        child(args.child[0], args.child[1:])
    else:
        lines = table(args.modes, args.ids, args.saved)
        print(*lines, sep="\n")
        if args.write:
            write_table(PAGE, "wait-memory", lines)


if __name__ == "__main__":
    main()
