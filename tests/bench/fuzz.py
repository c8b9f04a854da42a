"""Answers that no relay would send, a million of them: only values or errors of ours may come out.

    pip install atheris
    python -m tests.bench.fuzz [--inputs N] [--seed N] [--corpus FOLDER]

Coverage leads the way (atheris, which is libFuzzer), beginning with every body that relays were
seen to send. A third of the mutations are libFuzzer's own, of bytes; the others take the body as
JSON and change a value, a key or a place in it, so that they come past the parser. The claims are
those of `tests/decode_invariants.py`. FOLDER, `.fuzz` by default, keeps what was found; an input
that breaks a claim is printed with its traceback and written there as `crash-…`.
"""

import argparse
import json
import logging
import random
import sys
from collections import Counter
from copy import deepcopy
from pathlib import Path
from time import perf_counter
from typing import Any

import atheris

with atheris.instrument_imports(include=["luma_async"], enable_loader_override=False):
    from tests.decode_invariants import check

DATA = Path(__file__).parents[1] / "data"
SAMPLES = [path.read_bytes() for path in sorted(DATA.glob("[gt]*.json"))]
STATUSES = (200, 201, 204, 301, 400, 401, 402, 403, 404, 405, 413, 422, 429, 500, 501, 502, 503)
CHARSETS = ("utf-8", "gbk", "utf-16", "utf-7", "latin-1", "zlib", "unicode_escape", "nonsense")
HEADERS: tuple[dict[str, str], ...] = (
    {},
    *({"Content-Type": f"application/json; charset={charset}"} for charset in CHARSETS),
    {"Retry-After": "7", "X-Request-Id": "a" * 300},
    {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT", "Date": "Wed, 21 Oct 2026 07:27:00 GMT"},
    {"retry-after-ms": "1e9", "Retry-After": "-1", "Location": "//elsewhere\r\n"},
)
_WORDS = """
id state task_id status data code success error message detail reason video video_raw url prompt
download_url width duration thumbnail last_frame media_type palette grid artifact request
aspect_ratio created_at submit_time failure_reason fail_reason assets result_url original completed
SUCCESS FAILURE UNKNOWN pending task_not_exist quota 额度 https://a/b 0001-01-01T00:00:00Z
2024-12-22T13:38:40.139Z 2024-12-22T13:38:40 1970-01-01T00:00:00Z (request id: a)
"""
_VALUES = r"""
null true false 0 -1 13917 1734874720 1e30 1.5 Infinity NaN "" "\ud83d" "\u0000" [] {} [[]] [{}]
[{},{}] "4665a07c-7641-4809-a133-10786201bb56" {"url":"https://a/b"}
"""
WORDS = _WORDS.split()
VALUES = _VALUES.split()


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Change an input: its bytes, or its body as JSON."""
    dice = random.Random(seed)
    if dice.random() < 1 / 3:
        return bytes(atheris.Mutate(data, max_size))
    try:
        plain = json.loads(data[2:])
    except (ValueError, RecursionError):
        plain = json.loads(dice.choice(SAMPLES))
    for _ in range(dice.randint(1, 3)):
        plain = changed(plain, dice)
    body = json.dumps(plain, ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")
    return (data[:2] + body)[:max_size]


def changed(plain: Any, dice: random.Random) -> Any:
    """Return the value with one change somewhere in it."""
    inside = plain and dice.random() < 0.8
    if inside and isinstance(plain, dict):
        return changed_object(plain, dice)
    if inside and isinstance(plain, list):
        return changed_array(plain, dice)
    anything = json.loads(dice.choice(VALUES))
    return dice.choice([{dice.choice(WORDS): plain}, [plain, plain], dice.choice(WORDS), anything])


def changed_object(plain: dict[str, Any], dice: random.Random) -> Any:
    key = dice.choice(list(plain))
    match dice.randrange(6):
        case 0:
            del plain[key]
        case 1:
            plain[dice.choice(WORDS)] = deepcopy(plain[key])
        case 2:
            plain[dice.choice(WORDS)] = json.loads(dice.choice(VALUES))
        case _:
            plain[key] = changed(plain[key], dice)
    return plain


def changed_array(plain: list[Any], dice: random.Random) -> Any:
    place = dice.randrange(len(plain))
    match dice.randrange(4):
        case 0:
            del plain[place]
        case 1:
            plain.append(deepcopy(plain[place]))
        case _:
            plain[place] = changed(plain[place], dice)
    return plain


def seeds() -> list[bytes]:
    """Return every body that relays were seen to send, behind a byte for status and headers."""
    bodies = [b"\x00\x00" + sample for sample in SAMPLES]
    for error in json.loads((DATA / "errors.json").read_bytes()):
        status = STATUSES.index(error["status"]) if error["status"] in STATUSES else 0
        bodies.append(bytes([128 + status, 0]) + error["body"].encode())
    return bodies


class Claim:
    """Checks inputs, counts what came out, and says so at the last one."""

    def __init__(self, inputs: int) -> None:
        self.inputs = inputs
        self.found: Counter[str] = Counter()
        self.begun = perf_counter()

    def __call__(self, data: bytes) -> None:
        status = STATUSES[(data[0] - 128) % len(STATUSES)] if data and data[0] >= 128 else 200
        headers = HEADERS[data[1] % len(HEADERS)] if len(data) > 1 else {}
        self.found[type(check(status, headers, data[2:])).__name__] += 1
        if self.found.total() == self.inputs:
            self.report()

    def report(self) -> None:
        print(f"{self.inputs:,} inputs in {perf_counter() - self.begun:.0f} s, none broke a claim:")
        for name, count in self.found.most_common():
            print(f"{count:>10,} {name}")
        sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path, default=Path(".fuzz"))
    args = parser.parse_args()
    args.corpus.mkdir(exist_ok=True)
    for number, seed in enumerate(seeds()):
        Path(args.corpus, f"seed-{number}").write_bytes(seed)
    logging.disable()
    options = [f"-runs={args.inputs}", f"-seed={args.seed}", f"-artifact_prefix={args.corpus}/"]
    options += ["-max_len=8192", "-timeout=10", "-verbosity=0", str(args.corpus)]
    atheris.Setup([sys.argv[0], *options], Claim(args.inputs), custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
