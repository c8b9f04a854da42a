"""The batch size, learned from rejected batches."""

import pytest

from luma_async.scheduling.capabilities import (
    FIRST_PROBE_DELAY,
    MAX_PROBE_DELAY,
    Capabilities,
    RowCoverage,
)
from luma_async.structs import State


def states(rows: int, state: State) -> dict[str, State]:
    return dict.fromkeys(map(str, range(rows)), state)


def test_a_batch_that_was_too_large_halves_the_batch_size() -> None:
    assert Capabilities(100).halved(100, 0.0).max_ids(0.0) == 50
    assert Capabilities(100).halved(5, 0.0).max_ids(0.0) == 3
    assert Capabilities(2).halved(100, 0.0).max_ids(0.0) == 2, "what was small enough stays"


def test_every_ten_minutes_twice_as_many_ids_are_tried_up_to_the_limit() -> None:
    capabilities = Capabilities(100).halved(40, 1000.0)
    times = (1000.0, 1599.0, 1600.0, 2199.0, 2200.0, 2800.0, 1e9)
    assert [capabilities.max_ids(at) for at in times] == [20, 20, 40, 40, 80, 100, 100]
    assert capabilities.halved(40, 1600.0).max_ids(1700.0) == 20


def test_a_batch_has_one_id_at_least() -> None:
    assert Capabilities(100).halved(1, 0.0).max_ids(0.0) == 1
    assert Capabilities(100).reduced_to(1, 0.0).max_ids(599.0) == 1
    assert Capabilities(100).reduced_to(1, 0.0).max_ids(600.0) == 2


def test_a_first_404_is_doubted_and_a_second_one_believed() -> None:
    size = Capabilities(100).after_no_route("ab", 0.0, has_others=True)
    assert size.has_batch(0.0)
    assert not size.after_no_route("cd", 1.0, has_others=True).has_batch(1.0)
    assert size.after_no_route("ac", 1.0, has_others=True).has_batch(1.0), "the id may be bad"
    assert not size.after_no_route("ab", 1.0, has_others=False).has_batch(1.0)
    passed = size.confirmed()
    assert passed.after_no_route("cd", 1.0, has_others=True).has_batch(1.0), "one passed"


def test_where_no_endpoint_is_there_a_proxy_answered() -> None:
    size = Capabilities(100).without_batch(0.0).without_batch(70.0).without_single(71.0)
    assert (size.max_ids(71.0), size.probe_delay) == (100, FIRST_PROBE_DELAY)
    assert size.has_single(71.0)


def test_once_the_batch_endpoint_is_tried_again_the_single_one_may_be_missing_alone() -> None:
    size = Capabilities(100).without_batch(0.0)
    assert [size.has_batch(at) for at in (59.9, 60.0)] == [False, True]
    assert not size.without_single(60.0).has_single(60.0)
    assert size.without_single(59.9).has_single(59.9)


def test_without_the_single_endpoint_it_is_tried_again_after_an_hour() -> None:
    size = Capabilities(100).without_single(0.0)
    assert [size.has_single(at) for at in (0.0, 3599.0, 3600.0)] == [False, False, True]


