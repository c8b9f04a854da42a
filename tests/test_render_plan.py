"""The planner of `render`: rows and journal in, what to do out; kills at any moment."""

from collections import Counter
from datetime import UTC, datetime
from enum import StrEnum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from luma_async.cli.rendering.plan import (
    Entry,
    Plan,
    Status,
    Step,
    plan,
    remarks,
    step_after,
    summary,
)
from luma_async.cli.rendering.prompts import PromptRow
from luma_async.errors import (
    AuthenticationError,
    BadRequestError,
    LumaError,
    NoSuchRouteError,
    NotFoundError,
    PermissionDeniedError,
    QuotaError,
    RateLimitedError,
    RelayError,
    SetupError,
    SubmitUnknown,
    TransportError,
)
from luma_async.protocol.submissions import Submission
from tests.properties import examples

SENT_AT = 1_700_000_000.0


def rows(*keys: str) -> list[PromptRow]:
    return [
        PromptRow(key, line, Submission(user_prompt=f"prompt {key}"))
        for line, key in enumerate(keys, 1)
    ]


def entry(key: str, status: Status, **more: object) -> Entry:
    tasks = 0 if status in (Status.NEW, Status.REFUSED) else 1
    one = Entry(key=key, line=1, prompt=f"prompt {key}", status=status, tasks=tasks)
    return replace(one, sent_at=SENT_AT, **more)


def keys(plan: Plan) -> tuple[list[str], list[str], list[str]]:
    """Return the keys to submit, to wait for, and those that are unknown."""
    return (
        [row.key for row in plan.submit],
        [one.key for one in plan.wait],
        [one.key for one in plan.unknown],
    )


EACH = {one.name: entry(one.name, one, task_id=f"id of {one.name}") for one in Status}


def test_each_status_has_its_place_in_the_plan() -> None:
    planned = plan(rows("UNSEEN", *EACH), EACH)
    assert keys(planned) == (
        ["UNSEEN", "NEW", "REFUSED"],
        ["OPEN", "MISSING", "COMPLETED"],
        ["SENT", "UNKNOWN"],
    )
    assert list(planned.entries) == [*EACH, "UNSEEN"]


def test_what_may_have_been_submitted_is_submitted_again_only_on_request() -> None:
    planned = plan(rows(*EACH), EACH, resubmit_unknown=True)
    assert keys(planned)[0] == ["NEW", "REFUSED", "SENT", "UNKNOWN"]
    assert keys(planned)[2] == []


def test_tasks_are_waited_for_whether_their_row_is_in_the_file_or_not() -> None:
    planned = plan(rows("other"), EACH, resubmit_unknown=True)
    assert keys(planned) == (
        ["other"],
        ["OPEN", "MISSING", "COMPLETED"],
        ["SENT", "UNKNOWN"],
    )
    assert "NEW" not in planned.entries


def test_a_video_that_was_removed_is_saved_again_without_a_submission() -> None:
    planned = plan(rows(*EACH), EACH, lost_files=["SAVED"])
    assert keys(planned)[1][-1] == "SAVED"
    assert "SAVED" not in keys(planned)[0]


@pytest.mark.parametrize(("max_tasks", "submitted"), [(1, 0), (7, 0), (8, 1), (9, 2), (99, 3)])
def test_max_tasks_counts_what_was_paid_for_before(max_tasks: int, submitted: int) -> None:
    planned = plan(rows("UNSEEN", *EACH), EACH, max_tasks=max_tasks)
    assert (len(planned.submit), planned.held_back) == (submitted, 3 - submitted)


def test_max_tasks_does_not_count_what_the_relay_did_not_take() -> None:
    new = Entry(key="a", line=1, prompt="a")
    known = {
        "a": new.after_sending(SENT_AT).after_refusal(Status.REFUSED, "too long"),
        "b": replace(new, key="b").after_sending(SENT_AT).after_refusal(Status.NEW),
        "c": replace(new, key="c").after_refusal(Status.NEW, "no quota"),
    }
    planned = plan(rows(*known), known, max_tasks=3)
    assert (len(planned.submit), planned.held_back) == (3, 0)
    assert [one.tasks for one in planned.entries.values()] == [0, 0, 0]


