"""What a run of `render` records of each answer to a submission, and what its table shows."""

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest

from luma_async import Limits, LumaSession
from luma_async.cli.display.output import output
from luma_async.cli.display.progress import Progress
from luma_async.cli.rendering.journal import Journal
from luma_async.cli.rendering.plan import Entry, Status, plan
from luma_async.cli.rendering.prompts import PromptRow
from luma_async.cli.rendering.runner import Rendering
from luma_async.downloads.downloader import Downloader
from luma_async.errors import (
    BadRequestError,
    LumaError,
    QuotaError,
    RateLimitedError,
    RelayError,
    SubmitUnknown,
    TransportError,
)
from luma_async.protocol.submissions import Submission
from luma_async.testing import FakeRelay, Reply
from tests.render_journals import fail_one_write

pytestmark = pytest.mark.virtual_time

ROWS = [PromptRow(f"{n}-1", n, Submission(user_prompt=f"prompt {n}")) for n in range(1, 4)]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path, "https://relay.example") as journal:
        yield journal


def rendering_of(journal: Journal, board: Progress, rows: int = 3) -> Rendering:
    planned = plan(ROWS[:rows], journal.read())
    return Rendering(planned, journal, board, output(as_json=True, alone=False), concurrency=2)


async def test_the_table_counts_the_rows_that_have_no_task(journal: Journal) -> None:
    board = Progress()
    rendering = rendering_of(journal, board)
    one, two, three = (rendering.entries[row.key].after_sending(1.0) for row in ROWS)
    notes: list[str] = []
    for entry in (
        one, two, one.after_creation("a"), two.after_loss("reset"), three,
        three.after_refusal(Status.NEW), three.after_creation("b"), two.after_creation("c"),
    ):  # fmt: skip
        await rendering.record(entry)
        notes.append(board.note)
    assert notes == [
        "2 rows not submitted yet, 1 rows in flight or unknown",
        "1 rows not submitted yet, 2 rows in flight or unknown",
        "1 rows not submitted yet, 1 rows in flight or unknown",
        "1 rows not submitted yet, 1 rows in flight or unknown",
        "2 rows in flight or unknown",
        "1 rows not submitted yet, 1 rows in flight or unknown",
        "1 rows in flight or unknown",
        "",
    ]


