"""Progress of a command's ids, the estimate of the remaining time, and the HTML report."""

import math
import os
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from luma_async import Artifact, Generation, Image, Request, State, Video, VideoRaw
from luma_async.cli.display.eta import remaining
from luma_async.cli.display.html_report import Page, write
from luma_async.cli.display.progress import MAX_AGE, MAX_CHANGED, Details, Progress, TaskRow
from luma_async.cli.display.table import said
from luma_async.scheduling.hazard import DurationCounts
from luma_async.text import format_roughly, printable
from tests.bench.estimate import right, seen_at

DATE = datetime(2026, 11, 21, 12, tzinfo=UTC)


def task(task_id: str = "a", state: State = State.COMPLETED, **fields: object) -> Generation:
    return Generation(id=task_id, state=state, **fields)  # type: ignore[arg-type]


def board_of(*tasks: Generation) -> Progress:
    """Return the progress of open tasks of which each ended, or changed, at 5 s."""
    board = Progress()
    board.add([one.id for one in tasks], 0.0)
    for one in tasks:
        board.rows[one.id].was_open = True
        if one.is_done:
            board.end(one.id, one, 5.0, DATE)
        else:
            board.learn(one, 5.0, DATE)
    return board


def test_each_id_is_counted_in_exactly_one_state() -> None:
    board = Progress()
    assert board.add(["a", "b", "a"], 0.0) == ["a", "b"]
    assert board.add(["b", "c"], 1.0) == ["c"]
    board.learn(task("a", State.PENDING), 2.0, DATE)
    board.learn(task("a", State.PROCESSING), 3.0, DATE)
    board.learn(task("stranger", State.PROCESSING), 3.0, DATE)
    board.end("b", None, 4.0, DATE)
    board.end("a", task("a"), 5.0, DATE)
    assert +board.counts == {"waiting": 1, "missing": 1, "completed": 1}
    assert (board.ended, [row.id for row in board.open]) == (2, ["c"])
    assert list(board.changed) == ["c", "b", "a"]
    assert board.rows["a"].age(100.0) == 5.0


def test_a_change_after_the_end_is_ignored() -> None:
    board = board_of(task("a"))
    board.learn(task("a", State.PROCESSING), 9.0, DATE)
    assert board.rows["a"].word == "completed"


@pytest.mark.parametrize(("before", "age"), [(60.0, 60.0), (-60.0, 5.0), (10 * MAX_AGE, MAX_AGE)])
def test_the_age_is_counted_from_created_at(before: float, age: float) -> None:
    """A time in the future is ignored; an age is at most MAX_AGE."""
    created_at = DATE - timedelta(seconds=before)
    board = board_of(task("a", State.PROCESSING, created_at=created_at))
    assert board.rows["a"].age(5.0) == age


def test_no_duration_is_shown_for_a_task_that_had_ended_before_the_start() -> None:
    board = Progress()
    board.add(["a"], 0.0)
    board.end("a", task("a", created_at=DATE - timedelta(hours=5)), 1.0, DATE)
    assert board.rows["a"].age(1.0) is None
    assert "after" not in str(Page(board, 9.0, DATE, Path(), ()))


def test_progress_is_good_only_if_all_tasks_are_completed_and_saved() -> None:
    assert Progress().is_good
    board = board_of(task("a"))
    assert board.is_good
    board.record_file(board.rows["a"], None, "no link")
    assert not board.is_good
    board.record_file(board.rows["a"], Path("a.mp4"))
    assert board.is_good
    assert not board_of(task("a"), task("b", State.FAILED)).is_good
    assert not board_of(task("a", State.PROCESSING)).is_good


