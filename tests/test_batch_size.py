"""What refusals teach about the batch call."""

from luma_async.scheduling.batch_size import FIRST_PROBE_DELAY, MAX_PROBE_DELAY, BatchSize
from luma_async.scheduling.error_policy import Action


def test_a_request_that_was_too_large_halves_those_that_come() -> None:
    assert BatchSize(100).halved(100, 0.0).current(0.0) == 50
    assert BatchSize(100).halved(5, 0.0).current(0.0) == 3
    assert BatchSize(2).halved(100, 0.0).current(0.0) == 2, "what was small enough stays"


def test_every_ten_minutes_twice_as_much_is_tried_up_to_the_limit() -> None:
    seats = BatchSize(100).halved(40, 1000.0)
    times = (1000.0, 1599.0, 1600.0, 2199.0, 2200.0, 2800.0, 1e9)
    assert [seats.current(at) for at in times] == [20, 20, 40, 40, 80, 100, 100]
    assert seats.halved(40, 1600.0).current(1700.0) == 20


def test_where_the_single_call_is_not_there_either_batches_are_tried_again() -> None:
    seats = BatchSize(100).without_batch(0.0).without_batch(70.0).batch_restored()
    assert (seats.current(71.0), seats.probe_delay) == (100, FIRST_PROBE_DELAY)


def test_one_id_alone_teaches_nothing_about_many() -> None:
    for verdict in (*Action, None):
        assert BatchSize(100).after(verdict, 1, 0.0) == BatchSize(100)


def test_what_becomes_of_a_batch_is_remembered_by_what_it_means() -> None:
    seats = BatchSize(100, probe_delay=480.0)
    assert seats.after(Action.SHRINK_BATCH, 100, 0.0) == seats.halved(100, 0.0)
    assert seats.after(Action.NO_BATCH_ENDPOINT, 100, 7.0) == seats.without_batch(7.0)
    assert seats.after(None, 100, 0.0) == seats.confirmed()
    for verdict in (Action.RETRY, Action.BISECT, Action.NOT_FOUND, Action.ABORT):
        assert seats.after(verdict, 100, 0.0) == seats


def test_without_the_batch_call_ids_are_asked_singly_for_a_spell() -> None:
    seats = BatchSize(100).without_batch(10.0)
    assert [seats.current(at) for at in (10.0, 69.9, 70.0)] == [1, 1, 100]


def test_each_spell_is_twice_as_long_as_the_one_before_up_to_a_cap() -> None:
    seats, now, spells = BatchSize(100), 0.0, list[float]()
    for _ in range(8):
        seats = seats.without_batch(now)
        spells.append(seats.no_batch_until - now)
        now = seats.no_batch_until
    assert (
        spells
        == [FIRST_PROBE_DELAY * factor for factor in (1, 2, 4, 8, 16, 32)] + [MAX_PROBE_DELAY] * 2
    )


def test_refusals_of_requests_that_departed_together_count_once() -> None:
    seats = BatchSize(100).without_batch(0.0)
    assert seats.without_batch(0.1) == seats


def test_a_batch_that_is_answered_makes_the_next_spell_a_short_one() -> None:
    seats = BatchSize(100).without_batch(0.0).without_batch(100.0)
    assert seats.probe_delay == 4 * FIRST_PROBE_DELAY
    assert seats.confirmed().probe_delay == FIRST_PROBE_DELAY
