"""The timing of a pace: when a request is sent, and the effect of the balance of requests."""

import re
from math import inf

import pytest

from luma_async.scheduling.hazard import CELLS, Hazard
from luma_async.scheduling.learned_timing import LearnedTiming, timing_for
from luma_async.scheduling.pace import Backoff, Every, Learned, Pace
from luma_async.scheduling.request_timing import RequestTiming


class ByAge:
    """A pace of the caller's own: a tenth of the age."""

    def rest(self, age: float) -> float:
        return age / 10.0


@pytest.mark.parametrize("pace", [Every(7.0), Backoff(1.0, 2.0, 60.0), ByAge()])
@pytest.mark.parametrize("created_at", [0.0, 1000.0])
def test_an_id_is_due_after_the_delay_of_its_age(pace: Pace, created_at: float) -> None:
    timing = timing_for(pace, 100, 0.1)
    assert timing.pace is pace
    for age in (3.0, 30.0, 300.0):
        assert timing.delay(created_at, created_at + age) == pace.rest(age)
        assert timing.delay(created_at, created_at + age, 5) == pace.rest(age)
        assert timing.base_delay(created_at, created_at + age) == pace.rest(age)


def test_without_learning_a_request_is_sent_when_its_first_id_is_due() -> None:
    timing = timing_for(Every(5.0), 100, 0.1)
    timing.expedite(1.0)
    assert (timing.send_at(7.0), timing.linger_until) == (7.0, -inf)
    assert not timing.uses_task_age


def test_ids_with_equal_delays_are_a_group_if_those_between_them_have_the_same() -> None:
    """A pace of the caller's own may have any delay at the ages between."""
    for pace in (Every(7.0), Backoff(1.0, 2.0, 60.0)):
        timing = timing_for(pace, 100, 0.1)
        keys = [timing.group_key(1000.0, 1000.0 + age) for age in (3.0, 90.0, 300.0)]
        assert keys == [pace.rest(age) for age in (3.0, 90.0, 300.0)]
    timing = timing_for(ByAge(), 100, 0.1)
    assert [timing.group_key(created_at, 1000.0) for created_at in (1.0, 2.0)] == [1.0, 2.0]


def learned_timing(open_ids: int = 1, *, spacing: float = 0.105) -> LearnedTiming:
    timing = LearnedTiming(Learned(5.0), 100, spacing, known=Hazard([0.02] * CELLS))
    timing.on_added(open_ids, 0.0)
    return timing


def send(timing: LearnedTiming, now: float, *, max_batch: int = 100, again: bool = False) -> None:
    timing.on_sent(now, open_ids=1, max_ids=max_batch, whole=True, again=again)


def rest(timing: LearnedTiming, now: float) -> float:
    return timing.delay(0.0, now)


def test_learned_has_an_adaptive_schedule_and_any_other_pace_a_plain_one() -> None:
    assert isinstance(timing_for(Learned(), 100, 0.1), LearnedTiming)
    assert type(timing_for(Every(), 100, 0.1)) is RequestTiming


def test_a_single_id_is_sent_when_it_is_due() -> None:
    timing = learned_timing()
    send(timing, 0.0)
    assert timing.send_at(rest(timing, 0.0)) == pytest.approx(5.0, rel=0.05)


def test_additional_requests_are_saved_again_within_minutes() -> None:
    timing = learned_timing()
    for number in range(5000):
        send(timing, 0.01 * number)
    assert rest(timing, 50.0) > 10.0
    now = 50.0
    for _ in range(40):
        now += rest(timing, now)
        send(timing, now)
    assert rest(timing, now) < 6.0


def test_saved_requests_are_sent_within_minutes() -> None:
    timing = learned_timing()
    send(timing, 0.0)
    for number in range(2000):
        timing.on_answer(5.0 * number, 5.0 * number + 0.1)
    now = 10_000.0
    send(timing, now)
    assert rest(timing, now) < 2.5
    for _ in range(60):
        now += rest(timing, now)
        send(timing, now)
    assert rest(timing, now) > 4.0


def test_requests_saved_without_responses_are_not_sent_later() -> None:
    timing = learned_timing()
    for number in range(2000):
        send(timing, 20.0 * number, again=number > 0)
    send(timing, 40_000.0)
    assert rest(timing, 40_000.0) > 4.0


def test_an_expedited_request_is_not_charged() -> None:
    timing = learned_timing()
    send(timing, 0.0)
    for number in range(1, 100):
        rest(timing, 0.5 * number)
        timing.expedite(0.5 * number)
        assert timing.send_at(0.5 * number + 9.0) == 0.5 * number
        send(timing, 0.5 * number)
    assert rest(timing, 50.0) < 6.0


@pytest.mark.parametrize(
    ("again", "expedited", "charged"),
    [(False, False, 31), (False, True, 0), (True, False, 1), (True, True, 1)],
)
def test_a_request_is_charged_unless_it_is_a_retry_or_expedited(
    again: bool, expedited: bool, charged: int
) -> None:
    timing = learned_timing()
    for number in range(40):
        if expedited:
            timing.expedite(0.0)
        send(timing, 0.001 * number, again=again)
    figure = re.search(r"(\d+) requests charged", repr(timing))
    assert figure
    assert int(figure[1]) == charged, "those of Every, 1, and 30 more at most"


def test_delays_change_when_more_ends_are_known() -> None:
    timing = LearnedTiming(Learned(5.0), 100, 0.105)
    timing.on_added(1, 0.0)
    send(timing, 0.0)
    before = timing.delay(0.0, 0.0)
    for _ in range(200):
        timing.observe_open(0.0, 0.0, 60.0, 1)
        timing.observe_end(0.0, 60.0, 61.0, 1)
    timing.delay(0.0, 0.0)  # learns
    send(timing, 1.0)
    assert timing.delay(0.0, 0.0) > 2.0 * before, "none ends in its first seconds"


def test_overdue_ids_are_sent_at_once() -> None:
    timing = learned_timing(3)
    send(timing, 100.0)
    for sent_at in (40.0, 60.0, 99.0):
        timing.delay(0.0, sent_at)
    assert timing.send_at(65.0) <= 100.0


def test_with_small_batches_the_budget_is_that_of_every_with_small_batches() -> None:
    timing = learned_timing(10)
    for number in range(200):
        send(timing, 0.5 * number, max_batch=1)
    assert "200 requests charged, 19" in repr(timing)


def test_the_first_delay_is_shortened_for_clients_that_started_together() -> None:
    timing = learned_timing()
    timing.start_busy_period(0.5)
    send(timing, 0.0)
    assert rest(timing, 0.0) == pytest.approx(2.5, rel=0.05)
    send(timing, 2.5)
    assert rest(timing, 2.5) == pytest.approx(5.0, rel=0.1)