def test_a_row_is_named_by_its_line_in_the_file_as_it_is_now() -> None:
    known = {"a": entry("a", Status.REFUSED, note="too long")}
    planned = plan(rows("new", "a"), known)
    assert remarks(planned.entries.values())[0].startswith("line 2, 'prompt a': refused")


def test_a_task_without_a_video_is_named_with_the_reason_if_there_is_one() -> None:
    known = [entry("a", Status.MISSING), entry("b", Status.COMPLETED, note="disk full")]
    missing, not_saved = remarks(known)
    assert "has no video here (missing); run it again" in missing
    assert "has no video here (disk full); run it again" in not_saved


def test_what_may_have_been_submitted_is_named_with_its_time_and_its_reason_if_they_are_known() -> (
    None
):
    lost = entry("a", Status.UNKNOWN, note="reset")
    texts = [
        remarks([one])[0].partition("may have been submitted at ")[2].partition(";")[0]
        for one in (lost, replace(lost, note=""), replace(lost, sent_at=None))
    ]
    assert texts == [
        "2023-11-14 22:13:20 UTC (reset)",
        "2023-11-14 22:13:20 UTC",
        "an unknown time (reset)",
    ]


def test_a_row_that_is_held_back_stays_unknown() -> None:
    known = {"a": entry("a", Status.UNKNOWN)}
    planned = plan(rows("a"), known, max_tasks=1, resubmit_unknown=True)
    assert keys(planned) == ([], [], ["a"])


