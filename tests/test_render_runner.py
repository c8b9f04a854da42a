"""A run of `render` in virtual time: retries, pauses, and a journal that cannot be written."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest

from luma_async import LumaSession
from luma_async.cli.display.output import output
from luma_async.cli.display.progress import Progress
from luma_async.cli.rendering.journal import Journal
from luma_async.cli.rendering.plan import Entry, Status, plan
from luma_async.cli.rendering.prompts import PromptRow
from luma_async.cli.rendering.runner import Rendering
from luma_async.downloads.downloader import Downloader
from luma_async.protocol.submissions import Submission
from luma_async.testing import FakeRelay, Reply
from tests.render_journals import fail_one_write

pytestmark = pytest.mark.virtual_time

ROWS = [PromptRow(f"{n}-1", n, Submission(user_prompt=f"prompt {n}")) for n in range(1, 7)]


class FillingJournal(Journal):
    """A journal whose disk is full after a number of writes."""

    room = 10_000

    def write(self, entry: Entry) -> None:
        self.room -= 1
        if self.room < 0:
            raise OSError("the journal cannot be written")
        super().write(entry)


@pytest.fixture
async def relay() -> AsyncIterator[FakeRelay]:
    async with FakeRelay(durations=(5, 60), fails=1.0) as relay:
        yield relay


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[FillingJournal]:
    with FillingJournal(tmp_path, "https://relay.example") as journal:
        yield journal


def rendering_of(journal: Journal) -> Rendering:
    planned = plan(ROWS, journal.read())
    return Rendering(planned, journal, Progress(), output(as_json=True, alone=False), concurrency=2)


async def render(relay: FakeRelay, journal: Journal, folder: Path) -> None:
    rendering = rendering_of(journal)
    async with LumaSession(relay.url, api_key=relay.api_key) as luma:
        await rendering.run(luma, Downloader(folder))


def statuses(journal: Journal) -> list[Status]:
    return [one.status for one in journal.read().values()]


async def test_rows_are_submitted_as_others_end_and_each_result_is_printed_and_in_the_journal(
    relay: FakeRelay,
    journal: FillingJournal,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    await render(relay, journal, tmp_path)
    assert statuses(journal) == [Status.FAILED] * 6
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(one["id"] for one in printed) == sorted(relay.created)
    ends = sorted(task.ends_at or 0.0 for task in relay.tasks.values())
    starts = sorted(task.submitted_at for task in relay.tasks.values())
    for start, end in zip(starts[2:], ends, strict=False):
        assert start >= end, "at most two tasks are open"


async def test_a_relay_without_room_is_asked_until_it_takes_the_rows(
    relay: FakeRelay, journal: FillingJournal, tmp_path: Path
) -> None:
    relay.submit_faults = {"saturated": 1.0}
    running = asyncio.create_task(render(relay, journal, tmp_path))
    await asyncio.sleep(900)
    assert relay.created == []
    assert set(statuses(journal)) <= {Status.NEW, Status.SENT}
    assert relay.requests < 400
    relay.submit_faults = {}
    await running
    assert len(relay.created) == 6


async def test_a_long_retry_after_is_waited_for_without_spinning(
    relay: FakeRelay, journal: FillingJournal, tmp_path: Path
) -> None:
    relay.reply(Reply(429, headers={"Retry-After": "550"}), on="submit")
    await render(relay, journal, tmp_path)
    first, second = (record.at for record in relay.log[:2])
    assert second - first >= 550
    assert len(relay.created) == 6


async def test_a_row_that_the_journal_has_as_sent_is_sent_though_the_run_is_interrupted(
    relay: FakeRelay, journal: FillingJournal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the row would be one that may have been submitted, and was not."""
    running = asyncio.create_task(render(relay, journal, tmp_path))
    loop, is_leaving, real = asyncio.get_running_loop(), threading.Event(), journal.write

    async def interrupt() -> None:
        running.cancel()
        for _ in range(20):
            await asyncio.sleep(0)
        is_leaving.set()

    def write(entry: Entry) -> None:
        if entry.status is Status.SENT and not is_leaving.is_set():
            asyncio.run_coroutine_threadsafe(interrupt(), loop)
            assert is_leaving.wait(10)
        real(entry)

    monkeypatch.setattr(journal, "write", write)
    with pytest.raises(asyncio.CancelledError):
        await running
    found = statuses(journal)
    assert set(found) <= {Status.NEW, Status.OPEN}
    assert found.count(Status.OPEN) == len(relay.created) > 0


