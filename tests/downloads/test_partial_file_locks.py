"""A partial file under a race: who owns it, what is closed, and what is left on the disk."""

import asyncio
import fcntl
import os
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest

from luma_async import Generation, State, Video, download
from luma_async.downloads.partial_file import PARTS_FOLDER, open_partial_file, remove_stale
from luma_async.downloads.resuming import PartRecord
from tests.downloads.video_store import BODY, open_part, parts
from tests.subprocesses import PATIENCE

RECORD = PartRecord("link", '"one"', len(BODY))
DONE = Generation(
    id="a", state=State.COMPLETED, video=Video(download_url="https://cdn.example/v.mp4")
)
UNSIZED = PartRecord("link", '"one"', None)
FILES = Path("/proc/self/fd")
needs_proc = pytest.mark.skipif(not FILES.exists(), reason="needs /proc")


def open_files(directory: Path) -> list[str]:
    """Return the paths in a directory that this process has open, one for each descriptor."""
    paths: list[str] = []
    for file in FILES.iterdir():
        with suppress(FileNotFoundError):  # the descriptor of this very loop
            paths.append(os.readlink(file))
    return sorted(path for path in paths if path.startswith(str(directory)))


def part_of(directory: Path) -> Path:
    return directory / PARTS_FOLDER / "a.mp4"