class TestRowCoverage:
    def test_equal_row_counts_and_proofs_show_a_cap(self) -> None:
        coverage = RowCoverage()
        for _ in range(2):
            coverage.record(100, states(50, State.PROCESSING))
        assert [coverage.prove([task_id]) for task_id in "abcdef"] == [None, None, 50] * 2

    def test_one_id_that_is_left_out_again_and_again_shows_no_cap(self) -> None:
        coverage = RowCoverage()
        for _ in range(10):
            coverage.record(31, states(30, State.PROCESSING))
            assert coverage.prove(["left out"]) is None

    def test_row_counts_that_differ_show_none(self) -> None:
        coverage = RowCoverage()
        for rows in (50, 49, 50, 37):
            coverage.record(100, states(rows, State.PROCESSING))
        assert {coverage.prove([str(number)]) for number in range(50)} == {None}

    def test_a_response_with_more_rows_shows_none(self) -> None:
        coverage = RowCoverage()
        for rows in (80, 50, 50):
            coverage.record(100, states(rows, State.PROCESSING))
        assert {coverage.prove([str(number)]) for number in range(50)} == {None}

    def test_responses_with_all_rows_show_none(self) -> None:
        coverage = RowCoverage()
        for _ in range(5):
            coverage.record(50, states(50, State.PROCESSING))
        assert {coverage.prove([task_id]) for task_id in "abc"} == {None}

    def test_responses_without_a_row_show_none(self) -> None:
        coverage = RowCoverage()
        for _ in range(2):
            coverage.record(50, {})
        assert [coverage.prove([task_id]) for task_id in "abc"] == [None] * 3

    def test_responses_without_a_running_task_are_of_no_use(self) -> None:
        coverage = RowCoverage()
        for rows in (3, 0, 2):
            assert not coverage.prove(f"{number} {rows}" for number in range(3))
            coverage.record(100, states(rows, State.COMPLETED))
        assert coverage.prove(["last"]) == 0

    def test_responses_with_a_row_for_each_id_are_of_use(self) -> None:
        coverage = RowCoverage()
        for rows in (3, 1, 2):
            coverage.record(rows, states(rows, State.COMPLETED))
        assert {coverage.prove([str(number)]) for number in range(20)} == {None}

    @pytest.mark.parametrize("before", ["nothing", "a running task", "none, by GET"])
    def test_three_such_responses_in_a_row_and_ten_such_ids_show_that(self, before: str) -> None:
        coverage = RowCoverage()
        if before == "a running task":
            coverage.record(100, states(5, State.PROCESSING))
        elif before == "none, by GET":
            coverage.record(100, states(1, State.COMPLETED))
            coverage.record_none()
        for rows in (3, 0, 2):
            assert coverage.prove(map(str, range(10))) is None
            coverage.record(100, states(rows, State.COMPLETED))
        assert coverage.prove(["0"]) == 0
        assert [coverage.prove([str(number)]) for number in range(10)] == [None] * 9 + [0]

    def test_at_most_ten_ids_are_remembered(self) -> None:
        coverage = RowCoverage()
        for number in range(100):
            assert coverage.prove([str(number)]) is None
        assert len(coverage._proofs) == 10  # pyright: ignore[reportPrivateUsage]

    def test_batches_are_no_worse_than_a_single_endpoint_that_answers_none(self) -> None:
        coverage = RowCoverage()
        for _ in range(5):
            coverage.record(100, {})
        coverage.record_none()
        assert {coverage.prove([str(number)]) for number in range(50)} == {None}

    def test_a_running_task_shows_that_they_are_of_use(self) -> None:
        coverage = RowCoverage()
        for rows in range(1, 60):
            coverage.record(100, states(rows, State.PROCESSING))
            assert coverage.prove([str(rows)]) is None


def test_without_a_batch_endpoint_ids_are_polled_singly_for_a_while() -> None:
    capabilities = Capabilities(100).without_batch(10.0)
    assert [capabilities.max_ids(at) for at in (10.0, 69.9, 70.0)] == [1, 1, 100]


def test_each_probe_delay_is_twice_the_one_before_up_to_a_cap() -> None:
    capabilities, now, delays = Capabilities(100), 0.0, list[float]()
    for _ in range(8):
        capabilities = capabilities.without_batch(now)
        delays.append(capabilities.no_batch_until - now)
        now = capabilities.no_batch_until
    assert (
        delays
        == [FIRST_PROBE_DELAY * factor for factor in (1, 2, 4, 8, 16, 32)] + [MAX_PROBE_DELAY] * 2
    )


def test_rejections_of_requests_sent_together_count_once() -> None:
    capabilities = Capabilities(100).without_batch(0.0)
    assert capabilities.without_batch(0.1) == capabilities


def test_an_answered_batch_resets_the_probe_delay() -> None:
    capabilities = Capabilities(100).without_batch(0.0).without_batch(100.0)
    assert capabilities.probe_delay == 4 * FIRST_PROBE_DELAY
    assert capabilities.confirmed().probe_delay == FIRST_PROBE_DELAY
    fresh = Capabilities(100)
    assert fresh.confirmed() is fresh, "it was not in doubt"
