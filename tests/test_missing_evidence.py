"""What several answers without a row of an id add up to, before it counts as missing."""

from math import inf

import pytest

from luma_async.scheduling.missing_evidence import RULES, STRONG, WEAK, Evidence, Sign

GRACE = 60.0


def answers_until_decided(evidence: Evidence, *, between: float, omitted: bool) -> int:
    """Return after how many answers "there is none", `between` seconds apart, it is missing."""
    for number in range(100):
        if number and omitted:
            evidence.omit(seen=False, proved=False)
        evidence.add(STRONG, number * between, GRACE)
        if evidence.is_decided(STRONG, GRACE):
            return number + 1
    raise AssertionError("never decided")


@pytest.mark.parametrize("between", [GRACE / 6.0, GRACE, 3600.0])
def test_it_takes_seven_answers_however_far_apart(between: float) -> None:
    assert answers_until_decided(Evidence(), between=between, omitted=False) == 7


@pytest.mark.parametrize("between", [GRACE / 2.0, 3600.0])
def test_it_takes_three_answers_if_batches_left_the_id_out_between_them(between: float) -> None:
    assert answers_until_decided(Evidence(), between=between, omitted=True) == 3


def test_what_batches_said_before_the_first_answer_does_not_count_after_it() -> None:
    evidence = Evidence()
    evidence.omit(seen=False, proved=False)
    assert answers_until_decided(evidence, between=3600.0, omitted=False) == 7


def test_an_answer_that_came_once_decides_nothing() -> None:
    evidence = Evidence()
    evidence.add(STRONG, 0.0, GRACE)
    assert 0.0 < evidence.remaining(STRONG, GRACE) < inf


def test_the_seconds_after_an_answer_of_another_kind_are_doubtful_alone() -> None:
    evidence = Evidence()
    evidence.add(WEAK, 0.0, GRACE)
    evidence.add(STRONG, 3600.0, GRACE)
    assert evidence.remaining(STRONG, GRACE) == GRACE


def test_an_id_that_get_was_asked_about_is_asked_about_again_after_one_more_batch() -> None:
    new, asked = Evidence(), Evidence()
    asked.add(STRONG, 0.0, GRACE)
    assert [new.omit(seen=False, proved=False) for _ in range(2)] == [False, True]
    assert [asked.omit(seen=False, proved=False) for _ in range(3)] == [False, False, True]


def test_seven_answers_that_the_key_may_not_see_it_are_enough() -> None:
    evidence, forbidden = Evidence(), RULES[Sign.FORBIDDEN]
    for number in range(7):
        assert not evidence.is_decided(forbidden, GRACE)
        evidence.add(forbidden, 3600.0 * number, GRACE)
    assert evidence.is_decided(forbidden, GRACE)
    assert evidence.not_found == 0.0


def test_signs_that_alternate_take_ten_times_the_grace_period() -> None:
    evidence = Evidence()
    rules = [STRONG, RULES[Sign.FORBIDDEN]] * 31
    decided: list[int] = []
    for number, rule in enumerate(rules):
        evidence.add(rule, number * GRACE / 6.0, GRACE)
        if evidence.is_decided(rule, GRACE):
            decided.append(number)
    assert decided == [60, 61]
    assert (evidence.not_found, evidence.forbidden) == (0.0, 0.0)


def test_where_batches_provably_leave_ids_out_one_of_them_is_enough_to_ask_again() -> None:
    evidence = Evidence()
    assert not evidence.left_out
    assert [evidence.omit(seen=True, proved=False) for _ in range(2)] == [False, False]
    assert evidence.left_out
    assert Evidence().omit(seen=True, proved=True)


def test_after_a_rejected_get_one_batch_that_leaves_the_id_out_is_enough_to_ask_again() -> None:
    """A rejection says nothing of the task, so it is no answer about it."""
    rejected, answered = Evidence(), Evidence()
    for evidence, rule in ((rejected, WEAK), (answered, STRONG)):
        assert [evidence.omit(seen=False, proved=False) for _ in range(2)] == [False, True]
        evidence.add(rule, 0.0, GRACE)
    assert rejected.omit(seen=False, proved=False)
    assert [answered.omit(seen=False, proved=False) for _ in range(3)] == [False, False, True]
