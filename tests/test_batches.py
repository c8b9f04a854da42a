"""What one request asks about, and at which endpoint."""

import pytest

from luma_async.scheduling.anomalies import Anomaly
from luma_async.scheduling.batches import Batch
from luma_async.scheduling.items import Group, Item, Transition
from luma_async.scheduling.missing_evidence import Evidence


def group_of(*ids: str, failed: int = 0, anomaly: Anomaly | None = None) -> Group[str]:
    group = Group([Item[str](task_id, 0.0, 0.0, anomaly=anomaly) for task_id in ids], 0.0)
    group.apply(Transition.SUBSCRIBE)
    group.failed_attempts = failed
    return group


def single(anomaly: Anomaly | None = None, failed: int = 0) -> Batch[str]:
    return Batch([group_of("a", failed=failed, anomaly=anomaly)], 0.0)


def uses_batch_endpoint(
    batch: Batch[str], *, has_single: bool = True, has_batch: bool = True
) -> bool:
    batch.choose_endpoint(has_single=has_single, has_batch=has_batch)
    return batch.use_batch_endpoint


def test_several_ids_are_asked_about_by_the_batch_endpoint_and_one_by_get() -> None:
    several = Batch([group_of("a"), group_of("b", "c")], 3.0)
    assert several.ids == ("a", "b", "c")
    assert (several.sent_at, several.watched_count) == (3.0, 3)
    assert several.use_batch_endpoint
    assert uses_batch_endpoint(several, has_batch=False)
    assert not single().use_batch_endpoint
    assert not uses_batch_endpoint(single())


def test_where_there_is_no_single_endpoint_a_single_id_is_a_batch() -> None:
    assert uses_batch_endpoint(single(), has_single=False, has_batch=False)


def test_after_six_failures_every_other_get_becomes_a_batch_of_one_id() -> None:
    failures = range(13)
    tried = [count for count in failures if uses_batch_endpoint(single(failed=count))]
    assert tried == [8, 10, 12]
    assert not any(uses_batch_endpoint(single(failed=n), has_batch=False) for n in failures)


@pytest.mark.parametrize(
    ("evidence", "is_tried"),
    [
        (None, False),
        (Evidence(), False),
        (Evidence(not_found=0.1), True),
        (Evidence(not_found=9.0), True),
        (Evidence(not_found=9.0, left_out=True), False),
        (Evidence(not_found=9.0, tried_batch=True), False),
    ],
)
def test_an_id_that_get_does_not_know_again_is_asked_about_once_by_the_batch_endpoint(
    evidence: Evidence | None, is_tried: bool
) -> None:
    anomaly = Anomaly(evidence=evidence)
    assert uses_batch_endpoint(single(anomaly)) is is_tried
    if is_tried:
        assert evidence
        assert evidence.tried_batch
        assert not uses_batch_endpoint(single(anomaly)), "once"


def test_a_single_request_does_not_count_as_tried_at_the_batch_endpoint() -> None:
    evidence = Evidence(not_found=9.0)
    assert not uses_batch_endpoint(single(Anomaly(evidence=evidence)), has_batch=False)
    assert not evidence.tried_batch


def test_a_batch_is_in_quarantine_if_its_only_id_is() -> None:
    for left, is_quarantined in ((0, False), (1, True), (2, True)):
        assert single(Anomaly(solo_polls_left=left)).is_quarantined is is_quarantined
    assert single().is_quarantined is False
    assert not Batch([group_of("a", "b", anomaly=Anomaly(solo_polls_left=1))], 0.0).is_quarantined


def test_a_batch_hangs_if_some_of_its_ids_timed_out_before() -> None:
    calm, hanging = group_of("a"), group_of("b")
    hanging.hangs = True
    assert Batch([group_of("c")], 0.0).hangs is False
    assert Batch([calm, hanging], 0.0).hangs is True


def test_of_its_ids_the_one_that_was_heard_of_and_watched_last_counts() -> None:
    groups = [group_of("a"), group_of("b"), group_of("c")]
    for group, heard_at, watched_since in zip(groups, (2, 4, 3), (6, 5, 7), strict=True):
        group.last_heard_at = heard_at
        group.items[0].watched_since = watched_since
    batch = Batch(groups, 9.0)
    assert (batch.last_heard_at, batch.watched_since) == (4, 7)
