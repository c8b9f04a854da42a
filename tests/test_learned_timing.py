"""The timing of Learned: exact delays, the time of a batch, what is learned, and the budget."""

import re
from itertools import pairwise
from math import exp, inf

import pytest

from luma_async.scheduling.hazard import CELLS, EDGES, OLDEST, DurationCounts, Hazard, cell_of
from luma_async.scheduling.learned_timing import LearnedTiming, UrgencySum
from luma_async.scheduling.pace import Learned

CONSTANT = Hazard([0.02] * CELLS)
LATE = Hazard([1e-6 if edge < 256.0 else 0.1 for edge in EDGES[:-1]])
"""Hardly any task ends in its first minutes."""
OLDEST_AGE = 2.0**OLDEST


def learned_timing(
    pace: Learned = Learned(5.0),
    *,
    max_batch: int = 100,
    spacing: float = 0.105,
    known: Hazard | None = CONSTANT,
) -> LearnedTiming:
    return LearnedTiming(pace, max_batch, spacing, known=known)


def send(
    timing: LearnedTiming, now: float, *, open_ids: int = 1, whole: bool = True, again: bool = False
) -> None:
    timing.on_sent(now, open_ids=open_ids, max_ids=100, whole=whole, again=again)


def requests(timing: LearnedTiming) -> tuple[int, int]:
    """Return how many requests are charged, and how many Every would have sent."""
    found = re.search(r"(\d+) requests charged, (\d+) by Every", repr(timing))
    assert found
    return int(found[1]), int(found[2])


def seen(ends: int) -> DurationCounts:
    """Return what is learned of tasks that ended after a minute, none of them before."""
    young = [(edge, 0.0, 1e5) for edge in EDGES if edge < 50.0]
    return DurationCounts.of([*young, (60.0, ends, 5.0 * ends)])


class TestDelay:
    def test_before_the_first_request_the_delay_is_that_of_an_even_balance(self) -> None:
        timing = learned_timing()
        assert timing.delay(0.0, 10.0) == pytest.approx(5.0)
        assert timing.send_at(15.0) == 15.0, "as there is no batch, ids are due by themselves"

    @pytest.mark.parametrize("saved", [0, 3, 15, 30, 31, 200])
    def test_thirty_saved_requests_shorten_the_delay_to_a_fifth_and_more_do_not(
        self, saved: int
    ) -> None:
        """With a constant hazard, the delay is the interval times √(e^(3 · balance / 30))."""
        timing = learned_timing()
        timing.on_added(1, 0.0)
        send(timing, 0.0)
        for number in range(saved + 1):
            timing.on_answer(5.0 * number, 5.0 * number + 0.01)
        send(timing, 5.0 * saved + 0.01)
        charged, by_every = requests(timing)
        assert (charged, by_every) == (max(2, saved - 29), saved + 1)
        balance = max(-30, 2 - by_every)
        assert timing.delay(0.0, 40.0) == pytest.approx(5.0 * exp(1.5 * balance / 30.0))

    @pytest.mark.parametrize(("open_ids", "most"), [(1, 30), (100, 30), (250, 75), (1000, 300)])
    def test_the_balance_is_thirty_requests_or_thirty_rounds(
        self, open_ids: int, most: int
    ) -> None:
        timing = learned_timing()
        timing.on_added(open_ids, 0.0)
        for number in range(400):
            send(timing, 0.001 * number, open_ids=open_ids)
        charged, by_every = requests(timing)
        assert charged - by_every == most

    def test_a_task_that_is_years_old_is_polled_at_the_interval(self) -> None:
        timing = learned_timing(Learned(0.5))
        assert timing.delay(0.0, 1e9) == pytest.approx(0.5, rel=1e-3)

    def test_where_max_rate_allows_fewer_polls_four_of_their_intervals_are_the_longest_delay(
        self,
    ) -> None:
        timing = learned_timing(max_batch=1, spacing=1.0, known=LATE)
        timing.on_added(20, 0.0)
        for second in range(3000):
            timing.on_sent(float(second), open_ids=20, max_ids=1, whole=False, again=False)
        assert timing.delay(3000.0, 3000.0) == pytest.approx(4.0 * 20.0, rel=0.02)

    @pytest.mark.parametrize(("ends", "longest"), [(0, 5.0), (19, 5.0), (20, 20.0), (21, 20.0)])
    def test_delays_are_longer_than_the_interval_once_twenty_tasks_have_ended(
        self, ends: int, longest: float
    ) -> None:
        timing = learned_timing(Learned(5.0, seen(ends)), known=None)
        assert timing.delay(0.0, 0.0) == pytest.approx(longest, rel=0.01)

    def test_the_first_delay_of_a_busy_period_is_not_lengthened(self) -> None:
        timing = learned_timing()
        timing.on_added(1, 0.0)
        timing.start_busy_period(inf)
        send(timing, 0.0)
        assert timing.delay(0.0, 0.0) == pytest.approx(5.0)

    @pytest.mark.parametrize("created_at", [0.0, 1000.0])
    def test_ids_are_a_group_if_their_ages_lie_in_one_cell(self, created_at: float) -> None:
        timing = learned_timing()
        for age in (0.0, 3.0, 64.0, 71.9, 72.0):
            assert timing.group_key(created_at, created_at + age) == cell_of(age)


