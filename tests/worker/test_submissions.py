"""Which result may be stored, and which one answers a wait: the tables of cases."""

import pytest

from luma_async.worker.storage.submissions import (
    UNKNOWN,
    StoredKey,
    Submission,
    expected_sequence,
    is_answer,
    newest_known,
)

OWN = Submission(7, 1_007)
EARLIER, LATER = Submission(5, 1_005), Submission(9, 1_009)
RECREATED = Submission(1, 2_001)  # the numbers of the wait stream began again
CLOCK_BACK = Submission(9, 1_003)
OLD_FORMAT = Submission(7, UNKNOWN)


def stored(submission: Submission | None, sequence: int = 40, time: int = 1_500) -> StoredKey:
    return StoredKey(sequence, time, submission)


@pytest.mark.parametrize(
    ("waiting", "result", "expected"),
    [
        (OWN, None, 0),
        (OWN, stored(OWN), None),
        (OWN, stored(EARLIER), 40),
        (OWN, stored(LATER), 40),  # the server lost its newest data
        (OWN, stored(RECREATED), 40),
        (OWN, stored(None), 40),
        (OWN, stored(OLD_FORMAT), None),
        (OWN, stored(OLD_FORMAT, time=1_007), None),
        (OWN, stored(OLD_FORMAT, time=900), 40),  # stored before this submission
        (LATER, None, None),
        (LATER, stored(EARLIER), None),
        (RECREATED, stored(EARLIER), None),
        (Submission(7, 2_007), stored(EARLIER), None),  # the same number, used a second time
        (None, None, 0),
        (None, stored(OWN), None),
        (None, stored(EARLIER), 40),
        (None, stored(LATER), None),
        (None, stored(RECREATED), None),
        (None, stored(CLOCK_BACK), None),
        (None, stored(None), 40),
    ],
)
def test_a_result_is_published_or_dropped(
    waiting: Submission | None, result: StoredKey | None, expected: int | None
) -> None:
    assert expected_sequence(OWN, waiting=waiting, stored=result) == expected


@pytest.mark.parametrize(
    ("waiting", "result", "answer"),
    [
        (None, stored(EARLIER), True),
        (None, stored(None), False),
        (OWN, stored(OWN), True),
        (OWN, stored(EARLIER), False),
        (OWN, stored(LATER), True),
        (OWN, stored(RECREATED), False),
        (RECREATED, stored(OWN), False),
        (Submission(7, 2_007), stored(OWN), False),
        (OWN, stored(Submission(7, 2_007)), False),  # the same number, used a second time
        (OWN, stored(Submission(9, 1_007)), False),  # the same time, as of a clock that stands
        (OWN, stored(CLOCK_BACK), False),
        (OWN, stored(OLD_FORMAT), True),
        (OWN, stored(OLD_FORMAT, time=1_007), True),
        (OWN, stored(OLD_FORMAT, time=900), False),
        (OWN, stored(Submission(8, UNKNOWN)), True),
        (OWN, stored(Submission(6, UNKNOWN)), False),
        (OWN, stored(None), False),
    ],
)
def test_a_result_answers_its_own_submission_or_an_earlier_one(
    waiting: Submission | None, result: StoredKey, answer: bool
) -> None:
    assert is_answer(waiting, result) is answer


@pytest.mark.parametrize(
    ("awaited", "result", "answer"),
    [
        (OWN, stored(OWN), True),
        (OWN, stored(EARLIER), False),  # the server has lost the submission
        (OWN, stored(LATER), True),
        (OWN, stored(RECREATED), True),
        (OWN, stored(Submission(1, 1_007)), False),  # the same time proves nothing
        (RECREATED, stored(OWN), False),
        (OWN, stored(None), False),
        (None, stored(OWN), True),
    ],
)
def test_a_lost_submission_is_answered_by_a_later_one_only(
    awaited: Submission | None, result: StoredKey, answer: bool
) -> None:
    assert is_answer(awaited, result, is_acknowledged=True) is answer


@pytest.mark.parametrize(
    ("awaited", "waiting", "newest"),
    [
        (None, None, None),
        (None, OWN, OWN),
        (OWN, None, OWN),
        (OWN, EARLIER, OWN),
        (OWN, LATER, LATER),
        (OWN, RECREATED, RECREATED),
    ],
)
def test_a_wait_awaits_the_newest_submission_that_it_knows(
    awaited: Submission | None, waiting: Submission | None, newest: Submission | None
) -> None:
    assert newest_known(awaited, waiting) == newest
