"""The special care that one id needs: how long it is polled alone, and until when it is doubted."""

from math import inf

import pytest

from luma_async.scheduling.anomalies import Anomaly
from luma_async.scheduling.missing_evidence import Evidence


def left_out(*, omissions: int = 1, **fields: int) -> Anomaly:
    """Return an id that batches left out."""
    return Anomaly(doubted=True, evidence=Evidence(left_out=True, omissions=omissions), **fields)


def test_an_id_that_makes_batches_fail_is_polled_alone_for_twice_as_long_each_time() -> None:
    anomaly = Anomaly()
    for responses in (1, 2, 4, 8):
        anomaly.quarantine()
        for left in range(responses, 0, -1):
            assert anomaly.solo_polls_left == left
            assert not anomaly.on_row(single=True), "it proves nothing about batches"
        assert anomaly.solo_polls_left == 0


def test_a_new_anomaly_has_nothing_to_remember() -> None:
    anomaly = Anomaly()
    assert anomaly.is_clear
    assert not anomaly.is_undecided
    anomaly.quarantine()
    assert not anomaly.is_clear
    assert not anomaly.is_undecided, "only batches with it fail"


def test_an_id_that_batches_leave_out_is_polled_alone_for_0_1_3_7_responses() -> None:
    anomaly = Anomaly()
    for responses in (0, 1, 3, 7):
        anomaly.evidence = Evidence(left_out=True, omissions=1)
        anomaly.doubted = True
        assert anomaly.on_row(single=True), "the single endpoint knows it: a proof"
        assert anomaly.solo_polls_left == responses
        assert not anomaly.doubted
        for _ in range(responses):
            assert not anomaly.on_row(single=True), "one proof is enough"


def test_an_id_that_is_in_a_batch_again_needs_no_care_any_more() -> None:
    anomaly = left_out(quarantines=3)
    assert not anomaly.is_clear
    assert not anomaly.on_row(single=False)
    assert anomaly.quarantines == 0
    assert anomaly.is_clear


def test_after_the_single_endpoint_it_is_remembered_that_batches_left_it_out() -> None:
    anomaly = left_out()
    for _ in range(3):
        anomaly.on_row(single=True)
        assert not anomaly.is_clear
        assert not anomaly.is_undecided
    anomaly.on_row(single=False)
    assert anomaly.is_clear, "a batch contains it"


def test_a_batch_with_an_id_that_made_others_fail_does_not_end_its_quarantines() -> None:
    anomaly = Anomaly(quarantines=2, evidence=Evidence())
    anomaly.on_row(single=False)
    assert anomaly.quarantines == 2
    assert not anomaly.is_clear


@pytest.mark.parametrize("field", ["no_link_since", "unknown_state_since"])
def test_a_grace_period_is_prolonged_by_the_time_without_responses(field: str) -> None:
    anomaly = Anomaly()
    anomaly.after_silence(9.0)
    assert anomaly.link_deadline(0.0, 60.0) == inf
    setattr(anomaly, field, 10.0)
    assert anomaly.is_undecided
    assert anomaly.link_deadline(20.0, 60.0) == 70.0
    anomaly.after_silence(9.0)
    assert anomaly.link_deadline(20.0, 60.0) == 79.0
    assert anomaly.link_deadline(79.0, 60.0) == inf, "it is over"


def test_of_two_grace_periods_the_one_that_ends_first_counts() -> None:
    anomaly = Anomaly(no_link_since=10.0, unknown_state_since=5.0)
    assert anomaly.link_deadline(20.0, 60.0) == 65.0
    assert anomaly.link_deadline(66.0, 60.0) == 70.0
