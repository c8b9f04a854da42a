"""Which submission of an id a result answers, and whether it may be stored. Pure.

An id can be submitted again after its result was stored. A worker that was frozen or cut off may
then still hold a result of an earlier submission. Neither may that result replace a newer one, nor
may a reader take it for the answer to a newer submission. No time limit decides that:

- The server has one message per id in the wait stream, and accepts the next one only after the
  first was acknowledged. So a submission is the newest one as long as its message is there.
- A result is stored by compare-and-set: the server accepts it only if the last result of the id is
  the one that the worker has read before it read the wait stream. A worker that was frozen between
  the two and the publish is rejected, and reads both again.

A submission is identified by its sequence number in the wait stream and the time at which the
server stored it. Neither is enough alone: numbers begin again if the stream is created again, or if
the server starts without the newest part of its data; the clock of a server may be set back.
"""

from msgspec import Struct

UNKNOWN = 0  # time of a submission in a result that was stored by version 0.1.0
NO_RESULT = 0  # sequence to expect if no result of the id is stored


class Submission(Struct, frozen=True):
    """One submission of an id.

    `sequence` is its number in the wait stream. `time` is the server's time of storing it, in
    microseconds since the Unix epoch, or UNKNOWN.
    """

    sequence: int
    time: int

    def is_certainly_after(self, other: "Submission") -> bool:
        """Return whether both number and time are later."""
        return self.sequence > other.sequence and self.time > other.time


class StoredKey(Struct, frozen=True):
    """The last stored result of an id, without its content.

    `sequence` is its number in the done stream. `submission` is the one that it answers, or None if
    the message is not a result. `time` is when it was stored, in microseconds.
    """

    sequence: int
    time: int
    submission: Submission | None

    def answers(self, submission: Submission) -> bool:
        """Return whether the result is that of `submission`."""
        answered = self.submission
        if answered is not None and answered.time == UNKNOWN:
            return answered.sequence == submission.sequence and self.time >= submission.time
        return answered == submission


def expected_sequence(
    own: Submission, *, waiting: Submission | None, stored: StoredKey | None
) -> int | None:
    """Return the last result to expect when the result of `own` is published, or None to drop it.

    `waiting` is the submission of the id that is in the wait stream, read after `stored`.
    """
    # waiting   stored               decision
    # other     any                  drop: the other submission gets a result of its own
    # any       of own               drop: stored already
    # own       none                 publish, expect no result
    # own       of another           publish, expect that one: own is the newest submission
    # none      none                 publish, expect no result: own was lost from the wait stream
    # none      not a result         publish, expect that one
    # none      of an earlier one    publish, expect that one
    # none      of another           drop: own was acknowledged, or it cannot be decided
    if waiting not in (None, own):
        return None
    if stored is None:
        return NO_RESULT
    if stored.answers(own):
        return None
    answered = stored.submission
    if waiting is not None or answered is None or own.is_certainly_after(answered):
        return stored.sequence
    return None


def newest_known(awaited: Submission | None, waiting: Submission | None) -> Submission | None:
    """Return the submission that a wait awaits from now on.

    `awaited` is the one that it has awaited so far, `waiting` the one that is in the wait stream.
    If `waiting` is the earlier one, the server has lost the newest part of its data.
    """
    if awaited is None or waiting is None:
        return awaited or waiting
    return awaited if awaited.is_certainly_after(waiting) else waiting


def is_answer(
    awaited: Submission | None, stored: StoredKey, *, is_acknowledged: bool = False
) -> bool:
    """Return whether a stored result answers the submission that a wait awaits.

    `awaited` is None if the wait has found no submission of the id. With `is_acknowledged`, the
    wait stream had no submission of it, just before the result was read.
    """
    # awaited   stored                        answer
    # any       not a result                  no
    # none      any                           yes: its submission was acknowledged
    # known     of the same                   yes: stored, perhaps not acknowledged yet
    # known     of a later one                yes: stored after the submission was read
    # known     without a time (0.1.0)        if the number is equal or later, and if it was stored
    #                                         after the submission
    # known     of another                    no; yes if it is acknowledged, and the other one was
    #                                         submitted later: numbers have begun again
    answered = stored.submission
    if answered is None or awaited is None:
        return answered is not None
    if answered.time == UNKNOWN:
        return answered.sequence >= awaited.sequence and stored.time >= awaited.time
    if is_acknowledged and answered.time > awaited.time:
        return True
    return answered == awaited or answered.is_certainly_after(awaited)
