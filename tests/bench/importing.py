"""What importing costs: luma_async beside aiohttp, msgspec and anyio alone.

    python -m tests.bench.importing [--runs N]

Each import is a process of its own; the two take turns, with bytecode that is compiled before the
first. The figure is CPU ms of the process less those of an interpreter that imports nothing,
medians, and their quotient.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from statistics import median

NOTHING = "pass"
PARTS = "import aiohttp, msgspec, anyio"
OURS = "import luma_async"


def cpu(code: str, env: Mapping[str, str]) -> float:
    """Return the CPU seconds of an interpreter that runs the code."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], env=env, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=25)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        env = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        for code in (NOTHING, PARTS, OURS):
            cpu(code, env)
        runs = [[cpu(code, env) for code in (NOTHING, PARTS, OURS)] for _ in range(args.runs)]
    nothing, parts, ours = (1e3 * median(column) for column in zip(*runs, strict=True))
    print(f"{PARTS}: {parts - nothing:.0f} ms; {OURS}: {ours - nothing:.0f} ms", end="; ")
    print(f"ratio {(ours - nothing) / (parts - nothing):.3f}")


if __name__ == "__main__":
    main()
