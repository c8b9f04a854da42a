"""The batch size, learned from rejected batches."""

from luma_async.scheduling.batch_size import FIRST_PROBE_DELAY, MAX_PROBE_DELAY, BatchSize
from luma_async.scheduling.error_policy import Action


def test_a_batch_that_was_too_large_halves_the_batch_size() -> None:
    assert BatchSize(100).halved(100, 0.0).current(0.0) == 50
    assert BatchSize(100).halved(5, 0.0).current(0.0) == 3
    assert BatchSize(2).halved(100, 0.0).current(0.0) == 2, "what was small enough stays"


def test_every_ten_minutes_twice_as_many_ids_are_tried_up_to_the_limit() -> None:
    batch_size = BatchSize(100).halved(40, 1000.0)
    times = (1000.0, 1599.0, 1600.0, 2199.0, 2200.0, 2800.0, 1e9)
    assert [batch_size.current(at) for at in times] == [20, 20, 40, 40, 80, 100, 100]
    assert batch_size.halved(40, 1600.0).current(1700.0) == 20


def test_without_a_single_endpoint_either_batches_are_tried_again() -> None:
    batch_size = BatchSize(100).without_batch(0.0).without_batch(70.0).batch_restored()
    assert (batch_size.current(71.0), batch_size.probe_delay) == (100, FIRST_PROBE_DELAY)


def test_a_single_id_does_not_change_the_batch_size() -> None:
    for action in (*Action, None):
        assert BatchSize(100).after(action, 1, 0.0) == BatchSize(100)


def test_each_action_has_its_effect_on_the_batch_size() -> None:
    batch_size = BatchSize(100, probe_delay=480.0)
    assert batch_size.after(Action.SHRINK_BATCH, 100, 0.0) == batch_size.halved(100, 0.0)
    assert batch_size.after(Action.NO_BATCH_ENDPOINT, 100, 7.0) == batch_size.without_batch(7.0)
    assert batch_size.after(None, 100, 0.0) == batch_size.confirmed()
    for action in (Action.RETRY, Action.BISECT, Action.NOT_FOUND, Action.ABORT):
        assert batch_size.after(action, 100, 0.0) == batch_size


def test_without_a_batch_endpoint_ids_are_polled_singly_for_a_while() -> None:
    batch_size = BatchSize(100).without_batch(10.0)
    assert [batch_size.current(at) for at in (10.0, 69.9, 70.0)] == [1, 1, 100]


def test_each_probe_delay_is_twice_the_one_before_up_to_a_cap() -> None:
    batch_size, now, delays = BatchSize(100), 0.0, list[float]()
    for _ in range(8):
        batch_size = batch_size.without_batch(now)
        delays.append(batch_size.no_batch_until - now)
        now = batch_size.no_batch_until
    assert (
        delays
        == [FIRST_PROBE_DELAY * factor for factor in (1, 2, 4, 8, 16, 32)] + [MAX_PROBE_DELAY] * 2
    )


def test_rejections_of_requests_sent_together_count_once() -> None:
    batch_size = BatchSize(100).without_batch(0.0)
    assert batch_size.without_batch(0.1) == batch_size


def test_an_answered_batch_resets_the_probe_delay() -> None:
    batch_size = BatchSize(100).without_batch(0.0).without_batch(100.0)
    assert batch_size.probe_delay == 4 * FIRST_PROBE_DELAY
    assert batch_size.confirmed().probe_delay == FIRST_PROBE_DELAY
