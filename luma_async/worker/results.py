"""How an id and its result are stored: the token of its subject, and the JSON of its result.

An id becomes one token of a NATS subject by percent-encoding; a long one by its SHA-256. A result
that is larger than a message may be is stored without the relay's own object, then without all
other fields but the state.
"""

import hashlib
from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from urllib.parse import quote, unquote_to_bytes

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from luma_async.structs import Generation, State
from luma_async.text import one_line

MAX_TOKEN_LENGTH = 200  # characters
MAX_ID_LENGTH = 4096  # bytes


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

    `url` is the best link, for readers in other languages. `submission` is the sequence number of
    the id in the wait stream; it shows which submission of the id this result belongs to.
    """

    id: str
    state: EndState
    url: str | None
    submission: int
    generation: Generation | None


_TASK_STATES = (EndState.COMPLETED, EndState.FAILED)
_result_decoder = msgspec.json.Decoder(StoredResult)


def subject_token(task_id: str) -> str:
    """Return the id as one token of a NATS subject: percent-encoded, or hashed if it is long."""
    quoted = quote(task_id, safe="").replace(".", "%2E").replace("~", "%7E")
    if len(quoted) <= MAX_TOKEN_LENGTH:
        return quoted
    return f"~{hashlib.sha256(task_id.encode()).hexdigest()}"


def check_storable(task_id: str) -> str:
    """Return the id. Raise ValueError if it is too long for its result to be stored."""
    if len(task_id.encode()) > MAX_ID_LENGTH:
        raise ValueError(
            f"task id {one_line(task_id):.40}… is too long; give ids of up to {MAX_ID_LENGTH} bytes"
        )
    return task_id


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
    task_id: str, state: EndState, generation: Generation | None, submission: int, *, max_bytes: int
) -> tuple[bytes, bool]:
    """Return a result as JSON of up to `max_bytes`, and whether it is complete."""
    url = generation.url if generation else None
    for is_complete, reduced in _reductions(generation):
        try:
            text = msgspec.json.encode(StoredResult(task_id, state, url, submission, reduced))
        except UnicodeEncodeError:
            continue
        if len(text) <= max_bytes:
            return text, is_complete
    return msgspec.json.encode(StoredResult(task_id, state, None, submission, None)), False


def _reductions(generation: Generation | None) -> Iterator[tuple[bool, Generation | None]]:
    """Yield the whole task, then smaller versions of it."""
    yield True, generation
    if generation:
        yield False, replace(generation, original="{}")
        yield False, Generation(id=generation.id, state=generation.state)


def decode_result(payload: bytes) -> StoredResult:
    """Decode a stored result. Raise ValueError if it is not one."""
    stored = _result_decoder.decode(payload)
    if stored.generation is None and stored.state in _TASK_STATES:
        stored.generation = Generation(id=stored.id, state=State(stored.state))
    return stored


def make_end(stored: StoredResult, sequence: int, stored_at: datetime) -> End:
    """Return the public End of a stored result."""
    return End(
        id=stored.id,
        state=stored.state,
        generation=stored.generation,
        sequence=sequence,
        told_at=stored_at,
    )
