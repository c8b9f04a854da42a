"""What refusals teach about the batch call."""

from luma_async.scheduling.batch_size import FIRST_SPELL, LONGEST_SPELL, Seats
from luma_async.scheduling.error_policy import Verdict


def test_a_request_that_was_too_large_halves_those_that_come() -> None:
    assert Seats(100).shrunk(100, 0.0).at(0.0) == 50
    assert Seats(100).shrunk(5, 0.0).at(0.0) == 3
    assert Seats(2).shrunk(100, 0.0).at(0.0) == 2, "what was small enough stays"


def test_every_ten_minutes_twice_as_much_is_tried_up_to_the_limit() -> None:
    seats = Seats(100).shrunk(40, 1000.0)
    times = (1000.0, 1599.0, 1600.0, 2199.0, 2200.0, 2800.0, 1e9)
    assert [seats.at(at) for at in times] == [20, 20, 40, 40, 80, 100, 100]
    assert seats.shrunk(40, 1600.0).at(1700.0) == 20


def test_where_the_single_call_is_not_there_either_batches_are_tried_again() -> None:
    seats = Seats(100).singly(0.0).singly(70.0).doubted()
    assert (seats.at(71.0), seats.spell) == (100, FIRST_SPELL)


def test_one_id_alone_teaches_nothing_about_many() -> None:
    for verdict in (*Verdict, None):
        assert Seats(100).learned(verdict, 1, 0.0) == Seats(100)


def test_what_becomes_of_a_batch_is_remembered_by_what_it_means() -> None:
    seats = Seats(100, spell=480.0)
    assert seats.learned(Verdict.SHRINK, 100, 0.0) == seats.shrunk(100, 0.0)
    assert seats.learned(Verdict.SINGLES, 100, 7.0) == seats.singly(7.0)
    assert seats.learned(None, 100, 0.0) == seats.proven()
    for verdict in (Verdict.AGAIN, Verdict.SPLIT, Verdict.ABSENT, Verdict.ABORT):
        assert seats.learned(verdict, 100, 0.0) == seats


def test_without_the_batch_call_ids_are_asked_singly_for_a_spell() -> None:
    seats = Seats(100).singly(10.0)
    assert [seats.at(at) for at in (10.0, 69.9, 70.0)] == [1, 1, 100]


def test_each_spell_is_twice_as_long_as_the_one_before_up_to_a_cap() -> None:
    seats, now, spells = Seats(100), 0.0, list[float]()
    for _ in range(8):
        seats = seats.singly(now)
        spells.append(seats.singly_until - now)
        now = seats.singly_until
    assert spells == [FIRST_SPELL * factor for factor in (1, 2, 4, 8, 16, 32)] + [LONGEST_SPELL] * 2


def test_refusals_of_requests_that_departed_together_count_once() -> None:
    seats = Seats(100).singly(0.0)
    assert seats.singly(0.1) == seats


def test_a_batch_that_is_answered_makes_the_next_spell_a_short_one() -> None:
    seats = Seats(100).singly(0.0).singly(100.0)
    assert seats.spell == 4 * FIRST_SPELL
    assert seats.proven().spell == FIRST_SPELL
