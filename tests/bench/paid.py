"""What `luma-async render` pays for: a relay that loses answers, and kill -9 every few seconds.

    python -m tests.bench.paid [--prompts N] [--lost SHARE] [--kill-every S] [--seed N]

Each prompt is unique, so the relay's list of tasks shows what was paid for. The run is killed at
random, on average every `--kill-every` seconds, and started again with the same arguments, until it
ends by itself. Then the list is compared with the journal and with the files.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from luma_async.cli.rendering.journal import read_journal
from luma_async.cli.rendering.plan import UNDECIDED, Entry, Status
from luma_async.testing import SubmitFault
from tests.relay_thread import Served, served

LOSSES: tuple[SubmitFault, ...] = (
    "lost_before", "lost_after", "cut_after", "gateway_timeout_after", "insert_failed_after",
)  # fmt: skip
LATENCY = 0.05  # seconds
DURATIONS = (0.2, 5.0)  # seconds
OPTIONS = (
    "--concurrency", "60", "--max-rate", "200", "--max-in-flight", "16", "--interval", "0.5",
    "--allow-host", "127.0.0.1",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--lost", type=float, default=0.3, help="share of answers that are lost")
    parser.add_argument("--kill-every", type=float, default=4.0, help="seconds, on average")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    faults = dict.fromkeys(LOSSES, args.lost / len(LOSSES))
    with (
        tempfile.TemporaryDirectory() as folder,
        served(
            latency=LATENCY, durations=DURATIONS, fails=0.05, submit_faults=faults, seed=args.seed
        ) as relay,
    ):
        began = time.monotonic()
        runs, code = render(args, Path(folder), relay.url)
        print(f"{args.prompts} prompts, {args.lost:.0%} of the answers to submissions lost")
        print(f"{runs - 1} times killed with SIGKILL; exit code {code} at the end, "
              f"after {time.monotonic() - began:.0f} s")  # fmt: skip
        report(relay, Path(folder))


def render(args: argparse.Namespace, folder: Path, url: str) -> tuple[int, int]:
    """Run the command, kill it and run it again until it ends; return runs and exit code."""
    table = folder / "prompts.txt"
    table.write_text("".join(f"prompt {number}\n" for number in range(args.prompts)))
    command = [sys.executable, "-m", "luma_async", "render", str(table), *OPTIONS]
    command += ["--download", str(folder / "videos")]
    environ = os.environ | {"LUMA_BASE_URL": url, "LUMA_API_KEY": "sk-fake"}
    dice = random.Random(args.seed)
    for runs in range(1, 10_000):
        with subprocess.Popen(
            command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            try:
                return runs, process.wait(timeout=dice.uniform(0.5, 2 * args.kill_every))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
    raise RuntimeError("it never ends")


def report(relay: Served, folder: Path) -> None:
    """Compare the relay's list with the journal and with the files."""
    made = relay.do(lambda: [(one, relay.relay.tasks[one].prompt) for one in relay.relay.created])
    journal = {one.prompt: one for one in read_journal(folder / "videos").values()}
    known = {one.task_id for one in journal.values()}
    unknown = {prompt for prompt, one in journal.items() if one.status in UNDECIDED}
    times = Counter(prompt for _, prompt in made)
    lost = [prompt for one, prompt in made if one not in known and prompt not in unknown]
    counts = Counter(one.status for one in journal.values())
    print("journal:", ", ".join(f"{count} {status}" for status, count in counts.most_common()))
    print(f"tasks made at the relay: {len(made)}; ids in the journal: {len(known - {None})}")
    print(f"listed as unknown: {len(unknown)}; made of them: {len(unknown & set(times))}")
    print(f"made at the relay, neither known nor listed as unknown: {len(lost)}")
    print(f"made twice: {sum(count > 1 for count in times.values())}")
    print(f"videos of completed known tasks that are not saved: {unsaved(relay, folder, journal)}")


def unsaved(relay: Served, folder: Path, journal: dict[str, Entry]) -> int:
    """Return how many known tasks that are completed have no file."""
    ends = relay.do(lambda: {one.id: one.ends for one in relay.relay.tasks.values()})
    completed = [one for one in journal.values() if ends.get(one.task_id or "") == "completed"]
    return sum(
        one.status is not Status.SAVED or not (folder / "videos" / (one.file or "?")).is_file()
        for one in completed
    )


if __name__ == "__main__":
    main()
