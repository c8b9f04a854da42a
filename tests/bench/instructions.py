"""What a poll costs in bytecode instructions: a figure that does not depend on the machine.

    python -m tests.bench.instructions [--write]

Each scenario is fixed, and counts the instructions that the interpreter executes in luma_async;
what msgspec, asyncio and aiohttp do is not counted. instructions.json has what was measured last,
for each version of Python; a scenario that needs over 3 % more fails. --write stores the figures.

- decode published, decode table: a batch response of 100 rows, to its states;
- plan: 1,000 open ids are polled for ten rounds, without news;
- one call: one wait for 1,000 ids from the first poll until all have ended;
- as many callers: the same with a wait for each id.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import luma_async
from luma_async import Learned, Limits, State
from luma_async.polling.poller import Poller
from luma_async.polling.wait import Notify, Wait
from luma_async.protocol.decoding import decode_response
from luma_async.scheduling.changes import Grace
from luma_async.scheduling.scheduler import Scheduler
from luma_async.testing import run_virtual
from tests.fake_answers import FakeAnswer
from tests.in_memory_relays import ScriptedRelay

STORE = Path(__file__).with_suffix(".json")
SLACK = 0.03
IDS = tuple(f"task-{number:04d}" for number in range(1000))
PACKAGE = str(Path(luma_async.__file__).parent)
TESTING = str(Path(PACKAGE, "testing"))


def count(run: Callable[[], object]) -> int:
    """Return how many bytecode instructions a call executes in luma_async."""
    counted = 0

    def in_frame(frame: FrameType, event: str, _: object) -> Any:
        nonlocal counted
        counted += event == "opcode"
        return in_frame

    def on_call(frame: FrameType, _event: str, _arg: object) -> Any:
        file = frame.f_code.co_filename
        if not file.startswith(PACKAGE) or file.startswith(TESTING):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return in_frame

    sys.settrace(on_call)
    try:
        run()
    finally:
        sys.settrace(None)
    return counted


def decode(row: Callable[[str], dict[str, object]]) -> None:
    body = json.dumps([row(task_id) for task_id in IDS[:100]]).encode()
    response = decode_response(200, {"Content-Type": "application/json"}, body)
    assert len(response.for_tasks(IDS[:100]).states) == 100


def published(task_id: str) -> dict[str, object]:
    return {"id": task_id, "state": "processing", "video": None, "prompt": "a prompt"}


def table(task_id: str) -> dict[str, object]:
    data = {"id": task_id, "state": "dreaming"}
    return {"id": 7, "task_id": task_id, "status": "IN_PROGRESS", "data": data}


def plan() -> None:
    scheduler: Scheduler[str] = Scheduler(Learned(5.0), 100, Grace(), spacing=0.1)
    scheduler.subscribe("a wait", IDS, 0.0)
    for _ in range(100):
        now = scheduler.next_due()
        batch = scheduler.take_batch(now)
        assert batch
        answer = FakeAnswer(dict.fromkeys(batch.ids, State.PROCESSING))
        scheduler.complete(batch, answer, now + 0.05)


async def wait(groups: Sequence[Sequence[str]]) -> None:
    """Wait for groups of ids, a wait each; a third of the tasks ends every 20 s."""
    loop = asyncio.get_running_loop()
    begun = loop.time()

    def play(task_id: str) -> State:
        ends = 20.0 * (1 + int(task_id[-4:]) % 3)
        return State.COMPLETED if loop.time() - begun >= ends else State.PROCESSING

    relay = ScriptedRelay(play)
    poller = Poller(relay, Learned(5.0), Limits(), Grace(), request_timeout=30.0, roll=lambda: 0.5)

    async def one(ids: Sequence[str]) -> None:
        waiting = Wait(poller, relay, ids, 600.0, Notify.NOTHING)
        await waiting.start()
        assert not await waiting.wait_for_news()
        waiting.stop()

    await asyncio.gather(*map(one, groups))
    await poller.close()


SCENARIOS: dict[str, Callable[[], object]] = {
    "decode published": lambda: decode(published),
    "decode table": lambda: decode(table),
    "plan": plan,
    "one call": lambda: run_virtual(wait([IDS])),
    "as many callers": lambda: run_virtual(wait([[task_id] for task_id in IDS])),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help="store the figures")
    args = parser.parse_args()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stored: dict[str, dict[str, int]] = json.loads(STORE.read_text()) if STORE.exists() else {}
    before = stored.get(version, {})
    grown = False
    print("| scenario | instructions | stored | ratio |\n| --- | --: | --: | --: |")
    for name, run in SCENARIOS.items():
        count(run)  # imports and caches; Python 3.12 and later count from the second time on
        counted = count(run)
        ratio = counted / before[name] if name in before else 1.0
        grown |= ratio > 1.0 + SLACK
        print(f"| {name} | {counted:,} | {before.get(name, 0):,} | {ratio:.3f} |")
        stored.setdefault(version, {})[name] = counted
    if args.write:
        STORE.write_text(json.dumps(stored, indent=1) + "\n")
    elif grown:
        print("more instructions than stored; find out why, or store them with --write")
    return int(grown and not args.write)


if __name__ == "__main__":
    sys.exit(main())