class TestBatch:
    @pytest.mark.parametrize(
        "ids",
        [
            [(1, 5.0, 0.0)],
            [(3, 5.0, 0.0)],
            [(1, 5.0, 0.0), (1, 20.0, 0.0)],
            [(4, 5.0, -3.0), (7, 20.0, 0.0), (2, 4.0, -1.0)],
            [(100, 12.0, -30.0), (1, 9.0, 2.0)],
        ],
    )
    def test_urgencies_sum_up_to_the_number_of_ids(
        self, ids: list[tuple[int, float, float]]
    ) -> None:
        """Each was polled at a time, has a delay, and an urgency that is 1 when it is due."""
        urgencies = UrgencySum()
        for count, delay, polled_at in ids:
            urgencies.add(count, 1.0 / delay**2, polled_at)
        at = urgencies.full_after()
        assert at is not None
        assert sum(
            count * ((at - polled_at) / delay) ** 2 for count, delay, polled_at in ids
        ) == pytest.approx(sum(count for count, *_ in ids))
        growth = sum(count * (at - polled_at) / delay**2 for count, delay, polled_at in ids)
        assert growth > 0.0, "from then on it is more"

    def test_without_ids_no_time_is_right(self) -> None:
        assert UrgencySum().full_after() == inf

    @pytest.mark.parametrize(
        ("late", "full_after"), [(5.0, 0.0), (4.9, 0.0), (5.1, None), (1000.0, None)]
    )
    def test_urgencies_that_are_larger_at_any_time_have_no_time(
        self, late: float, full_after: float | None
    ) -> None:
        """Two ids, polled `late` seconds before and after: their sum is never smaller than 2."""
        urgencies = UrgencySum()
        urgencies.add(1, 1.0 / 25.0, -late)
        urgencies.add(1, 1.0 / 25.0, late)
        found = urgencies.full_after()
        if full_after is None:
            assert found is None
        else:
            assert found == pytest.approx((25.0 - late**2) ** 0.5)

    @pytest.mark.parametrize(
        ("open_ids", "whole", "is_summed"),
        [(2, True, True), (100, True, True), (101, True, False), (2, False, False)],
    )
    def test_a_batch_is_sent_by_its_urgencies_if_all_open_ids_are_in_it(
        self, open_ids: int, whole: bool, is_summed: bool
    ) -> None:
        timing = learned_timing()
        timing.on_added(2, 0.0)
        send(timing, 0.0, open_ids=open_ids, whole=whole)
        assert timing.delay(-999.0, 0.0) == pytest.approx(5.0)
        timing.expedite(4.0)
        assert timing.send_at(4.5) == (4.0 if is_summed else 4.5)

    def test_an_id_that_need_not_be_polled_soon_adds_little_urgency(self) -> None:
        """The delay of a young id is cut to the longest one; it is not urgent even then."""
        timing = learned_timing(known=LATE)
        timing.on_added(5, 0.0)
        send(timing, 0.0, open_ids=5)
        assert timing.delay(0.0, 0.0, 3) == 20.0
        old = timing.delay(-999.0, 0.0)
        assert old < 5.0
        timing.delay(-999.0, 0.0)
        lateness = (5.0 * LATE.mean_sqrt_hazard) ** 2 / 2
        urgency = LATE.mean_lateness(0.0, 20.0) / lateness
        expected = (5.0 / (3.0 * urgency / 20.0**2 + 2.0 / old**2)) ** 0.5
        assert timing.send_at(old) == pytest.approx(expected)
        assert urgency < 0.1

    def test_ids_count_once_unless_their_number_is_given(self) -> None:
        timing = learned_timing()
        timing.on_added(4, 0.0)
        send(timing, 0.0)
        timing.delay(-999.0, -2.0)
        timing.delay(-999.0, 0.0, 3)
        # 3 · x² + (x + 2)² = 4 · 25
        assert timing.send_at(3.0) == pytest.approx(-0.5 + (0.25 + 24.0) ** 0.5)


