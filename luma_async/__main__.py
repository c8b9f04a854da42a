"""`python -m luma_async` is the command `luma-async`."""

import sys

from luma_async.cli import main

if __name__ == "__main__":  # pragma: no cover - a process of its own
    sys.exit(main())
