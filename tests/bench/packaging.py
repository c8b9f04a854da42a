"""What is shipped: the wheel and the sdist, their sizes and how many files they hold.

    python -m tests.bench.packaging

Needs `build`; the wheel is made from the sdist.
"""

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).parent.parent.parent


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "build", "--outdir", scratch, str(ROOT)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (wheel,) = Path(scratch).glob("*.whl")
        (sdist,) = Path(scratch).glob("*.tar.gz")
        with ZipFile(wheel) as files:
            sizes = [info.file_size for info in files.infolist()]
        print(f"{wheel.name}: {wheel.stat().st_size:,} bytes, {len(sizes)} files", end=", ")
        print(f"{sum(sizes):,} bytes installed")
        with tarfile.open(sdist) as files:
            print(f"{sdist.name}: {sdist.stat().st_size:,} bytes, {len(files.getnames())} files")


if __name__ == "__main__":
    main()
