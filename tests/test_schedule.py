"""A pace at work: when the request departs, and what the balance of requests does to it."""

import pytest

from luma_async.scheduling.hazard import CELLS, Hazard
from luma_async.scheduling.pace import Every, Learned
from luma_async.scheduling.schedule import AdaptiveSchedule, Schedule, schedule_for


def steered(open_ids: int = 1, *, spacing: float = 0.105) -> AdaptiveSchedule:
    some = AdaptiveSchedule(Learned(5.0), 100, spacing, known=Hazard([0.02] * CELLS))
    some.on_added(open_ids, 0.0)
    return some


def depart(some: AdaptiveSchedule, now: float, *, seats: int = 100, again: bool = False) -> None:
    some.on_sent(now, open_ids=1, max_ids=seats, whole=True, again=again)


def rest(some: AdaptiveSchedule, now: float) -> float:
    return some.delay(0.0, now)


def test_a_pace_that_learns_is_steered_and_any_other_is_followed() -> None:
    assert isinstance(schedule_for(Learned(), 100, 0.1), AdaptiveSchedule)
    assert type(schedule_for(Every(), 100, 0.1)) is Schedule


def test_one_passenger_departs_when_due() -> None:
    some = steered()
    depart(some, 0.0)
    assert some.send_at(rest(some, 0.0)) == pytest.approx(5.0, rel=0.05)


def test_requests_that_were_forced_are_paid_back_within_minutes() -> None:
    some = steered()
    for number in range(5000):
        depart(some, 0.01 * number)
    assert rest(some, 50.0) > 10.0
    now = 50.0
    for _ in range(40):
        now += rest(some, now)
        depart(some, now)
    assert rest(some, now) < 6.0


def test_what_was_saved_is_spent_within_minutes() -> None:
    some = steered()
    depart(some, 0.0)
    for number in range(2000):
        some.on_answer(5.0 * number, 5.0 * number + 0.1)
    now = 10_000.0
    depart(some, now)
    assert rest(some, now) < 2.5
    for _ in range(60):
        now += rest(some, now)
        depart(some, now)
    assert rest(some, now) > 4.0


def test_what_was_saved_while_nobody_answered_is_not_spent() -> None:
    some = steered()
    for number in range(2000):
        depart(some, 20.0 * number, again=number > 0)
    depart(some, 40_000.0)
    assert rest(some, 40_000.0) > 4.0


def test_a_look_that_was_hurried_is_not_charged() -> None:
    some = steered()
    depart(some, 0.0)
    for number in range(1, 100):
        rest(some, 0.5 * number)
        some.expedite(0.5 * number)
        assert some.send_at(0.5 * number + 9.0) == 0.5 * number
        depart(some, 0.5 * number)
    assert rest(some, 50.0) < 6.0


def test_those_aboard_who_are_overdue_depart_at_once() -> None:
    some = steered(3)
    depart(some, 100.0)
    for departed in (40.0, 60.0, 99.0):
        some.delay(0.0, departed)
    assert some.send_at(65.0) <= 100.0


def test_where_seats_are_few_the_budget_is_that_of_every_with_few_seats() -> None:
    some = steered(10)
    for number in range(200):
        depart(some, 0.5 * number, seats=1)
    assert "200 requests sent, 19" in repr(some)


def test_the_first_rest_is_cut_where_a_fleet_may_have_started_together() -> None:
    some = steered()
    some.start_busy_period(0.5)
    depart(some, 0.0)
    assert rest(some, 0.0) == pytest.approx(2.5, rel=0.05)
    depart(some, 2.5)
    assert rest(some, 2.5) == pytest.approx(5.0, rel=0.1)
