"""How many of a million planted secrets are left after redaction: none may be.

    python -m tests.bench.redaction [--secrets N] [--seed N]

Each response has secrets in every place (tests/recording/planted_secrets.py), and is redacted as a
recording does it.
"""

import argparse
import logging
import random
import time

from tests.recording.planted_secrets import left_over


def main() -> None:
    logging.getLogger("luma_async").setLevel(logging.ERROR)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--secrets", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    begun, planted, responses = time.perf_counter(), 0, 0
    left: list[str] = []
    while planted < args.secrets:
        count, found = left_over(random.Random(f"{args.seed} {responses}"))
        planted += count
        responses += 1
        left += found
    seconds = time.perf_counter() - begun
    print(f"{planted:,} secrets in {responses:,} responses, {len(left)} left, {seconds:.0f} s")
    for secret in left[:20]:
        print(repr(secret))


if __name__ == "__main__":
    main()
