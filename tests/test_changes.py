"""What a response changes, and the grace periods before it counts."""

import inspect

import pytest

from luma_async import LumaSession, State
from luma_async.protocol.rows import RowText
from luma_async.scheduling.changes import Change, Grace, checked_grace
from tests.fake_answers import generation


def test_the_grace_periods_are_those_of_a_session_without_settings() -> None:
    defaults = inspect.signature(LumaSession).parameters
    missing, link = defaults["missing_grace"].default, defaults["link_grace"].default
    assert Grace() == checked_grace(missing, link) == Grace(30.0, 60.0)


def test_a_grace_period_is_a_number_of_seconds_from_zero_up() -> None:
    assert checked_grace(0.0, 7) == Grace(0.0, 7.0)
    with pytest.raises(ValueError, match="missing_grace"):
        checked_grace(-1.0, 7.0)
    with pytest.raises(TypeError, match="link_grace"):
        checked_grace(1.0, "7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_a_change_has_the_task_of_its_row_and_none_if_the_id_is_missing() -> None:
    task = generation("a", State.PROCESSING)
    change: Change[str] = Change(task_id="a", row=RowText("a", b"", task))
    assert change.generation is task
    assert not change.ended
    assert not change.forbidden
    missing: Change[str] = Change(task_id="a", row=None, ended=True)
    assert missing.generation is None