@pytest.mark.parametrize(
    ("error", "step"),
    [
        (SubmitUnknown("x", user_prompt="a", sent_at=datetime.now(UTC)), Step.UNKNOWN),
        (QuotaError(403), Step.STOP),
        (AuthenticationError(401), Step.STOP),
        (PermissionDeniedError(403), Step.STOP),
        (NoSuchRouteError("web page"), Step.STOP),
        (SetupError("auth="), Step.STOP),
        (BadRequestError(400), Step.SKIP),
        (NotFoundError(404), Step.SKIP),
        (RelayError(403), Step.SKIP),
        (RateLimitedError(429), Step.RETRY),
        (RelayError(503), Step.RETRY),
        (TransportError("refused"), Step.RETRY),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.name,
)
def test_an_error_decides_about_the_row_and_about_the_others(error: LumaError, step: Step) -> None:
    assert step_after(error) is step


def test_the_summary_counts_and_the_remarks_name_the_lines() -> None:
    entries = [replace(one, line=9 - n, note="why") for n, one in enumerate(EACH.values())]
    assert summary(entries) == (
        "9 rows: 1 saved, 1 not saved, 1 failed, 1 missing, 1 open, 2 unknown, 1 refused, "
        "1 not submitted"
    )
    assert summary([]) == "0 rows: nothing to do"
    lines = remarks(entries)
    assert [line.split(":")[0] for line in lines] == [
        "line 2, 'prompt COMPLETED'",
        "line 3, 'prompt FAILED'",
        "line 4, 'prompt MISSING'",
        "line 6, 'prompt UNKNOWN'",
        "line 7, 'prompt SENT'",
        "line 8, 'prompt REFUSED'",
    ]
    assert "may have been submitted at 2023-11-14 22:13:20 UTC" in lines[4]
    assert lines[4].endswith("give --resubmit-unknown to submit it again")


class Fate(StrEnum):
    """What becomes of one request."""

    CREATED = "a task is made, and its id received"
    LOST_AFTER = "a task is made, and the answer is lost"
    LOST_BEFORE = "the request is lost"
    REFUSED = "the relay refuses the row"
    NOT_TAKEN = "the relay did not take it"


class Kill(StrEnum):
    """When the process is killed."""

    NEVER = "never"
    BEFORE = "before the journal has it"
    SENT = "the journal has it, the request has not left"
    TAKEN = "the relay has it, its answer is not received"
    ANSWERED = "the answer is received, the journal does not have it"


class World:
    """A relay, a journal on a disk, and runs that may be killed: the order of `Rendering`."""

    def __init__(self) -> None:
        self.made: Counter[str] = Counter()
        self.ids: dict[str, str] = {}
        self.journal: dict[str, Entry] = {}

    def submit(self, key: str, fate: Fate, kill: Kill) -> bool:
        """Submit one row. Return whether the process is alive."""
        if kill is Kill.BEFORE:
            return False
        sent = self.journal[key] = self.journal[key].after_sending(SENT_AT)
        if kill is Kill.SENT:
            return False
        if fate in (Fate.CREATED, Fate.LOST_AFTER):
            self.made[key] += 1
            self.ids[f"task {len(self.ids)}"] = key
        if kill in (Kill.TAKEN, Kill.ANSWERED):
            return False
        self.journal[key] = {
            Fate.CREATED: lambda: sent.after_creation(f"task {len(self.ids) - 1}"),
            Fate.LOST_AFTER: lambda: sent.after_loss("reset"),
            Fate.LOST_BEFORE: lambda: sent.after_loss("reset"),
            Fate.REFUSED: lambda: sent.after_refusal(Status.REFUSED, "moderated"),
            Fate.NOT_TAKEN: lambda: sent.after_refusal(Status.NEW),
        }[fate]()
        return True


FATES = st.lists(
    st.tuples(st.sampled_from(Fate), st.sampled_from([*Kill, *[Kill.NEVER] * 9])), max_size=60
)


@settings(max_examples=examples(60))
@given(fates=FATES, count=st.integers(1, 6), max_tasks=st.none() | st.integers(1, 8))
def test_whenever_it_is_killed_no_prompt_is_paid_for_twice_and_no_task_is_forgotten(
    fates: list[tuple[Fate, Kill]], count: int, max_tasks: int | None
) -> None:
    world = World()
    prompts = rows(*(f"row {number}" for number in range(count)))
    left = iter(fates)
    for _ in range(len(fates) + 1):
        planned = plan(prompts, world.journal, max_tasks=max_tasks)
        world.journal = dict(planned.entries)
        for row in planned.submit:
            fate, kill = next(left, (Fate.CREATED, Kill.NEVER))
            if not world.submit(row.key, fate, kill):
                break
        check(world, planned, prompts, max_tasks)


def check(world: World, planned: Plan, prompts: list[PromptRow], max_tasks: int | None) -> None:
    again = plan(prompts, world.journal)
    assert max(world.made.values(), default=0) <= 1, "paid for twice"
    known = {one.task_id for one in world.journal.values() if one.task_id}
    unknown = {one.key for one in again.unknown}
    for task_id, key in world.ids.items():
        assert task_id in known or key in unknown, "a task that is neither known nor listed"
        assert key not in {row.key for row in again.submit}
    assert unknown.isdisjoint(row.key for row in again.submit)
    assert {one.task_id for one in again.wait} <= set(world.ids)
    if max_tasks is not None:
        assert sum(world.made.values()) <= max_tasks
    assert set(planned.entries) == {row.key for row in prompts}


@settings(max_examples=examples(30))
@given(fates=FATES)
def test_with_resubmission_a_row_is_paid_for_as_often_as_the_journal_says_at_most(
    fates: list[tuple[Fate, Kill]],
) -> None:
    world = World()
    prompts = rows("a", "b")
    left = iter(fates)
    for _ in range(len(fates) + 1):
        planned = plan(prompts, world.journal, resubmit_unknown=True)
        world.journal = dict(planned.entries)
        for row in planned.submit:
            if not world.submit(row.key, *next(left, (Fate.CREATED, Kill.NEVER))):
                break
    for key, one in world.journal.items():
        assert world.made[key] <= one.tasks
        assert one.status is Status.OPEN, "each row is submitted in the end"


def test_a_row_that_was_unknown_stays_so_if_the_relay_refuses_it_the_second_time() -> None:
    lost = Entry(key="a-1", line=1, prompt="a").after_sending(1.0).after_loss("reset")
    for status in (Status.NEW, Status.REFUSED):
        again = lost.after_sending(2.0).after_refusal(status, "no")
        assert (again.status, again.tasks) == (Status.UNKNOWN, 1)
        assert again.after_refusal(status).status is Status.UNKNOWN