class TestBudget:
    def test_ids_that_were_removed_cost_no_more_requests(self) -> None:
        timing = learned_timing()
        timing.on_added(3, 0.0)
        send(timing, 0.0)
        timing.on_removed([None, -1.0, 0.0])
        timing.on_answer(99.0, 100.0)
        assert requests(timing)[1] == 1

    def test_ids_added_while_a_request_is_in_flight_share_the_next_one_in_the_budget(self) -> None:
        timing = learned_timing()
        for _ in range(200):
            timing.on_answer(999.5, 1000.0)
        timing.on_added(1, 1000.0)
        timing.on_added(1, 1000.125)
        timing.on_answer(1000.0, 1000.45)
        assert requests(timing)[1] == 1, "the first response takes half a second"
        timing.on_answer(1000.0, 1000.55)
        assert requests(timing)[1] == 2

    def test_after_a_wait_that_was_cancelled_ids_are_sent_by_their_own_dues(self) -> None:
        timing = learned_timing()
        timing.on_added(2, 0.0)
        send(timing, 0.0, open_ids=2)
        timing.delay(-999.0, 0.0, 2)
        timing.on_removed([3.0])
        assert timing.send_at(7.0) == pytest.approx(5.0)
        timing.on_removed([None])
        assert timing.send_at(7.0) == 7.0


class TestLearning:
    def test_ended_and_open_tasks_are_counted_by_their_ages(self) -> None:
        timing = learned_timing(known=None)
        timing.observe_open(1000.0, 1064.0, 1069.0, 1)
        timing.observe_end(1000.0, 1069.0, 1071.0, 1)
        assert timing.pace.seen.ages() == [(64.0, 1.0, 5.0 + 1.0)]
        timing.observe_open(1000.0, 1064.0, 1069.0, 2)
        timing.observe_end(1000.0, 1069.0, 1071.0, 2)
        assert timing.pace.seen.ages() == [(64.0, 3.0, 3 * 6.0)]

    @pytest.mark.parametrize(
        ("last", "sent_at"),
        [(60.0, 60.0), (60.0, 50.0), (60.0, OLDEST_AGE), (60.0, OLDEST_AGE + 1.0), (1e7, 2e7)],
    )
    def test_polls_in_a_wrong_order_or_of_tasks_that_are_too_old_teach_nothing(
        self, last: float, sent_at: float
    ) -> None:
        timing = learned_timing(known=None)
        timing.observe_open(0.0, last, sent_at, 1)
        timing.observe_end(0.0, last, sent_at, 1)
        assert timing.pace.seen.ages() == []

    def test_the_hazard_is_learned_again_after_a_twentieth_more_ends(self) -> None:
        timing = learned_timing(Learned(5.0, seen(38)), known=None)
        delays: list[float] = []
        for _ in range(10):
            delays.append(timing.delay(0.0, 100.0))
            timing.observe_end(0.0, 60.0, 60.5, 1)
        learned = [before != after for before, after in pairwise(delays)]
        # 2 new ones of 40 are a twentieth, 3 of 41 are more; then 3 of 44 and of 47
        assert learned == [False, False, True, False, False, True, False, False, True]
