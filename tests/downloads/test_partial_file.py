"""A partial file has one writer, and becomes the file in one step."""

import asyncio
import fcntl
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from luma_async import Downloader, download
from luma_async.downloads.partial_file import (
    PARTS_FOLDER,
    PartialFile,
    open_partial_file,
    remove_stale,
)
from luma_async.downloads.resuming import PartRecord
from tests.downloads.video_store import BODY, HERE, VideoStore, files, open_part, parts
from tests.worker.worker_processes import until

RECORD = PartRecord("link", '"one"', len(BODY))


async def test_a_download_cancelled_during_a_write_is_resumed(
    store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cancellation does not wait for the writing thread, whose file stays open until then."""
    real, writing, may_write, written = (
        os.pwrite,
        asyncio.Event(),
        threading.Event(),
        asyncio.Event(),
    )
    loop = asyncio.get_running_loop()
    was_allowed: list[bool] = []

    def slow(file: int, data: Any, offset: int) -> int:
        loop.call_soon_threadsafe(writing.set)
        was_allowed.append(may_write.wait(10))
        try:
            return real(file, data, offset)
        finally:
            loop.call_soon_threadsafe(written.set)

    monkeypatch.setattr(os, "pwrite", slow)
    async with Downloader(tmp_path, allow_hosts=HERE) as downloader:
        task = asyncio.create_task(downloader.download(store.video()))
        await writing.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        may_write.set()
        await written.wait()
        assert all(was_allowed), "the loop was blocked for as long as the disk"
        monkeypatch.setattr(os, "pwrite", real)
        await until(lambda: _is_free(tmp_path))
        assert (await downloader.download(store.video())).read_bytes() == BODY
        assert str(store.ranges[-1]).startswith("bytes=")


def _is_free(directory: Path) -> bool:
    """Return whether the only partial file is not locked."""
    part = open_partial_file(directory, "a.mp4")
    if part is not None:
        part.close()
    return part is not None


async def test_a_symbolic_link_in_place_of_a_partial_file_is_not_followed(
    store: VideoStore, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / PARTS_FOLDER).mkdir()
    (tmp_path / PARTS_FOLDER / "a.mp4").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        await download(store.video(), tmp_path, allow_hosts=HERE)
    assert victim.read_bytes() == b"precious"


@pytest.mark.virtual_time
async def test_a_file_that_another_download_writes_is_waited_for(
    store: VideoStore, tmp_path: Path
) -> None:
    other = open_part(tmp_path)
    other.begin(RECORD)
    other.write(BODY)
    task = asyncio.create_task(download(store.video(), tmp_path, allow_hosts=HERE))
    await asyncio.sleep(10.0)
    assert not task.done()
    other.finish()
    assert (await task).read_bytes() == BODY
    assert not store.seen
    assert files(tmp_path) == ["a.mp4"]


@pytest.mark.virtual_time
async def test_after_another_download_gave_up_the_file_is_downloaded(
    store: VideoStore, tmp_path: Path
) -> None:
    other = open_part(tmp_path)
    task = asyncio.create_task(download(store.video(), tmp_path, allow_hosts=HERE))
    await asyncio.sleep(10.0)
    other.close()
    assert (await task).read_bytes() == BODY


def test_a_locked_file_is_not_opened(tmp_path: Path) -> None:
    part = open_part(tmp_path)
    assert open_partial_file(tmp_path, "a.mp4") is None
    part.close()
    open_part(tmp_path).close()
    assert parts(tmp_path) == []


def test_a_partial_file_that_took_the_place_of_a_removed_one_is_kept(tmp_path: Path) -> None:
    removed = open_part(tmp_path)
    (tmp_path / PARTS_FOLDER / "a.mp4").unlink()
    part = open_part(tmp_path)
    part.begin(RECORD)
    part.write(BODY)
    removed.close()
    assert parts(tmp_path) == ["a.mp4", "a.mp4.json"]
    assert part.finish().read_bytes() == BODY


def test_a_copy_of_the_file_in_a_forked_process_does_not_keep_the_lock(tmp_path: Path) -> None:
    part = open_part(tmp_path)
    copy = os.dup(part._file)  # pyright: ignore[reportPrivateUsage]
    part.write(b"x")
    part.close()
    open_part(tmp_path).discard()
    os.close(copy)


def test_a_partial_file_that_is_finished_before_its_lock_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, real = open_part(tmp_path), fcntl.flock
    first.write(BODY)

    def late(file: int, how: int) -> None:
        monkeypatch.undo()
        first.finish()
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    assert open_partial_file(tmp_path, "a.mp4") is None
    assert (tmp_path / "a.mp4").read_bytes() == BODY


def test_a_folder_that_is_removed_meanwhile_is_created_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def late(*arguments: Any) -> int:
        monkeypatch.undo()
        remove_stale(tmp_path)
        return real(*arguments)

    monkeypatch.setattr(os, "open", late)
    open_part(tmp_path).close()


def test_a_folder_that_cannot_be_created_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / PARTS_FOLDER).symlink_to(tmp_path / "nowhere")
    with pytest.raises(OSError, match="cannot be created; remove"):
        open_partial_file(tmp_path, "a.mp4")


def test_nothing_raises_after_the_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = open_part(tmp_path)
    part.begin(RECORD)
    part.write(BODY)
    real = os.replace

    def move_and_remove_the_folder(source: Any, target: Any) -> None:
        real(source, target)
        (tmp_path / PARTS_FOLDER / "a.mp4.json").unlink()
        (tmp_path / PARTS_FOLDER).rmdir()

    monkeypatch.setattr(os, "replace", move_and_remove_the_folder)
    monkeypatch.setattr(Path, "replace", os.replace)
    assert part.finish().read_bytes() == BODY
    assert files(tmp_path) == ["a.mp4"]


def test_killed_at_any_moment_no_bytes_belong_to_the_record_of_another_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = open_part(tmp_path)
    part.begin(RECORD)
    part.write(BODY[:100])

    def killed(file: int, size: int) -> None:
        raise OSError("killed")

    monkeypatch.setattr(os, "ftruncate", killed)
    with pytest.raises(OSError, match="killed"):
        part.begin(PartRecord("link", '"two"', len(BODY)))
    part.close()
    again = open_part(tmp_path)
    assert (again.record, again.size) == (RECORD, 100)
    again.discard()


def test_all_bytes_are_on_the_disk_before_the_file_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss of power leaves no file that looks complete and is not."""
    part = open_part(tmp_path)
    part.begin(RECORD)
    part.write(BODY)
    steps: list[tuple[int, bool]] = []
    real = os.fsync

    def fsync(file: int) -> None:
        steps.append((os.fstat(file).st_ino, (tmp_path / "a.mp4").exists()))
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    path = part.finish()
    assert (path.stat().st_ino, False) in steps, "the file, under its old name"
    assert (tmp_path.stat().st_ino, True) in steps, "the directory, with the new name"


def test_a_record_is_kept_beside_its_bytes(tmp_path: Path) -> None:
    part = open_part(tmp_path)
    part.begin(RECORD)
    part.write(BODY[:100])
    part.close()
    again = open_part(tmp_path)
    assert (again.record, again.size, again.is_whole) == (RECORD, 100, False)
    again.begin(None)
    assert (again.record, again.size) == (None, 0)
    again.close()
    assert parts(tmp_path) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"source": 1}', "\0"])
