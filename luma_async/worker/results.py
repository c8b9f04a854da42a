"""What is stored of an id: the subject that it has, and the end that is told of it."""

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

MAX_TOKEN = 200
MAX_ID = 4096


class EndState(StrEnum):
    """How an id ended: as its task did, or because nobody could find that out."""

    COMPLETED = "completed"
    FAILED = "failed"
    MISSING = "missing"
    GAVE_UP = "gave_up"


class End(Struct, frozen=True, kw_only=True):
    """The end of one submitted id, as it is stored.

    `generation` is the task; where the workers gave up it is what they last saw of it, and None
    where the relay does not know the id. `told_at` is when the end was stored (aware), `sequence`
    its place among all ends: `results(since=end.sequence)` goes on behind it.
    """

    id: str
    state: EndState
    generation: Generation | None
    sequence: int
    told_at: datetime


class StoredResult(Struct):
    """The JSON of an end.

    `url` is the best link, for readers in other languages; `submission` the place of the id among
    all that was submitted, which tells this end from that of another time.
    """

    id: str
    state: EndState
    url: str | None
    submission: int
    generation: Generation | None


_TRIMMED_STATES = (EndState.COMPLETED, EndState.FAILED)
_stored = msgspec.json.Decoder(StoredResult)


def subject_token(task_id: str) -> str:
    """Return the id as one token of a subject; of a very long one, a digest."""
    quoted = quote(task_id, safe="").replace(".", "%2E").replace("~", "%7E")
    if len(quoted) <= MAX_TOKEN:
        return quoted
    return f"~{hashlib.sha256(task_id.encode()).hexdigest()}"


def check_storable(task_id: str) -> str:
    """Return an id that its end can be told of; ValueError for one that is longer than any is."""
    if len(task_id.encode()) > MAX_ID:
        raise ValueError(
            f"task id {one_line(task_id):.40}… is too long; give ids of up to {MAX_ID} bytes"
        )
    return task_id


def submitted_id(subject: str, payload: bytes) -> str:
    """Return the id that a message submits: its payload or, where that is empty, its subject.

    Raises ValueError where it is neither.
    """
    last = subject.rpartition(".")[2]
    if not payload and last.startswith("~"):
        raise ValueError("a long id without a payload; submit it with the id as the payload")
    return (payload or unquote_to_bytes(last)).decode()


def state_of(generation: Generation | None) -> EndState:
    """Return how a task ended; None is one that the relay does not know."""
    if generation is None:
        return EndState.MISSING
    return EndState.FAILED if generation.state is State.FAILED else EndState.COMPLETED


def encode_result(
    task_id: str, state: EndState, generation: Generation | None, submission: int, *, most: int
) -> tuple[bytes, bool]:
    """Return an end as JSON of at most so many bytes, and whether nothing was left out for it."""
    url = generation.url if generation else None
    for whole, part in _parts(generation):
        try:
            text = msgspec.json.encode(StoredResult(task_id, state, url, submission, part))
        except UnicodeEncodeError:
            continue
        if len(text) <= most:
            return text, whole
    return msgspec.json.encode(StoredResult(task_id, state, None, submission, None)), False


def _parts(generation: Generation | None) -> Iterator[tuple[bool, Generation | None]]:
    """Yield the task as it is, then ever less of it."""
    yield True, generation
    if generation:
        yield False, replace(generation, original="{}")
        yield False, Generation(id=generation.id, state=generation.state)


def decode_result(payload: bytes) -> StoredResult:
    """Read a stored end; ValueError for what is none."""
    stored = _stored.decode(payload)
    if stored.generation is None and stored.state in _TRIMMED_STATES:
        stored.generation = Generation(id=stored.id, state=State(stored.state))
    return stored


def end_of(stored: StoredResult, sequence: int, told_at: datetime) -> End:
    """Return an end as readers meet it."""
    return End(
        id=stored.id,
        state=stored.state,
        generation=stored.generation,
        sequence=sequence,
        told_at=told_at,
    )
