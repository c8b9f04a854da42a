"""Storing a result by compare-and-set: the server's check decides, no window of time.

`store_result` is the loop: publish, and after a conflict read what is stored and what waits, decide
by `submissions.expected_sequence`, publish again. The first publish expects that no result of the
id is stored, which is true for almost all ids: it costs one request. A worker that was cut off or
frozen reads first: a newer result may have been stored and deleted again.
"""

from datetime import UTC, datetime, timedelta
from typing import Protocol

import nats.js.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api

from luma_async.worker.server.streams import Names, is_conflict
from luma_async.worker.storage.results import decode_result
from luma_async.worker.storage.submissions import (
    NO_RESULT,
    StoredKey,
    Submission,
    expected_sequence,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SHORT_REPLY = 9  # tokens of the reply subject of a server without domains; the longer one has 11
_TIME_TOKEN = {True: 7, False: 9}


class ResultStore(Protocol):
    """The requests about one id that `store_result` makes."""

    async def publish(self, expected: int, /) -> bool:
        """Store the result if the last one of the id has this sequence; return whether it had."""
        ...

    async def read_stored(self) -> StoredKey | None:
        """Read the last stored result."""
        ...

    async def read_waiting(self) -> Submission | None:
        """Read the submission in the wait stream."""
        ...


async def store_result(
    store: ResultStore, submission: Submission, *, is_leased: bool = True
) -> bool:
    """Store the result of a submission. Return False if it must not replace the stored one.

    With `is_leased`, the worker has held the id without interruption: no newer submission exists.
    """
    expected = NO_RESULT
    while not (is_leased and await store.publish(expected)):
        is_leased = True
        stored = await store.read_stored()
        waiting = await store.read_waiting()
        decision = expected_sequence(submission, waiting=waiting, stored=stored)
        if decision is None:
            return False
        expected = decision
    return True


class IdStreams:
    """The messages of one id in the two streams of a pool. Raises the errors of nats-py."""

    def __init__(self, js: JetStreamContext, names: Names, token: str) -> None:
        self._js = js
        self._names = names
        self._token = token

    async def publish(self, payload: bytes, expected: int) -> bool:
        """Store a result if the last one has the sequence `expected`; return whether it had."""
        headers = {api.Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value: str(expected)}
        try:
            await self._js.publish(self._names.done_subject(self._token), payload, headers=headers)
        except nats.js.errors.APIError as error:
            if is_conflict(error):
                return False
            raise
        return True

    async def read_result(self) -> tuple[StoredKey, bytes] | None:
        """Read the last stored result, and its content."""
        # From the leader of the stream: another node of a cluster may be behind.
        subject = self._names.done_subject(self._token)
        try:
            message = await self._js.get_last_msg(self._names.done, subject)
        except nats.js.errors.NotFoundError:
            return None
        payload = message.data or b""
        stored_at = microseconds(message.time or _EPOCH)
        try:
            submission = decode_result(payload, subject).key
        except ValueError:
            submission = None
        return StoredKey(message.seq or 0, stored_at, submission), payload

    async def read_waiting(self) -> Submission | None:
        """Read the submission in the wait stream."""
        subject = self._names.wait_subject(self._token)
        try:
            message = await self._js.get_last_msg(self._names.wait, subject)
        except nats.js.errors.NotFoundError:
            return None
        return Submission(message.seq or 0, microseconds(message.time or _EPOCH))


def submission_of(message: Msg) -> Submission:
    """Return the submission that a message of the wait stream is.

    Its time is read from the reply subject, which has nanoseconds; nats-py rounds them.
    """
    tokens = message.reply.split(".")
    nanoseconds = int(tokens[_TIME_TOKEN[len(tokens) == _SHORT_REPLY]])
    return Submission(message.metadata.sequence.stream, nanoseconds // 1000)


def microseconds(moment: datetime) -> int:
    """Return an aware time as microseconds since the Unix epoch."""
    return (moment - _EPOCH) // _MICROSECOND
