"""Responses that no relay would send: only values or errors of this package may come out of them.

    python -m tests.bench.fuzz [--count N] [--seed N]

Each input is a body that relays were seen to send, with some random changes: a third of them of its
bytes; the others take the body as JSON and change a value, a key or a place in it, so that they
come past the parser. All depends on the seed alone. The claims are those of
`tests/decode_invariants.py`; an input that breaks one is printed with its traceback.

    pip install atheris
    python -m tests.bench.fuzz --atheris [--count N] [--seed N] [--corpus FOLDER]

Here coverage leads the way (atheris, which is libFuzzer), and the changes of bytes are its own.
FOLDER, `.fuzz` by default, keeps what was found; an input that breaks a claim is written there as
`crash-…`.
"""

import argparse
import json
import logging
import random
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any, cast

DATA = Path(__file__).parents[1] / "data"
SAMPLES = [path.read_bytes() for path in sorted(DATA.glob("[gt]*.json"))]
MAX_SIZE = 8192  # bytes of an input
MAX_POOL = 2000  # inputs that are changed again
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


def mutate(data: bytes, dice: random.Random, change_bytes: Callable[[bytes], bytes]) -> bytes:
    """Change an input: its bytes, or its body as JSON."""
    if dice.random() < 1 / 3:
        return change_bytes(data)[:MAX_SIZE]
    try:
        plain = json.loads(data[2:])
    except (ValueError, RecursionError):
        plain = json.loads(dice.choice(SAMPLES))
    for _ in range(dice.randint(1, 3)):
        plain = changed(plain, dice)
    body = json.dumps(plain, ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")
    return (data[:2] + body)[:MAX_SIZE]


def with_changed_bytes(data: bytes, dice: random.Random) -> bytes:
    """Return bytes of which some are removed, replaced, repeated or inserted; or other headers."""
    for _ in range(dice.randint(1, 4)):
        start = dice.randrange(len(data) + 1)
        end = start + dice.choice((1, 2, 4, 16, 200))
        match dice.randrange(5):
            case 0:
                put = b""
            case 1:
                put = dice.randbytes(end - start)
            case 2:
                put = 2 * data[start:end]
            case 3:
                put = dice.choice(SAMPLES)[start:end]
            case _:
                put = dice.choice(VALUES).encode() + data[start:end]
        data = data[:start] + put + data[end:]
    return dice.randbytes(2) + data[2:] if dice.random() < 0.3 else data


def changed(plain: Any, dice: random.Random) -> Any:
    """Return the value with one change somewhere in it."""
    inside = plain and dice.random() < 0.8
    if inside and isinstance(plain, dict):
        return changed_object(cast("dict[str, Any]", plain), dice)
    if inside and isinstance(plain, list):
        return changed_array(cast("list[object]", plain), dice)
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


def changed_array(plain: list[object], dice: random.Random) -> Any:
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
    """Checks inputs, counts what came out, and reports the counts after the last one."""

    def __init__(self, count: int) -> None:
        # Not imported before: atheris has to instrument the package first.
        self.check: Callable[[int, Mapping[str, str], bytes], object] = import_module(
            "tests.decode_invariants"
        ).check
        self.count = count
        self.found: Counter[str] = Counter()
        self.begun = perf_counter()

    def __call__(self, data: bytes) -> None:
        self.check_input(data)

    def check_input(self, data: bytes) -> str:
        """Check an input; return the name of what came out."""
        status = STATUSES[(data[0] - 128) % len(STATUSES)] if data and data[0] >= 128 else 200
        headers = HEADERS[data[1] % len(HEADERS)] if len(data) > 1 else {}
        name = type(self.check(status, headers, data[2:])).__name__
        self.found[name] += 1
        if self.found.total() == self.count:
            self.report()
        return name

    def report(self) -> None:
        print(f"{self.count:,} inputs in {perf_counter() - self.begun:.0f} s, none broke a claim:")
        for name, count in self.found.most_common():
            print(f"{count:>10,} {name}")
        sys.stdout.flush()


def fuzz(count: int, seed: int) -> None:
    """Check inputs that depend on the seed alone; raise the error of the first that fails."""
    dice, claim, pool = random.Random(seed), Claim(count), seeds()
    for number in range(count):
        data = mutate(dice.choice(pool), dice, lambda data: with_changed_bytes(data, dice))
        try:
            name = claim.check_input(data)
        except BaseException:
            print(f"input {number} of seed {seed} breaks a claim: {data!r}")
            raise
        if name == "Response" and len(pool) < MAX_POOL:
            pool.append(data)


def fuzz_by_coverage(count: int, seed: int, corpus: Path) -> None:
    """Let atheris choose the inputs; it ends the process."""
    atheris: Any = import_module("atheris")  # has no types
    with atheris.instrument_imports(include=["luma_async"], enable_loader_override=False):
        claim = Claim(count)
    corpus.mkdir(exist_ok=True)
    for number, body in enumerate(seeds()):
        Path(corpus, f"seed-{number}").write_bytes(body)

    def mutator(data: bytes, max_size: int, seed: int) -> bytes:
        return mutate(data, random.Random(seed), lambda raw: bytes(atheris.Mutate(raw, max_size)))

    options = [f"-runs={count}", f"-seed={seed}", f"-artifact_prefix={corpus}/"]
    options += [f"-max_len={MAX_SIZE}", "-timeout=10", "-verbosity=0", str(corpus)]
    atheris.Setup([sys.argv[0], *options], claim, custom_mutator=mutator)
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, help="inputs: 20,000; with --atheris a million")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--atheris", action="store_true", help="let coverage lead the way")
    parser.add_argument("--corpus", type=Path, default=Path(".fuzz"))
    args = parser.parse_args()
    logging.disable()
    if args.atheris:
        fuzz_by_coverage(args.count or 1_000_000, args.seed, args.corpus)
    else:
        fuzz(args.count or 20_000, args.seed)


if __name__ == "__main__":
    main()
