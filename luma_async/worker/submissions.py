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


def is_answer(waiting: Submission | None, stored: StoredKey) -> bool:
    """Return whether a stored result answers the present submission of its id.

    `waiting` is the submission in the wait stream, read before the result was read.
    """
    # waiting   stored                        answer
    # any       not a result                  no
    # none      any                           yes: its submission was acknowledged
    # present   of the same                   yes: stored, but not acknowledged yet
    # present   of a later one                yes: stored after `waiting` was read
    # present   without a time (0.1.0)        if the number is equal or later, and if it was stored
    #                                         after the submission
    # present   of another                    no
    answered = stored.submission
    if answered is None or waiting is None:
        return answered is not None
    if answered.time == UNKNOWN:
        return answered.sequence >= waiting.sequence and stored.time >= waiting.time
    return answered == waiting or answered.is_certainly_after(waiting)
