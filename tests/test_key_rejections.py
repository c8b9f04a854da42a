"""Whether a rejected request is about the key: two in a row, and none answered in between."""

import pytest

from luma_async.scheduling.key_rejections import KeyRejections


def test_the_second_rejection_in_a_row_counts_and_a_response_begins_again() -> None:
    rejections = KeyRejections(0.1)
    assert [rejections.count_rejection() for _ in range(3)] == [False, True, True]
    rejections.record_response()
    assert [rejections.count_rejection() for _ in range(2)] == [False, True]


def rejected(rejections: KeyRejections, *ids: str, at: float) -> bool:
    return rejections.record_rejection(ids, at, at, has_others=True)


def test_two_rejections_about_different_ids_within_two_seconds_are_about_the_key() -> None:
    for seconds, is_about_the_key in ((2.0, True), (2.1, False)):
        rejections = KeyRejections(0.1)
        assert not rejected(rejections, "a", "b", at=5.0)
        assert rejected(rejections, "c", at=5.0 + seconds) is is_about_the_key
        assert rejections.count_rejection(), "each poll counts, too"


def test_with_few_requests_they_may_be_two_spacings_apart() -> None:
    for seconds, is_about_the_key in ((10.0, True), (10.1, False)):
        rejections = KeyRejections(5.0)
        rejected(rejections, "a", at=0.0)
        assert rejected(rejections, "b", at=seconds) is is_about_the_key


def test_after_a_response_the_next_rejection_is_the_first() -> None:
    rejections = KeyRejections(0.1)
    rejected(rejections, "a", at=0.0)
    assert rejected(rejections, "b", at=1.0)
    rejections.record_response()
    assert not rejections.is_rejected
    assert not rejected(rejections, "c", at=1.5)


@pytest.mark.parametrize(
    ("second", "has_others", "is_about_the_key"),
    [
        (["c"], True, True),
        (["a"], True, False),
        (["b", "c"], True, False),
        (["a"], False, True),
        (["b", "c"], False, True),
    ],
)
def test_the_same_ids_count_again_only_if_no_others_are_open(
    second: list[str], has_others: bool, is_about_the_key: bool
) -> None:
    rejections = KeyRejections(0.1)
    rejections.record_rejection(["a", "b"], 0.0, 0.1, has_others=has_others)
    found = rejections.record_rejection(second, 0.2, 0.3, has_others=has_others)
    assert found is rejections.is_rejected is is_about_the_key


def test_the_second_request_counts_by_when_it_was_sent_after_the_first_was_rejected() -> None:
    rejections = KeyRejections(0.1)
    rejections.record_rejection(["a"], 0.0, 5.0, has_others=True)
    assert rejections.record_rejection(["b"], 7.0, 99.0, has_others=True)
    rejections.record_response()
    rejections.record_rejection(["a"], 0.0, 5.0, has_others=True)
    assert not rejections.record_rejection(["b"], 7.1, 7.1, has_others=True)