def test_a_record_that_was_not_written_completely_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / PARTS_FOLDER).mkdir()
    (tmp_path / PARTS_FOLDER / "a.mp4").write_bytes(BODY)
    (tmp_path / PARTS_FOLDER / "a.mp4.json").write_text(text)
    part = open_part(tmp_path)
    assert part.record is None
    assert not part.is_whole
    part.close()


def test_what_no_download_needs_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / PARTS_FOLDER
    remove_stale(tmp_path)
    folder.mkdir()
    (tmp_path / "saved.mp4").touch()
    for name in ("gone.mp4.json", f"saved.mp4.{'0' * 16}", f"open.mp4.{'0' * 16}", "b.mp4"):
        (folder / name).touch()
    (folder / "b.mp4.json").touch()
    remove_stale(tmp_path)
    assert parts(tmp_path) == ["b.mp4", "b.mp4.json", f"open.mp4.{'0' * 16}"]
    for name in parts(tmp_path):
        (folder / name).unlink()
    remove_stale(tmp_path)
    assert files(tmp_path) == ["saved.mp4"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_each_way_to_leave_a_partial_file_closes_its_descriptor(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for leave in (PartialFile.finish, PartialFile.close, PartialFile.discard):
        part = open_part(tmp_path, f"{leave.__name__}.mp4")
        part.write(BODY)
        assert len(os.listdir("/proc/self/fd")) > before
        leave(part)
        assert len(os.listdir("/proc/self/fd")) == before
    open_part(tmp_path, "empty.mp4").close()
    assert len(os.listdir("/proc/self/fd")) == before
