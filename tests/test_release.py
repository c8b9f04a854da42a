"""The script of a release: what it refuses, and that it stops before the upload."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.subprocesses import ROOT

CHECKS = """
mkdir -p "$DIST"
printf wheel > "$DIST/luma_async-1.2.0-py3-none-any.whl"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a repository with this script, and checks that only write a file."""
    if shutil.which("git") is None:
        pytest.skip("git: apt-get install git")
    for folder in (".ci", "luma_async", "docs"):
        (tmp_path / folder).mkdir()
    shutil.copy(ROOT / ".ci" / "release", tmp_path / ".ci")
    (tmp_path / ".ci" / "run").write_text(CHECKS)
    (tmp_path / "luma_async" / "_version.py").write_text('__version__ = "1.2.0"\n')
    (tmp_path / "docs" / "changelog.md").write_text("## 1.2.0 - 2026-12-01\n")
    (tmp_path / ".gitignore").write_text("/dist/\n")
    git(tmp_path, "init", "-q")
    commit(tmp_path)
    return tmp_path


def git(project: Path, *arguments: str) -> None:
    names = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *names, *arguments], cwd=project, check=True)


def commit(project: Path) -> None:
    git(project, "add", "--all")
    git(project, "commit", "-q", "-m", "x")


def release(project: Path) -> tuple[int, str]:
    ran = subprocess.run(
        ["bash", ".ci/release"], cwd=project, capture_output=True, text=True, check=False
    )
    return ran.returncode, ran.stdout + ran.stderr


def test_a_release_ends_with_checksums_and_the_command_that_would_upload(project: Path) -> None:
    (project / "dist").mkdir()
    (project / "dist" / "old.whl").touch()
    code, printed = release(project)
    assert code == 0
    assert hashlib.sha256(b"wheel").hexdigest() in printed
    assert "old.whl" not in printed
    assert printed.endswith("nothing is uploaded; to upload: twine upload dist/*\n")


def test_a_release_without_its_checks_is_none(project: Path) -> None:
    (project / ".ci" / "run").write_text("exit 3")
    commit(project)
    code, printed = release(project)
    assert code == 3
    assert "ready" not in printed


def test_a_release_of_what_is_not_committed_is_refused(project: Path) -> None:
    (project / "new.py").touch()
    assert release(project) == (1, "the working tree has changes; commit or stash them\n")


def test_a_release_without_a_section_in_the_changelog_is_refused(project: Path) -> None:
    (project / "docs" / "changelog.md").write_text("## Unreleased\n")
    commit(project)
    code, printed = release(project)
    assert code == 1
    assert "name the unreleased section so" in printed


def test_a_version_whose_tag_is_another_commit_is_refused(project: Path) -> None:
    git(project, "tag", "v1.2.0")
    assert release(project)[0] == 0
    (project / "new.py").touch()
    commit(project)
    code, printed = release(project)
    assert code == 1
    assert "raise the version" in printed
