"""Invariants of decoding, which any response must satisfy; used by the tests and the fuzzer."""

import pickle
from collections.abc import Mapping

import msgspec

from luma_async.errors import APIError, DecodeError, LumaError
from luma_async.protocol.decoding import decode_response
from luma_async.protocol.responses import Response
from luma_async.structs import Generation

ASKED = "4665a07c-7641-4809-a133-10786201bb56"


def check(status: int, headers: Mapping[str, str], body: bytes) -> Response | LumaError:
    """Decode a response, use it in each way, and return it or the error that it means."""
    try:
        answer = decode_response(status, headers, body)
    except LumaError as error:
        _check_error(status, error)
        return error
    assert 200 <= status < 300
    _check_answer(answer)
    try:
        _check_answer(answer.for_tasks([ASKED]))
    except DecodeError as error:
        assert len(answer.states) <= 1
        assert ASKED not in answer.states
        _check_error(status, error)
    try:
        alone = answer.for_task(ASKED)
    except DecodeError as error:
        assert ASKED not in answer.states
        _check_error(status, error)
    else:
        assert not alone.states or ASKED in alone.states
        _check_answer(alone)
    return answer


def _check_error(status: int, error: LumaError) -> None:
    line = str(error)
    assert line
    assert len(line.splitlines()) == 1
    assert len(line.encode()) < 2000
    assert str(pickle.loads(pickle.dumps(error))) == line
    if isinstance(error, APIError):
        assert error.status == status
        assert len(error.message.splitlines()) <= 1
        assert error.code is None or error.code
        assert error.retry_after is None or error.retry_after >= 0


def _check_answer(answer: Response) -> None:
    for task_id, state in answer.states.items():
        generation = answer.generation(task_id)
        assert (generation.id, generation.state) == (task_id, state)
        assert answer.row(task_id).generation() == generation
        assert generation.url is None or generation.url
        _check_types(generation)
        assert isinstance(generation.raw, dict | list)
        assert repr(generation)


def _check_types(generation: Generation) -> None:
    """Check that each field has its annotated type and that the task can be encoded as JSON."""
    assert msgspec.convert(msgspec.to_builtins(generation), Generation) == generation
    assert msgspec.json.encode(generation)
    if generation.created_at:
        assert generation.created_at.tzinfo
        assert generation.created_at.year > 1