@pytest.mark.parametrize("kind", ["asyncio", "anyio"])
async def test_an_entry_that_waits_for_the_disk_is_written_though_its_writer_is_cancelled(
    journal: FillingJournal, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """As the end of a task while another entry is being written, and ctrl-C is pressed."""
    rendering, disk, real = rendering_of(journal), threading.Event(), journal.write
    slow, waiting = list(rendering.entries.values())[:2]

    def write(entry: Entry) -> None:
        assert disk.wait(10)
        real(entry)

    async def record(scope: anyio.CancelScope) -> None:
        with scope:
            await rendering.record(waiting.after_refusal(Status.REFUSED, "no"))

    monkeypatch.setattr(journal, "write", write)
    first = asyncio.create_task(rendering.record(slow.after_refusal(Status.REFUSED, "no")))
    scope = anyio.CancelScope()
    second = asyncio.create_task(record(scope))
    for _ in range(5):
        await asyncio.sleep(0)
    if kind == "asyncio":
        second.cancel()
    else:
        scope.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert second.done() is (kind == "asyncio"), "a scope of anyio ends after the write"
    disk.set()
    await asyncio.wait([first, second])
    await rendering.record(slow.after_refusal(Status.NEW))
    assert statuses(journal)[:2] == [Status.NEW, Status.REFUSED]


async def test_answers_that_come_during_an_interruption_are_recorded_without_an_error(
    journal: FillingJournal, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with FakeRelay(latency=5.0) as relay:
        running = asyncio.create_task(render(relay, journal, tmp_path))
        await asyncio.sleep(1.0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert statuses(journal)[:2] == [Status.OPEN] * 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "waiting for the answers to 2 submissions" in line


async def test_an_interruption_during_a_long_retry_after_ends_the_run_and_sends_nothing(
    relay: FakeRelay, journal: FillingJournal, tmp_path: Path
) -> None:
    relay.reply(Reply(429, headers={"Retry-After": "550"}), on="submit")
    running = asyncio.create_task(render(relay, journal, tmp_path))
    await asyncio.sleep(10.0)
    sent = relay.requests
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert asyncio.get_running_loop().time() < 20.0
    assert relay.requests == sent


async def test_an_interruption_ends_the_downloads(journal: FillingJournal, tmp_path: Path) -> None:
    async with (
        FakeRelay(durations=(5, 5)) as relay,
        LumaSession(relay.url, api_key=relay.api_key) as luma,
        Downloader(tmp_path, allow_hosts=["127.0.0.1"]) as downloader,
    ):
        relay.reply(*[Reply(delay=600.0)] * 2, on="media")
        running = asyncio.create_task(rendering_of(journal).run(luma, downloader))
        await asyncio.sleep(8.0)  # other tasks are open
        while len(relay.media_log) < 2:  # noqa: ASYNC110 - threads open files: the clock stands still
            await asyncio.sleep(0)
        saves = [one for one in asyncio.all_tasks() if "VideoSaves" in repr(one)]
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert saves
        assert all(one.cancelled() for one in saves)
        assert not [one for one in asyncio.all_tasks() if "VideoSaves" in repr(one)]
    assert asyncio.get_running_loop().time() < 20.0
    assert Status.OPEN in statuses(journal)


async def test_after_an_interruption_a_row_that_was_not_taken_is_not_sent_again(
    journal: FillingJournal, tmp_path: Path
) -> None:
    async with FakeRelay() as relay:
        relay.reply(*[Reply(429, delay=5.0)] * 2, on="submit")
        running = asyncio.create_task(render(relay, journal, tmp_path))
        await asyncio.sleep(1.0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert relay.created == []
        assert set(statuses(journal)) == {Status.NEW}
        assert relay.requests == 2


async def test_after_a_refusal_of_all_rows_those_in_flight_are_awaited(
    journal: FillingJournal, tmp_path: Path
) -> None:
    async with FakeRelay(latency=5.0, durations=(5, 60), fails=1.0) as relay:
        relay.reply(Reply(401, delay=1.0), on="submit")
        await render(relay, journal, tmp_path)
        assert len(relay.created) == 1
    assert sorted(statuses(journal)) == sorted([Status.FAILED, *[Status.NEW] * 5])


async def test_a_result_that_cannot_be_recorded_is_an_error_of_the_run(
    journal: FillingJournal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = journal.write

    def write(entry: Entry) -> None:
        if entry.status is Status.COMPLETED:
            raise OSError("the journal cannot be written")
        real(entry)

    monkeypatch.setattr(journal, "write", write)
    async with FakeRelay(durations=(5, 60)) as relay, Downloader(tmp_path) as downloader:
        rendering = Rendering(
            plan(ROWS[:1], {}),
            journal,
            Progress(),
            output(as_json=True, alone=False),
            concurrency=2,
        )
        async with LumaSession(relay.url, api_key=relay.api_key) as luma:
            with pytest.raises(OSError, match="cannot be written"):
                await rendering.run(luma, downloader)
    assert statuses(journal) == [Status.OPEN]


@pytest.mark.parametrize("room", range(8))
async def test_a_full_disk_ends_the_run_and_nothing_is_sent_that_the_journal_does_not_have(
    relay: FakeRelay, journal: FillingJournal, tmp_path: Path, room: int
) -> None:
    journal.room = room
    with pytest.raises(OSError, match="cannot be written"):
        await render(relay, journal, tmp_path)
    known = {one.task_id for one in journal.read().values()}
    unknown = [one for one in journal.read().values() if one.status is Status.SENT]
    assert len([task for task in relay.created if task not in known]) <= len(unknown)
    journal.room = 10_000
    await render(relay, journal, tmp_path)
    assert len(relay.created) + len(unknown) >= 6
    prompts = [relay.tasks[task_id].prompt for task_id in relay.created]
    assert len(prompts) == len(set(prompts)), "nothing is paid for twice"


async def test_a_full_disk_ends_the_run_though_other_tasks_are_open(
    journal: FillingJournal, tmp_path: Path
) -> None:
    journal.room = 3  # both rows as sent, one task
    async with FakeRelay(durations=(600, 600)) as relay:
        with pytest.raises(OSError, match="cannot be written"):
            await render(relay, journal, tmp_path)
    assert asyncio.get_running_loop().time() < 60.0
    assert statuses(journal)[:2] == [Status.OPEN, Status.SENT]


async def test_the_answers_after_a_write_that_failed_are_recorded_without_an_error(
    journal: FillingJournal,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fail_one_write(monkeypatch, journal, Status.OPEN)
    async with FakeRelay() as relay:
        for seconds, name in ((5.0, b"task-a"), (6.0, b"task-b")):
            relay.reply(Reply(200, b'{"id":"%b"}' % name, delay=seconds), on="submit")
        with pytest.raises(OSError, match="is task task-a"):
            await render(relay, journal, tmp_path)
    assert statuses(journal)[:2] == [Status.SENT, Status.OPEN]
    assert "closed" not in capsys.readouterr().err


async def test_each_task_that_a_full_disk_cannot_take_is_named(
    relay: FakeRelay, journal: FillingJournal, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal.room = 2
    for name in (b"task-a", b"task-b"):
        relay.reply(Reply(200, b'{"id":"%b"}' % name, delay=5.0), on="submit")
    with pytest.raises(OSError, match="cannot be written") as raised:
        await render(relay, journal, tmp_path)
    reported = f"{raised.value} {capsys.readouterr().err}"
    assert "is task task-a" in reported
    assert "is task task-b" in reported


async def test_a_row_in_flight_is_not_sent_again_once_the_quota_is_used_up(
    relay: FakeRelay, journal: FillingJournal, tmp_path: Path
) -> None:
    relay.reply(Reply(429, delay=5.0), on="submit")
    relay.submit_faults = {"quota": 1.0}
    await render(relay, journal, tmp_path)
    assert relay.created == []
    assert len(relay.log) == 2
    assert statuses(journal) == [Status.NEW] * 6
