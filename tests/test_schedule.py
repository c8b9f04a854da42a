"""The schedule of a pace: when a request is sent, and the effect of the balance of requests."""

import pytest

from luma_async.scheduling.hazard import CELLS, Hazard
from luma_async.scheduling.pace import Every, Learned
from luma_async.scheduling.schedule import AdaptiveSchedule, Schedule, schedule_for


def adaptive_schedule(open_ids: int = 1, *, spacing: float = 0.105) -> AdaptiveSchedule:
    schedule = AdaptiveSchedule(Learned(5.0), 100, spacing, known=Hazard([0.02] * CELLS))
    schedule.on_added(open_ids, 0.0)
    return schedule


def send(
    schedule: AdaptiveSchedule, now: float, *, max_batch: int = 100, again: bool = False
) -> None:
    schedule.on_sent(now, open_ids=1, max_ids=max_batch, whole=True, again=again)


def rest(schedule: AdaptiveSchedule, now: float) -> float:
    return schedule.delay(0.0, now)


def test_learned_has_an_adaptive_schedule_and_any_other_pace_a_plain_one() -> None:
    assert isinstance(schedule_for(Learned(), 100, 0.1), AdaptiveSchedule)
    assert type(schedule_for(Every(), 100, 0.1)) is Schedule


def test_a_single_id_is_sent_when_it_is_due() -> None:
    schedule = adaptive_schedule()
    send(schedule, 0.0)
    assert schedule.send_at(rest(schedule, 0.0)) == pytest.approx(5.0, rel=0.05)


def test_additional_requests_are_saved_again_within_minutes() -> None:
    schedule = adaptive_schedule()
    for number in range(5000):
        send(schedule, 0.01 * number)
    assert rest(schedule, 50.0) > 10.0
    now = 50.0
    for _ in range(40):
        now += rest(schedule, now)
        send(schedule, now)
    assert rest(schedule, now) < 6.0


def test_saved_requests_are_sent_within_minutes() -> None:
    schedule = adaptive_schedule()
    send(schedule, 0.0)
    for number in range(2000):
        schedule.on_answer(5.0 * number, 5.0 * number + 0.1)
    now = 10_000.0
    send(schedule, now)
    assert rest(schedule, now) < 2.5
    for _ in range(60):
        now += rest(schedule, now)
        send(schedule, now)
    assert rest(schedule, now) > 4.0


def test_requests_saved_without_responses_are_not_sent_later() -> None:
    schedule = adaptive_schedule()
    for number in range(2000):
        send(schedule, 20.0 * number, again=number > 0)
    send(schedule, 40_000.0)
    assert rest(schedule, 40_000.0) > 4.0


def test_an_expedited_request_is_not_charged() -> None:
    schedule = adaptive_schedule()
    send(schedule, 0.0)
    for number in range(1, 100):
        rest(schedule, 0.5 * number)
        schedule.expedite(0.5 * number)
        assert schedule.send_at(0.5 * number + 9.0) == 0.5 * number
        send(schedule, 0.5 * number)
    assert rest(schedule, 50.0) < 6.0


def test_overdue_ids_are_sent_at_once() -> None:
    schedule = adaptive_schedule(3)
    send(schedule, 100.0)
    for sent_at in (40.0, 60.0, 99.0):
        schedule.delay(0.0, sent_at)
    assert schedule.send_at(65.0) <= 100.0


def test_with_small_batches_the_budget_is_that_of_every_with_small_batches() -> None:
    schedule = adaptive_schedule(10)
    for number in range(200):
        send(schedule, 0.5 * number, max_batch=1)
    assert "200 requests sent, 19" in repr(schedule)


def test_the_first_delay_is_shortened_for_clients_that_started_together() -> None:
    schedule = adaptive_schedule()
    schedule.start_busy_period(0.5)
    send(schedule, 0.0)
    assert rest(schedule, 0.0) == pytest.approx(2.5, rel=0.05)
    send(schedule, 2.5)
    assert rest(schedule, 2.5) == pytest.approx(5.0, rel=0.1)