def test_a_row_shows_the_most_important_detail() -> None:
    request = Request(prompt="a cat")
    assert said(TaskRow("a", 0.0), Details()) == ""
    running = Details(task(state=State.PROCESSING, request=request))
    assert said(TaskRow("a", 0.0, "processing"), running) == "a cat"
    failed, missing = TaskRow("a", 0.0, "failed", 1.0), TaskRow("a", 0.0, "missing", 1.0)
    assert said(failed, Details(task(state=State.FAILED))) == "no reason given"
    assert said(missing, Details()) == "the relay does not know it"
    done = TaskRow("a", 0.0, "completed", 1.0)
    assert said(done, Details(task(result_url="https://a"))) == "https://a"
    assert said(done, Details(task(), Path("d/a.mp4"))) == "d/a.mp4"
    assert said(done, Details(task(), trouble="dead")) == "not saved: dead"


@pytest.mark.parametrize("original", [True, False])
def test_stored_details_are_read_again_as_they_were(original: bool) -> None:
    one = task(
        video_raw=VideoRaw(url="https://a.example/v.mp4", duration=5.0, width=2**40),
        created_at=DATE,
        original='{"id": "a"}',
    )
    board = board_of(one)
    row = board.rows["a"]
    board.record_file(row, Path(os.fsdecode(b"d/\xff.mp4")), os.fsdecode(b"no \xff"))
    before = board.details(row)
    board.store(row, original=original)
    assert row.details is None
    after = board.details(row)
    kept = one if original else replace(one, original="{}")
    assert after == Details(kept, before.file, before.trouble)
    board.close()


def test_a_number_of_more_than_64_bits_stays_in_memory() -> None:
    board = board_of(task(video_raw=VideoRaw(width=10**30)))
    row = board.rows["a"]
    board.store(row, original=True)
    assert row.details is not None


def test_the_rows_that_changed_last_are_kept_up_to_a_limit() -> None:
    board = Progress()
    ids = board.add(map(str, range(MAX_CHANGED + 5)), 0.0)
    board.end("0", None, 1.0, DATE)
    assert list(board.changed) == [*ids[6:], "0"]
    assert len(board.rows) == MAX_CHANGED + 5


def test_a_long_link_is_not_cut_and_control_characters_are_replaced() -> None:
    link = f"https://a.example/{'x' * 900}"
    assert printable(link) == link
    assert printable("a\n\x1b[31mb\u202e") == "a \ufffd[31mb\ufffd"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (7.6, "8 s"), (43.0, "40 s"), (94.0, "90 s"), (100, "2 min"), (8000, "2 h")],
)
def test_an_estimated_duration_is_rounded(seconds: float, text: str) -> None:
    assert format_roughly(seconds) == text


def test_the_estimate_is_right_within_a_factor_of_two_for_lognormal_durations() -> None:
    dice = random.Random(7)
    for share in (0.2, 0.4, 0.6, 0.8):
        durations = [dice.lognormvariate(math.log(75), 0.35) for _ in range(200)]
        assert right(durations, share) == (True, True)


def test_there_is_no_estimate_without_enough_ended_tasks() -> None:
    assert remaining(DurationCounts(), [1.0]) is None
    assert remaining(seen_at(20.0, [5.0] * 4 + [50.0]), [20.0]) is None
    assert remaining(seen_at(20.0, [5.0] * 40), []) is None


EVIL = '"><script>alert(1)</script>\u202e\x00\ud800'


def page(*tasks: Generation, allowed: tuple[str, ...] = ()) -> str:
    return str(Page(board_of(*tasks), 9.0, DATE, Path(), allowed))


def test_a_page_shows_each_video_with_its_poster_its_prompt_and_its_duration() -> None:
    shown = page(
        task(
            video_raw=VideoRaw(
                url="https://a.example/v.mp4?a=1&b=2", duration=5.0, width=16, height=9
            ),
            thumbnail=Image(url="https://a.example/t.jpg"),
            request=Request(prompt="a cat"),
        )
    )
    assert (
        '<video controls preload="none" poster="https://a.example/t.jpg" '
        'src="https://a.example/v.mp4?a=1&amp;b=2">' in shown
    )
    for text in ("a cat", "after 5 s", "5 s long", "16 × 9", "<b>1</b> completed", "1 video<"):
        assert text in shown