async def test_entries_are_written_one_after_the_other_in_their_order(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendering, disk, real = rendering_of(journal, Progress()), threading.Lock(), journal.write
    written: list[float | None] = []

    def write(entry: Entry) -> None:
        assert disk.acquire(blocking=False), "another one is being written"
        time.sleep(0.002)
        real(entry)
        written.append(entry.sent_at)
        disk.release()

    monkeypatch.setattr(journal, "write", write)
    entry = rendering.entries["1-1"]
    await asyncio.gather(*[rendering.record(entry.after_sending(float(n))) for n in range(5)])
    assert written == [0.0, 1.0, 2.0, 3.0, 4.0]


def unknown_outcome() -> SubmitUnknown:
    error = SubmitUnknown("x", user_prompt="a", sent_at=datetime(2026, 1, 1, tzinfo=UTC))
    error.__cause__ = TransportError("connection\nreset")
    return error


@pytest.mark.parametrize(
    ("error", "status", "note", "pause", "stops"),
    [
        (unknown_outcome(), Status.UNKNOWN, "connection reset", None, False),
        (BadRequestError(400, message="no"), Status.REFUSED, "400", None, False),
        (QuotaError(403), Status.NEW, "403", None, True),
        (TransportError("refused"), Status.NEW, "refused", 1.0, False),
        (RelayError(503), Status.NEW, "503", 1.0, False),
        (RateLimitedError(429, retry_after=7.0), Status.NEW, "429", 7.0, False),
        (RateLimitedError(429, retry_after=550.0), Status.NEW, "429", 60.0, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
async def test_an_error_of_a_submission_is_recorded_and_decides_what_follows(
    journal: Journal, error: LumaError, status: Status, note: str, pause: float | None, stops: bool
) -> None:
    """A row that was not taken is submitted again after a pause."""
    rendering = rendering_of(journal, Progress())
    await rendering.record(rendering.entries["1-1"].after_sending(1.0))
    began = asyncio.get_running_loop().time()
    is_over = await rendering._refused("1-1", error)  # pyright: ignore[reportPrivateUsage]
    assert is_over is (pause is None)
    assert asyncio.get_running_loop().time() - began == pytest.approx(pause or 0.0)
    recorded = journal.read()["1-1"]
    assert recorded.status is status
    assert note in recorded.note
    assert recorded.tasks == (1 if status is Status.UNKNOWN else 0)
    assert rendering.stopped is (error if stops else None)


@pytest.mark.parametrize("kind", ["asyncio", "anyio"])
async def test_an_interruption_waits_for_one_answer_and_says_so(
    journal: Journal, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    async with FakeRelay(latency=5.0) as relay:
        rendering, scope = rendering_of(journal, Progress(), rows=1), anyio.CancelScope()

        async def run() -> None:
            with scope:
                await rendering.run(luma, Downloader(tmp_path))

        async with LumaSession(relay.url, api_key=relay.api_key) as luma:
            running = asyncio.create_task(run())
            async with asyncio.timeout(60.0):
                while not relay.requests:  # noqa: ASYNC110 - two writes to the disk come before
                    await asyncio.sleep(0.01)
            if kind == "asyncio":
                running.cancel()
            else:
                scope.cancel()
            await asyncio.wait([running])
    assert journal.read()["1-1"].status is Status.OPEN
    (line,) = capsys.readouterr().err.splitlines()
    assert "waiting for the answer to 1 submission; press ctrl-C again" in line


async def test_while_an_interruption_waits_for_an_answer_no_task_is_polled(
    journal: Journal, tmp_path: Path
) -> None:
    async with (
        FakeRelay(durations=(600, 600)) as relay,
        LumaSession(relay.url, api_key=relay.api_key) as luma,
    ):
        relay.reply(Reply(200, b'{"id":"task-a"}', delay=100.0), on="submit")
        running = asyncio.create_task(
            rendering_of(journal, Progress(), rows=2).run(luma, Downloader(tmp_path))
        )
        await asyncio.sleep(30.0)
        running.cancel()
        await asyncio.sleep(1.0)
        polled = relay.requests
        assert polled > 3
        with pytest.raises(asyncio.CancelledError):
            await running
        assert relay.requests == polled
    assert [one.status for one in journal.read().values()] == [Status.OPEN] * 2


async def test_rows_that_are_refused_make_room_for_the_others(
    journal: Journal, tmp_path: Path
) -> None:
    async with (
        FakeRelay(durations=(5, 5), fails=1.0) as relay,
        LumaSession(relay.url, api_key=relay.api_key) as luma,
        asyncio.timeout(600.0),
    ):
        relay.reply(*[Reply(400, b'{"code":"invalid","message":"no"}')] * 2, on="submit")
        await rendering_of(journal, Progress()).run(luma, Downloader(tmp_path))
        assert len(relay.created) == 1
    statuses = [one.status for one in journal.read().values()]
    assert sorted(statuses) == sorted([Status.REFUSED, Status.REFUSED, Status.FAILED])


async def test_after_a_refusal_of_all_rows_one_that_waits_for_the_rate_limit_is_not_sent(
    journal: Journal, tmp_path: Path
) -> None:
    async with (
        FakeRelay(latency=1.0) as relay,
        LumaSession(relay.url, api_key=relay.api_key, limits=Limits(max_rate=0.1)) as luma,
    ):
        relay.reply(Reply(401), on="submit")
        await rendering_of(journal, Progress()).run(luma, Downloader(tmp_path))
        await asyncio.sleep(60.0)
        assert relay.requests == 1
    assert {one.status for one in journal.read().values()} == {Status.NEW}


async def test_a_task_that_the_relay_does_not_know_any_more_is_missing(
    journal: Journal, tmp_path: Path
) -> None:
    lost = Entry(key="1-1", line=1, prompt="a").after_sending(1.0).after_creation("gone")
    journal.replace([lost])
    async with FakeRelay() as relay, LumaSession(relay.url, api_key=relay.api_key) as luma:
        await rendering_of(journal, Progress(), rows=1).run(luma, Downloader(tmp_path))
        assert relay.created == []
    assert journal.read()["1-1"].status is Status.MISSING


async def test_no_more_tasks_are_open_than_the_concurrency(
    journal: Journal, tmp_path: Path
) -> None:
    async with (
        FakeRelay(durations=(600, 600), fails=1.0) as relay,
        LumaSession(relay.url, api_key=relay.api_key) as luma,
    ):
        rendering = rendering_of(journal, Progress())
        running = asyncio.create_task(rendering.run(luma, Downloader(tmp_path)))
        await asyncio.sleep(300.0)
        assert len(relay.created) == 2
        await running
        assert len(relay.created) == 3


async def test_after_a_write_that_failed_once_no_other_row_is_sent(
    journal: Journal,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fail_one_write(monkeypatch, journal, Status.OPEN)
    async with (
        FakeRelay(durations=(600, 600)) as relay,
        LumaSession(relay.url, api_key=relay.api_key, limits=Limits(max_rate=0.1)) as luma,
    ):
        with pytest.raises(OSError, match="line 1 is task"):
            await rendering_of(journal, Progress()).run(luma, Downloader(tmp_path))
        assert len(relay.created) <= 2
    assert journal.read()["3-1"].status is Status.NEW
    assert "cannot be written" not in capsys.readouterr().err, "the caller prints it"


async def test_a_result_that_could_not_be_recorded_is_an_error_when_the_other_tasks_have_ended(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_one_write(monkeypatch, journal, Status.COMPLETED)
    async with (
        FakeRelay(durations=(5, 600)) as relay,
        LumaSession(relay.url, api_key=relay.api_key) as luma,
        Downloader(tmp_path) as downloader,
    ):
        with pytest.raises(OSError, match="cannot be written"):
            await rendering_of(journal, Progress()).run(luma, downloader)
    statuses = [one.status for one in journal.read().values()]
    assert sorted(statuses) == sorted([Status.OPEN, Status.COMPLETED, Status.COMPLETED])


async def test_a_run_that_has_ended_keeps_no_record_of_a_saved_video_and_no_thread(
    journal: Journal, tmp_path: Path
) -> None:
    before = set(threading.enumerate())  # a Rendering of another test may still have its thread
    async with (
        FakeRelay(durations=(5, 5)) as relay,
        LumaSession(relay.url, api_key=relay.api_key) as luma,
        Downloader(tmp_path, allow_hosts=["127.0.0.1"]) as downloader,
    ):
        rendering = rendering_of(journal, Progress())
        await rendering.run(luma, downloader)
    assert {one.status for one in journal.read().values()} == {Status.SAVED}
    assert not rendering._records  # pyright: ignore[reportPrivateUsage]
    new = set(threading.enumerate()) - before
    assert not [one for one in new if one.name.startswith("journal")]


async def test_a_run_without_rows_ends_at_once(journal: Journal, tmp_path: Path) -> None:
    async with FakeRelay() as relay, LumaSession(relay.url, api_key=relay.api_key) as luma:
        await rendering_of(journal, Progress(), rows=0).run(luma, Downloader(tmp_path))
        assert relay.requests == 0
