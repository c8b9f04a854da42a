"""Whether a rejected request is about the key: two in a row, and none answered in between."""

from luma_async.scheduling.key_rejections import KeyRejections


def test_the_second_rejection_in_a_row_counts_and_a_response_begins_again() -> None:
    rejections = KeyRejections(0.1)
    assert [rejections.count_rejection() for _ in range(3)] == [False, True, True]
    rejections.record_response()
    assert [rejections.count_rejection() for _ in range(2)] == [False, True]
