"""What decoding a response costs, per row of a batch, and plain msgspec in the same run.

    python -m tests.bench.reading [--rows N] [--rounds N]

`floor` decodes an id and a state, `full` decodes into full structs, both by msgspec alone, without
regard to envelopes, states, dates or encodings. `states` is what every poll pays, `whole` what a
row pays when its state has changed: the Generation, with the relay's own text kept. The rounds of
all columns take turns, and each shows its best.
"""

import argparse
import json
from collections.abc import Callable
from datetime import datetime
from itertools import repeat
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec

from luma_async.protocol.decoding import decode_response
from luma_async.structs import Body

DATA = Path(__file__).parents[1] / "data"
HEADERS = {"Content-Type": "application/json; charset=utf-8"}
CALLS = 20


class Named(msgspec.Struct):
    id: str
    state: str


class Full(Body, frozen=True, kw_only=True):
    id: str
    state: str


class NamedRow(msgspec.Struct):
    task_id: str
    status: str


class FullRow(msgspec.Struct):
    task_id: str
    status: str
    fail_reason: str
    created_at: datetime
    submit_time: int
    data: Full


class NamedRows(msgspec.Struct):
    data: list[NamedRow]


class FullRows(msgspec.Struct):
    data: list[FullRow]


Reader = Callable[[bytes], Any]
PLAIN: list[Reader] = [
    msgspec.json.Decoder(list[Named]).decode,
    msgspec.json.Decoder(list[Full]).decode,
]
PLAIN_WRAPPED: list[Reader] = [
    msgspec.json.Decoder(NamedRows).decode,
    msgspec.json.Decoder(FullRows).decode,
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=200)
    args = parser.parse_args()
    print(f"{'µs per row':<20}{'bytes':>7}{'floor':>7}{'full':>7}{'states':>8}{'whole':>7}", end="")
    print(f"{'states/floor':>14}{'whole/full':>12}")
    for name, sample in (
        ("bare open", "get-pending.json"),
        ("bare completed", "tasks-completed.json"),
        ("wrapped open", "tasks-wrapped-open.json"),
        ("wrapped completed", "tasks-wrapped-completed.json"),
    ):
        body, wrapped = repeated(sample, args.rows)
        readers = [*(PLAIN_WRAPPED if wrapped else PLAIN), states, whole]
        times = [seconds * 1e6 / args.rows for seconds in best(readers, body, args.rounds)]
        floor, full, ours, built = times
        print(f"{name:<20}{len(body) // args.rows:>7}{floor:>7.2f}{full:>7.2f}", end="")
        print(f"{ours:>8.2f}{built:>7.2f}{ours / floor:>14.2f}{built / full:>12.2f}")


def repeated(sample: str, rows: int) -> tuple[bytes, bool]:
    """Return the sample's row many times with ids of their own, and whether it is wrapped."""
    sample_rows: Any = json.loads((DATA / sample).read_bytes())
    wrapped = "data" in sample_rows
    listed: Any = sample_rows["data"] if wrapped else sample_rows
    one: Any = listed[0] if sample.startswith("tasks") else listed
    name = "task_id" if wrapped else "id"
    copies = [{**one, name: f"4665a07c-7641-4809-a133-{number:012}"} for number in range(rows)]
    return msgspec.json.encode({**sample_rows, "data": copies} if wrapped else copies), wrapped


def states(body: bytes) -> Any:
    return decode_response(200, HEADERS, body).states


def whole(body: bytes) -> Any:
    answer = decode_response(200, HEADERS, body)
    return [answer.generation(task_id) for task_id in answer.states]


def best(readers: list[Reader], body: bytes, rounds: int) -> list[float]:
    """Return the seconds that each reader needs for the body."""
    times = [[seconds(reader, body) for reader in readers] for _ in range(rounds)]
    return [min(column) for column in zip(*times, strict=True)]


def seconds(reader: Reader, body: bytes) -> float:
    begun = perf_counter()
    for _ in repeat(None, CALLS):
        reader(body)
    return (perf_counter() - begun) / CALLS


if __name__ == "__main__":
    main()