def before_the_lock(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Run an action once, between the opening of a file and its lock."""
    real = fcntl.flock

    def late(file: int, how: int) -> None:
        monkeypatch.undo()
        action()
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", late)


def test_a_partial_file_that_is_discarded_before_its_lock_is_created_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_the_lock(monkeypatch, open_part(tmp_path).discard)
    part = open_part(tmp_path)
    part.write(BODY)
    assert part.finish().read_bytes() == BODY


def test_a_partial_file_that_took_the_place_of_another_before_its_lock_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_part(tmp_path)

    def replace() -> None:
        first.discard()
        other = open_part(tmp_path)
        other.write(b"others")
        other.close()

    before_the_lock(monkeypatch, replace)
    part = open_part(tmp_path)
    assert part.size == 6
    part.discard()


def test_a_symbolic_link_that_took_the_place_of_a_partial_file_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace() -> None:
        part_of(tmp_path).rename(tmp_path / "victim")
        part_of(tmp_path).symlink_to(tmp_path / "victim")

    before_the_lock(monkeypatch, replace)
    with pytest.raises(OSError, match="symbolic links"):
        open_partial_file(tmp_path, "a.mp4")


def test_a_symbolic_link_that_took_the_place_of_a_partial_file_is_not_deleted(
    tmp_path: Path,
) -> None:
    part = open_part(tmp_path)
    part_of(tmp_path).rename(tmp_path / "victim")
    part_of(tmp_path).symlink_to(tmp_path / "victim")
    part.close()
    assert parts(tmp_path) == ["a.mp4"]


def test_an_error_of_the_lock_is_an_os_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OSError(37, "No locks available")

    before_the_lock(monkeypatch, refuse)
    with pytest.raises(OSError, match="No locks available"):
        open_partial_file(tmp_path, "a.mp4")


@needs_proc
def test_no_descriptor_is_left_open_whatever_becomes_of_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OSError(37, "No locks available")

    part = open_part(tmp_path)
    before = open_files(tmp_path)
    assert before == [str(part_of(tmp_path))]
    assert open_partial_file(tmp_path, "a.mp4") is None
    before_the_lock(monkeypatch, refuse)
    with pytest.raises(OSError, match="No locks available"):
        open_partial_file(tmp_path, "a.mp4")
    part.begin(RECORD)
    part.update(RECORD)
    assert open_files(tmp_path) == before
    part.discard()
    (tmp_path / "a.mp4").write_bytes(BODY)
    assert open_partial_file(tmp_path, "a.mp4") is None, "the file is there"
    assert open_files(tmp_path) == []
    assert parts(tmp_path) == []


def test_the_first_descriptor_of_a_process_without_stdin_is_closed(tmp_path: Path) -> None:
    stdin = os.dup(0)
    os.close(0)
    try:
        part = open_part(tmp_path)
        assert os.path.samestat(os.fstat(0), part_of(tmp_path).stat())
        part.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(0)
    finally:
        os.dup2(stdin, 0)
        os.close(stdin)


def test_a_write_that_begins_after_the_end_writes_nothing_and_returns(tmp_path: Path) -> None:
    """A cancelled download closes the file before a thread has begun to write."""
    part = open_part(tmp_path)
    part.write(BODY)
    part.close()
    thread = threading.Thread(target=part.write, args=(BODY,), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert part_of(tmp_path).read_bytes() == BODY


@pytest.mark.virtual_time
@pytest.mark.parametrize(("roll", "first_delay"), [(0.0, 0.025), (1.0, 0.05)])
async def test_a_locked_file_is_tried_again_with_growing_delays_up_to_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, roll: float, first_delay: float
) -> None:
    times: list[float] = []

    def locked(*_: object) -> None:
        times.append(asyncio.get_running_loop().time())
        if len(times) == 8:
            (tmp_path / "a.mp4").write_bytes(BODY)

    monkeypatch.setattr("luma_async.downloads.downloader.open_partial_file", locked)
    monkeypatch.setattr("luma_async.downloads.downloader.is_saved", Path.exists)
    monkeypatch.setattr("random.random", lambda: roll)
    assert await download(DONE, tmp_path) == tmp_path / "a.mp4"
    delays = [after - before for before, after in pairwise(times)]
    expected = [first_delay * factor for factor in (1, 2, 4, 8, 16, 20, 20)]
    assert delays == pytest.approx(expected, rel=0.2, abs=0.01)


def test_the_bytes_of_another_version_are_removed_before_the_first_new_one(tmp_path: Path) -> None:
    part = open_part(tmp_path)
    part.begin(RECORD)
    part.write(BODY)
    part.begin(PartRecord("link", '"two"', len(BODY)))
    assert part_of(tmp_path).stat().st_size == 0
    part.close()


def test_what_is_learned_of_the_same_bytes_is_kept_for_a_later_download(tmp_path: Path) -> None:
    part = open_part(tmp_path)
    part.begin(UNSIZED)
    part.write(BODY[:100])
    part.update(RECORD)
    part.close()
    again = open_part(tmp_path)
    assert (again.record, again.size) == (RECORD, 100)
    again.discard()


def test_a_complete_file_of_unknown_size_that_cannot_be_moved_is_known_to_be_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = open_part(tmp_path)
    part.begin(UNSIZED)
    part.write(BODY)
    synced: list[int] = []
    real = os.fsync

    def fsync(file: int) -> None:
        synced.append(os.fstat(file).st_ino)
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    (tmp_path / "a.mp4").mkdir()
    with pytest.raises(Exception, match="is a directory"):
        part.finish()
    assert synced == [part_of(tmp_path).stat().st_ino, record_of(tmp_path).stat().st_ino]
    part.close()
    (tmp_path / "a.mp4").rmdir()
    again = open_part(tmp_path)
    assert again.is_whole
    assert again.finish().read_bytes() == BODY
    assert parts(tmp_path) == [], "the record is removed"


def record_of(directory: Path) -> Path:
    return directory / PARTS_FOLDER / "a.mp4.json"


@pytest.mark.parametrize("umask", [0o000, 0o027])
def test_the_umask_decides_who_may_read_a_file(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        part = open_part(tmp_path)
        part.begin(RECORD)
    finally:
        os.umask(before)
    for path in (part_of(tmp_path), record_of(tmp_path)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    part.discard()


def test_a_stale_record_that_another_process_removes_meanwhile_does_not_keep_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / PARTS_FOLDER).mkdir()
    for name in ("a.mp4.json", "b.mp4.json"):
        (tmp_path / PARTS_FOLDER / name).touch()
    real = Path.exists

    def exists(path: Path) -> bool:
        monkeypatch.undo()
        path.with_name(f"{path.name}.json").unlink()
        return real(path)

    monkeypatch.setattr(Path, "exists", exists)
    remove_stale(tmp_path)
    assert not (tmp_path / PARTS_FOLDER).exists()