def test_a_page_shows_why_there_is_no_video() -> None:
    board = board_of(
        task("a", State.FAILED, failure_reason="moderated", result_url="https://a.example/v.mp4"),
        task("b", State.PROCESSING),
        task("c"),
    )
    board.add(["d"], 0.0)
    board.end("d", None, 1.0, DATE)
    shown = str(Page(board, 9.0, DATE, Path(), ()))
    for why in (
        "moderated",
        "not finished yet",
        "no link that may be followed",
        "the relay does not know it",
    ):
        assert f'<div class="none">{why}</div>' in shown
    assert "<video" not in shown


def test_html_in_texts_is_escaped_and_unsafe_urls_are_left_out() -> None:
    shown = page(
        task(EVIL, State.FAILED, failure_reason=EVIL, request=Request(prompt=EVIL)),
        task(
            "b",
            result_url=f"https://a.example/{EVIL}",
            thumbnail=Image(url="javascript:alert(1)"),
            video_raw=VideoRaw(duration=math.inf),
            artifact=Artifact(thumbnail=Image(url="http://192.168.1.1/")),
        ),
    )
    assert "<script" not in shown
    assert "\u202e" not in shown
    assert "\x00" not in shown
    assert "javascript" not in shown
    assert "192.168" not in shown
    assert "default-src 'none'" in shown
    assert "script-src" not in shown
    assert '<meta name="referrer" content="no-referrer">' in shown


def test_html_in_a_link_and_in_an_error_is_escaped() -> None:
    """The link keeps each character, because a signature may cover it."""
    link = 'https://a.example/"><script>alert(1)</script>'
    board = board_of(task("a", result_url=link, thumbnail=Image(url=link)))
    board.record_file(board.rows["a"], None, f"no {EVIL}")
    shown = str(Page(board, 9.0, DATE, Path(), ()))
    assert "<script" not in shown
    assert "not saved: no &quot;&gt;&lt;script&gt;" in shown
    assert shown.count("https://a.example/&quot;&gt;&lt;script&gt;") == 3, "poster, video, link"


def test_a_private_link_is_in_a_page_only_if_its_host_is_allowed() -> None:
    local = task(video=Video(download_url="http://127.0.0.1:8000/v.mp4"))
    assert "127.0.0.1" not in page(local)
    assert 'src="http://127.0.0.1:8000/v.mp4"' in page(local, allowed=("127.0.0.1",))


def test_a_saved_video_is_linked_relative_to_the_page(tmp_path: Path) -> None:
    board = board_of(task("..:x"))
    board.record_file(board.rows["..:x"], tmp_path / "videos" / "%2E.%3Ax.mp4")
    shown = str(Page(board, 9.0, DATE, tmp_path, ()))
    assert 'src="videos/%252E.%253Ax.mp4"' in shown


def test_a_page_is_replaced_completely_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    path.write_text("old")
    path.chmod(0o600)
    write(path, Page(board_of(task(EVIL)), 9.0, DATE, tmp_path, ()))
    assert path.read_text().endswith("</html>\n")
    assert [one.name for one in tmp_path.iterdir()] == ["r.html"]

    class Broken(Page):
        def parts(self) -> Iterator[str]:
            yield "<!doctype html>"
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write(path, Broken(Progress(), 0.0, DATE, tmp_path, ()))
    assert path.read_text().endswith("</html>\n")
    assert [one.name for one in tmp_path.iterdir()] == ["r.html"]


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_the_permissions_of_a_report_are_as_the_umask_says(
    tmp_path: Path, umask: int, mode: int
) -> None:
    before = os.umask(umask)
    try:
        write(tmp_path / "r.html", Page(Progress(), 9.0, DATE, tmp_path, ()))
    finally:
        os.umask(before)
    assert (tmp_path / "r.html").stat().st_mode & 0o777 == mode
