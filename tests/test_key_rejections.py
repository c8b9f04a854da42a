"""Whether a rejected request is about the key: two in a row, and none answered in between."""

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
