"""How an id and its result are stored: the token of its subject, and the JSON of its result.

An id becomes one token of a NATS subject by percent-encoding; a long one by its SHA-256. A result
that is larger than a message may be is stored without the relay's own object, then without all
other fields but state, link, reason and time of creation.
"""

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from enum import StrEnum
from urllib.parse import quote, unquote_to_bytes

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from luma_async.structs import Generation, State, Video
from luma_async.text import hashed_name
from luma_async.worker.storage.submissions import UNKNOWN, Submission

MAX_TOKEN_LENGTH = 200  # characters
MAX_REASON_LENGTH = 1000  # characters of a failure reason, in a result that does not fit


class EndState(StrEnum):
    """Final state of an id: the state of its task, or why the workers could not learn it."""

    COMPLETED = "completed"
    FAILED = "failed"
    MISSING = "missing"
    GAVE_UP = "gave_up"


class End(Struct, frozen=True, kw_only=True):
    """The stored result of one submitted id.

    `generation` is the task: for `gave_up` the last known version of it, or None; for `missing`
    None. `told_at` is the time at which the result was stored (an aware datetime). `sequence` is
    its position among all results: `results(since=end.sequence)` continues after it.
    """

    id: str
    state: EndState
    generation: Generation | None
    sequence: int
    told_at: datetime


class StoredResult(Struct):
    """The JSON of a result.

    `url` is the best link, for readers in other languages. `submission` and `submission_time` show
    which submission of the id this result belongs to (see `submissions.Submission`).
    """

    id: str
    state: EndState
    url: str | None
    submission: int
    generation: Generation | None
    submission_time: int = UNKNOWN

    @property
    def key(self) -> Submission:
        """The submission that this is the result of."""
        return Submission(self.submission, self.submission_time)


_TASK_STATES = (EndState.COMPLETED, EndState.FAILED)
_result_decoder = msgspec.json.Decoder(StoredResult)


def subject_token(task_id: str) -> str:
    """Return the id as one token of a NATS subject: percent-encoded, or hashed if it is long."""
    quoted = quote(task_id, safe="").replace(".", "%2E").replace("~", "%7E")
    if len(quoted) <= MAX_TOKEN_LENGTH:
        return quoted
    return hashed_name(task_id)


def submitted_id(subject: str, payload: bytes) -> str:
    """Return the id in a message: its payload, or the token of its subject if that is empty.

    Raises ValueError if neither is an id.
    """
    token = subject.rpartition(".")[2]
    if not payload and token.startswith("~"):
        raise ValueError("a long id without a payload; submit it with the id as the payload")
    return (payload or unquote_to_bytes(token)).decode()


def state_of(generation: Generation | None) -> EndState:
    """Return the final state of a task; MISSING for None, a task that the relay does not know."""
    if generation is None:
        return EndState.MISSING
    return EndState.FAILED if generation.state is State.FAILED else EndState.COMPLETED


def encode_result(
    task_id: str,
    state: EndState,
    generation: Generation | None,
    submission: Submission,
    *,
    max_bytes: int,
) -> tuple[bytes, bool]:
    """Return a result as JSON of up to `max_bytes`, and whether it is complete."""
    numbers = submission.sequence, submission.time
    for is_complete, task in _reductions(generation):
        url = task.url if task else None
        with suppress(UnicodeEncodeError):
            text = msgspec.json.encode(
                StoredResult(task_id, state, url, numbers[0], task, numbers[1])
            )
            if len(text) <= max_bytes:
                return text, is_complete
    return msgspec.json.encode(
        StoredResult(task_id, state, None, numbers[0], None, numbers[1])
    ), False


def _reductions(generation: Generation | None) -> Iterator[tuple[bool, Generation | None]]:
    """Yield the whole task, then smaller versions of it.

    First the relay's own text is left out, then the fields but link, reason and time, then the end
    of a long reason; at last the link.
    """
    yield True, generation
    if generation is None:
        return
    yield False, replace(generation, original="{}")
    url = _encodable(generation.url)
    reason = _encodable(generation.failure_reason)
    short = Generation(
        id=generation.id,
        state=generation.state,
        created_at=generation.created_at,
        video=Video(url=url) if url else None,
        failure_reason=reason,
    )
    yield False, short
    short = replace(short, failure_reason=reason and reason[:MAX_REASON_LENGTH])
    yield False, short
    yield False, replace(short, video=None)
    yield False, Generation(id=generation.id, state=generation.state)


def _encodable(text: str | None) -> str | None:
    """Replace the characters that JSON cannot have."""
    return text and text.encode(errors="replace").decode()


def decode_result(payload: bytes, subject: str) -> StoredResult:
    """Decode a result that is stored on `subject`. Raise ValueError if it is not one of its id."""
    try:
        stored = _result_decoder.decode(payload)
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None
    if subject_token(stored.id) != subject.rpartition(".")[2]:
        raise ValueError(f"it is about another id: {stored.id:.80}")
    if stored.generation is None and stored.state in _TASK_STATES:
        stored.generation = Generation(id=stored.id, state=State(stored.state))
    return stored


def make_end(stored: StoredResult, sequence: int, stored_at: datetime) -> End:
    """Return a stored result as `End`."""
    return End(
        id=stored.id,
        state=stored.state,
        generation=stored.generation,
        sequence=sequence,
        told_at=stored_at,
    )
